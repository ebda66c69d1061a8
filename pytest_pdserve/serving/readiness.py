"""Wait for servers: by HTTP, and by watching their processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.allocation import exit_text
from pytest_pdserve.backends.allocation import failure_text
from pytest_pdserve.backends.allocation import log_cause
from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import AnswerLimits
from pytest_pdserve.serving.answers import read_answer
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import NotReadyError

POLL_S = 0.5
REPORT_S = 14.0
"""Seconds between progress lines when nothing changes, so that output never pauses for 15 s."""
_HEALTH_LIMITS = AnswerLimits(time_s=5.0)
_SIGKILL = (-9, 137)
"""Exit codes of a process that was killed, by itself and in a container."""
_KILLED = "SIGKILL comes from the kernel where memory runs out, from Slurm, or from a person"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server: its process and its URLs."""

    name: str
    """Instance name, or ``router``."""
    role: str
    """``prefill``, ``decode``, ``aggregated`` or ``router``."""
    url: str | None
    """Base URL; None for a headless rank."""
    process: Process | None
    """None for a server that the session did not start."""
    engines: int = 1
    """Data-parallel engines behind the URL."""
    ranks: int = 1
    """Tensor-parallel ranks of an engine."""
    metrics_url: str | None = None
    """Base URL of its counters; None if they are at :attr:`url`."""


def check_alive(
    servers: Sequence[Server],
    since: float,
    now: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Raise if a process of *servers* has ended.

    A process that fails makes others fail. They get a moment to end too, so that the reported cause
    does not depend on which is found first.

    :raises LaunchError: naming a server that has ended, with the cause from its log; if there are
        several, the one whose error is innermost.
    """
    if not _ended(servers):
        return
    sleep(POLL_S)
    server, process, code = max(_ended(servers), key=lambda ended: _depth(ended[1].log))
    killed = f"; {_KILLED}" if code in _SIGKILL and log_cause(process.log) is None else ""
    raise LaunchError(
        f"{server.name} on {process.command.node} {exit_text(code)} {now - since:.0f} s after its "
        f"start{killed}; {failure_text(process.log)}"
    )


def _ended(servers: Sequence[Server]) -> list[tuple[Server, Process, int]]:
    """Return the servers whose process has ended, with its exit code."""
    return [
        (server, process, code)
        for server in servers
        if (process := server.process) is not None and (code := process.poll()) is not None
    ]


def _depth(log: Path) -> int:
    """Return how deep inside its server the error of a log occurred; -1 without an error."""
    cause = log_cause(log)
    return -1 if cause is None else cause.depth


def wait_ready(
    servers: Sequence[Server],
    client: httpx.Client,
    *,
    limit_s: float,
    progress: Progress,
    check: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Wait until every server with a URL answers ``/health`` with 200.

    :param check: called in each round; raises if a node is lost.
    :returns: seconds waited.
    :raises LaunchError: as soon as a process has ended.
    :raises NotReadyError: after *limit_s*, naming the servers that are not ready.
    """
    start = reported = clock()
    waiting = [server for server in servers if server.url is not None]
    while waiting:
        check()
        check_alive(servers, start, clock(), sleep)
        unready = [server for server in waiting if not _healthy(client, server)]
        waited = clock() - start
        if unready and waited > limit_s:
            raise NotReadyError(_late(unready, waited))
        if unready and (len(unready) < len(waiting) or clock() - reported >= REPORT_S):
            reported = clock()
            progress(f"waiting for {_names(unready)}: {waited:.0f} s, log {_log(unready[0])}")
        waiting = unready
        if waiting:
            sleep(POLL_S)
    return clock() - start


def _healthy(client: httpx.Client, server: Server) -> bool:
    try:
        answer = read_answer(client, "GET", f"{server.url}/health", limits=_HEALTH_LIMITS)
    except AnswerError:
        return False
    return answer.status == httpx.codes.OK


def _names(servers: Sequence[Server]) -> str:
    return ", ".join(server.name for server in servers)


def _log(server: Server) -> str:
    return str(server.process.log) if server.process is not None else "elsewhere"


def _late(servers: Sequence[Server], waited: float) -> str:
    first = servers[0].process
    log = failure_text(first.log) if first is not None else "its log is elsewhere"
    return f"{_names(servers)} did not answer /health within {waited:.0f} s (limits.ready_s); {log}"
