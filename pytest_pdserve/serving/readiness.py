"""Waiting for servers: by HTTP, and by watching their processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.allocation import exit_text
from pytest_pdserve.backends.allocation import log_tail
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import NotReadyError

POLL_S = 0.5
REPORT_S = 15.0
"""Between two progress lines when nothing changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A process, and where it answers."""

    name: str
    """Instance name, or ``router``."""
    role: str
    """``prefill``, ``decode``, ``aggregated`` or ``router``."""
    url: str | None
    """Base URL; None for a headless rank."""
    process: Process | None
    """None if somebody else runs it."""
    engines: int = 1
    """Data-parallel engines behind the URL."""
    ranks: int = 1
    """Tensor-parallel ranks of an engine."""
    metrics_url: str | None = None
    """Base URL of its counters, where it is another than :attr:`url`."""


def check_alive(servers: Sequence[Server], since: float, now: float) -> None:
    """Make sure that every process of *servers* still runs.

    :raises LaunchError: naming the first that does not, with the end of its log.
    """
    for server in servers:
        code = server.process.poll() if server.process is not None else None
        if server.process is not None and code is not None:
            raise LaunchError(
                f"{server.name} on {server.process.command.node} {exit_text(code)} "
                f"{now - since:.0f} s after its start; {server.process.log} ends:\n"
                f"{log_tail(server.process.log)}"
            )


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

    :param check: raises when a node is lost.
    :returns: seconds waited.
    :raises LaunchError: as soon as a process has ended.
    :raises NotReadyError: after *limit_s*, naming who is missing.
    """
    start = reported = clock()
    waiting = [server for server in servers if server.url is not None]
    while waiting:
        check()
        check_alive(servers, start, clock())
        still = [server for server in waiting if not _healthy(client, server)]
        waited = clock() - start
        if still and waited > limit_s:
            raise NotReadyError(_late(still, waited))
        if still and (len(still) < len(waiting) or clock() - reported >= REPORT_S):
            reported = clock()
            progress(f"waiting for {_names(still)}: {waited:.0f} s, log {_log(still[0])}")
        waiting = still
        if waiting:
            sleep(POLL_S)
    return clock() - start


def _healthy(client: httpx.Client, server: Server) -> bool:
    try:
        return client.get(f"{server.url}/health", timeout=5.0).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _names(servers: Sequence[Server]) -> str:
    return ", ".join(server.name for server in servers)


def _log(server: Server) -> str:
    return str(server.process.log) if server.process is not None else "elsewhere"


def _late(servers: Sequence[Server], waited: float) -> str:
    first = servers[0]
    tail = log_tail(first.process.log) if first.process is not None else ""
    return (
        f"{_names(servers)} did not answer /health within {waited:.0f} s (limits.ready_s); "
        f"{_log(first)} ends:\n{tail}"
    )
