"""One run of ``vllm bench serve``: started, watched, timed out, read."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import exit_text
from pytest_pdserve.backends.allocation import log_tail
from pytest_pdserve.backends.allocation import log_tells
from pytest_pdserve.backends.passing import unwritten_values
from pytest_pdserve.plan.command import Command
from pytest_pdserve.results.redaction import redact_file
from pytest_pdserve.results.store import load_bench_result
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.record import NodeLoad
from pytest_pdserve.values.result import BenchResult

POLL_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRun:
    """What one client left behind."""

    command: Command
    """What ran, container included."""
    result: BenchResult
    """Its result file."""
    log: Path
    """Its output."""
    cpu: float | None
    """Cores that it used while it measured."""
    node_load: NodeLoad | None
    """How busy its node was meanwhile."""
    wall_s: float
    """Seconds from start to exit, imports included."""


def run_client(
    allocation: Allocation,
    command: Command,
    *,
    result: Path,
    api_key: str,
    limit_s: float,
    check_servers: Callable[[], None],
    hung: Callable[[str, str], ClientError],
) -> ClientRun:
    """Run the client to its end, watching the servers meanwhile.

    :param result: file that the client was told to write.
    :param check_servers: raises when a server has ended.
    :param hung: makes the error of a client that takes too long, of that and what its log tells.
    :raises ClientError: if it fails, takes longer than *limit_s*, or leaves no result.
    """
    log = result.with_suffix(".log")
    began = time.monotonic()
    secrets = unwritten_values([command], api_key)
    (process,) = allocation.start([command], logs=[log], secrets=secrets)
    try:
        code, used = _wait(process, limit_s, check_servers, hung)
    finally:
        _end(allocation, process, (log, result))
    wall_s = time.monotonic() - began
    if code != 0:
        check_servers()
        raise ClientError(f"{command.name} {exit_text(code)}; {log_tells(log)}")
    read = _read_result(command, result, log)
    return ClientRun(
        command=process.command,
        result=read,
        log=log,
        cpu=cpu_share(used, read.duration_s),
        node_load=process.node_load(),
        wall_s=wall_s,
    )


def _end(allocation: Allocation, process: Process, files: Sequence[Path]) -> None:
    """End *process*, and take the secrets out of the files that it wrote."""
    try:
        allocation.stop([process])
    finally:
        for path in files:
            redact_file(path)


def _wait(
    process: Process,
    limit_s: float,
    check_servers: Callable[[], None],
    hung: Callable[[str, str], ClientError],
) -> tuple[int, Sequence[tuple[float, float]]]:
    """Return the client's exit code, and its use of the CPU."""
    deadline = time.monotonic() + limit_s
    used: Sequence[tuple[float, float]] = ()
    while (code := process.poll()) is None:
        used = process.cpu_samples()
        check_servers()
        if time.monotonic() > deadline:
            raise hung(
                f"{process.command.name} did not end within {limit_s:.0f} s, the time for the work "
                "asked (limits.slowest_tok_s)",
                log_tells(process.log),
            )
        time.sleep(POLL_S)
    return code, used


def _read_result(command: Command, result: Path, log: Path) -> BenchResult:
    if not result.exists():
        raise ClientError(
            f"{command.name} ended well but wrote no {result}; {log} ends:\n{log_tail(log)}"
        )
    return load_bench_result(result)


def cpu_share(used: Sequence[tuple[float, float]], duration_s: float) -> float | None:
    """Cores used over the last *duration_s* of a client's life, when it measured.

    :param used: time and CPU seconds so far, in order.
    :returns: None without two samples that far apart.
    """
    if len(used) < 2 or duration_s <= 0:
        return None
    end, total = used[-1]
    earlier = [(at, cpu) for at, cpu in used if end - at >= duration_s]
    at, cpu = earlier[-1] if earlier else used[0]
    return (total - cpu) / (end - at) if end - at > POLL_S else None
