"""Offset of a benchmark client: its report compared with the times that a test server recorded."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Literal

import httpx
import numpy as np

from pytest_pdserve import clients
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import NotReadyError
from pytest_pdserve.values.numbers import finite

FIRST_MS, GAP_MS = 200.0, 25.0
"""Delay of a request's first chunk, and the gap between later chunks, of the test server."""
INPUT_TOKENS, OUTPUT_TOKENS = 32, 64
METRICS = ("mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "mean_tpot_ms", "output_throughput")
"""Metrics whose true values the server records."""
SOURCE = Path(clients.__file__).with_name("timed_server.c")
SCRIPT = Path(clients.__file__).with_name("timed_server.py")
_READY_S = 20.0
ServerKind = Literal["compiled", "asyncio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedLoad:
    """The load that a client sends: all requests at once, each on its own connection."""

    base_url: str
    requests: int
    seed: int
    input_tokens: int = INPUT_TOKENS
    output_tokens: int = OUTPUT_TOKENS


Client = Callable[[TimedLoad], Mapping[str, Any]]
"""Sends a load and returns its result, with the names of ``vllm bench serve``'s result file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOffset:
    """Reported and true values of a client's metrics at one number of streams."""

    streams: int
    """Number of requests, sent all at once."""
    reached: int
    """Largest number of requests in flight at once, as recorded by the server."""
    answered: int
    """Requests that the server answered completely."""
    reported: Mapping[str, float]
    """Reported value by metric; metrics that the client does not report are absent."""
    true: Mapping[str, float]
    """True value by metric."""

    @property
    def off(self) -> dict[str, float]:
        """Relative error of each reported metric; positive if it is reported too high."""
        return {name: value / self.true[name] - 1 for name, value in self.reported.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedServer:
    """A running server of known timing."""

    kind: ServerKind
    port: int

    @property
    def url(self) -> str:
        """Base URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def truth(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return arrival, first and last chunk (ns) and number of chunks of each new request.

        Requests of earlier calls are not returned again. Shape ``(requests, 4)``.
        """
        text = httpx.get(f"{self.url}/truth", timeout=30, trust_env=False).text
        rows = [line.split() for line in text.splitlines()]
        return np.array(rows, dtype=np.int64).reshape(-1, 4)


@contextmanager
def timed_server(
    folder: Path, *, kind: ServerKind | None = None, binary: Path | None = None
) -> Iterator[TimedServer]:
    """Start a server of known timing on the loopback interface, and terminate it afterwards.

    :param folder: where the compiled server is built.
    :param kind: None selects the compiled server if there is a C compiler.
    :param binary: an already compiled server.
    :raises ConfigError: if the compiled server is requested and cannot be built.
    :raises NotReadyError: if the server does not start.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    chosen = kind or ("compiled" if binary or compiler else "asyncio")
    program = (
        [sys.executable, str(SCRIPT)]
        if chosen == "asyncio"
        else [str(binary or _build(folder, compiler))]
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    words = [*program, str(port), str(FIRST_MS), str(GAP_MS), str(OUTPUT_TOKENS)]
    with subprocess.Popen(words) as process:
        try:
            _wait_until_up(process, port)
            yield TimedServer(kind=chosen, port=port)
        finally:
            process.terminate()


def _build(folder: Path, compiler: str | None) -> Path:
    if compiler is None:
        raise ConfigError(
            "the compiled server of known timing: no C compiler (gcc, cc) found; install one, or "
            "use the asyncio server"
        )
    built = folder / "timed_server"
    command = [compiler, "-O2", "-o", str(built), str(SOURCE)]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"{SOURCE.name} cannot be built with {compiler}: {last}")
    return built


def _wait_until_up(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.01)
    raise NotReadyError(f"the server of known timing does not listen on port {port}")


def measure_offsets(
    client: Client, server: TimedServer, *, streams: Sequence[int], seed: int = 0
) -> tuple[ClientOffset, ...]:
    """Run *client* at each number of streams, and compare its report with the true values.

    :raises ClientError: if no request of a load was answered.
    """
    offsets = []
    for number in streams:
        server.truth()
        load = TimedLoad(base_url=server.url, requests=number, seed=seed)
        reported = client(load)
        offsets.append(offset_of(reported, server.truth(), number))
    return tuple(offsets)


def offset_of(
    reported: Mapping[str, Any], rows: np.ndarray[Any, np.dtype[np.int64]], streams: int
) -> ClientOffset:
    """Return the reported and true values of the last *streams* requests.

    Requests that a client sends before its load, as warm-up, are left out.

    :param rows: arrival, first and last chunk, and number of chunks of each request.
    :raises ClientError: if none of them was answered.
    """
    complete = rows[rows[:, 3] == OUTPUT_TOKENS][-streams:]
    if not len(complete):
        raise ClientError(f"none of {streams} requests was answered by the server of known timing")
    arrival, first, last = complete[:, 0], complete[:, 1], complete[:, 2]
    ttft, tpot = (first - arrival) / 1e6, (last - first) / 1e6 / (OUTPUT_TOKENS - 1)
    true = {
        "mean_ttft_ms": float(ttft.mean()),
        "p99_ttft_ms": float(np.percentile(ttft, 99)),
        "mean_itl_ms": float(tpot.mean()),
        "mean_tpot_ms": float(tpot.mean()),
        "output_throughput": len(complete) * OUTPUT_TOKENS / ((last.max() - arrival.min()) / 1e9),
    }
    by_metric = {name: finite(reported.get(name)) for name in METRICS}
    return ClientOffset(
        streams=streams,
        reached=in_flight(arrival, last),
        answered=len(complete),
        reported={name: value for name, value in by_metric.items() if value is not None},
        true=true,
    )


def in_flight(
    began: np.ndarray[Any, np.dtype[np.int64]], ended: np.ndarray[Any, np.dtype[np.int64]]
) -> int:
    """Return the largest number of requests in flight at once."""
    times = np.concatenate([began, ended])
    steps = np.concatenate([np.ones(len(began), np.int64), -np.ones(len(ended), np.int64)])
    return int(np.cumsum(steps[np.argsort(times, kind="stable")]).max())
