"""What benchmark clients report of a server that says itself what it truly sent.

    python benchmarks/client/compare.py [--streams 1,64,256,1024] [--rounds 3] [--json FILE]

``timed_server.c`` answers every request with a first chunk after 200 ms and further ones every
25 ms, and tells when it sent them. Clients run in turn, in rounds, beside each other in one run:

``vllm-command``  ``vllm bench serve``, a command per run
``vllm``          the same functions in one process (pytest_pdserve/clients/vllm_worker.py)
``precise``       pytest_pdserve/clients/precise.py

Reported is the median over rounds of what a client says against what the server did; seconds
outside the load are wall time less the load's own duration.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from pytest_pdserve.clients import vllm_worker
from pytest_pdserve.serving.model import make_tiny_model

HERE = Path(__file__).parent
FIRST_MS, GAP_MS, TOKENS = 200.0, 25.0, 64
LIMIT_S = 120.0
METRICS = ("mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "mean_itl_ms", "output_throughput")


@contextmanager
def timed_server(folder: Path, built: Path | None) -> Iterator[int]:
    """Build the server unless it is *built*, start it, and give its port."""
    binary = built or folder / "timed_server"
    if built is None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise SystemExit("no C compiler: install gcc, or give --server")
        subprocess.run([compiler, "-O2", "-o", binary, HERE / "timed_server.c"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    words = [str(binary), str(port), str(FIRST_MS), str(GAP_MS), str(TOKENS)]
    process = subprocess.Popen(words)
    try:
        time.sleep(0.3)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


def truth(port: int, streams: int) -> dict[str, float]:
    """What the server did since the last look, of the requests that it answered in full."""
    text = httpx.get(f"http://127.0.0.1:{port}/truth", timeout=30).text
    rows = np.array([line.split() for line in text.splitlines()], dtype=np.int64)
    rows = rows[rows[:, 3] == TOKENS][-streams:]
    arrival, first, last = rows[:, 0], rows[:, 1], rows[:, 2]
    ttft, tpot = (first - arrival) / 1e6, (last - first) / 1e6 / (TOKENS - 1)
    return {
        "requests": float(len(rows)),
        "mean_ttft_ms": float(ttft.mean()),
        "p99_ttft_ms": float(np.percentile(ttft, 99)),
        "mean_tpot_ms": float(tpot.mean()),
        "mean_itl_ms": float(tpot.mean()),
        "output_throughput": len(rows) * TOKENS / ((last.max() - arrival.min()) / 1e9),
    }


def arguments(port: int, model: str, streams: int, result: Path, seed: int) -> list[str]:
    """Return the arguments that all clients take."""
    return [
        *("--base-url", f"http://127.0.0.1:{port}", "--model", model),
        *("--dataset-name", "random", "--random-input-len", "32"),
        *("--random-output-len", str(TOKENS), "--num-prompts", str(streams)),
        *("--seed", str(seed), "--ignore-eos", "--disable-tqdm", "--save-result"),
        *("--save-detailed", "--percentile-metrics", "ttft,tpot,itl,e2el"),
        *("--metric-percentiles", "99"),
        *("--result-dir", str(result.parent), "--result-filename", result.name),
    ]


class Worker:
    """The process that keeps vLLM's client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        began = time.monotonic()
        self.process = subprocess.Popen([sys.executable, vllm_worker.__file__, str(folder)])
        self.wait("ready.json")
        self.start_s = time.monotonic() - began
        self.jobs = 0

    def wait(self, name: str) -> None:
        """Wait until the worker has written a file."""
        deadline = time.monotonic() + LIMIT_S
        while not (self.folder / name).exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the worker ended or hangs before {name}")
            time.sleep(0.01)

    def run(self, words: list[str]) -> None:
        """Run one job."""
        self.jobs += 1
        job = {"argv": words, "log": str(self.folder / "log")}
        vllm_worker.write(self.folder / f"{self.jobs}.job.json", job)
        self.wait(f"{self.jobs}.done.json")

    def close(self) -> None:
        """End it."""
        (self.folder / "end").touch()
        self.process.wait(timeout=30)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def measure(client: str, words: list[str], worker: Worker | None) -> tuple[float, float]:
    """Run a client once; return its wall and CPU seconds."""
    began = time.monotonic()
    if client == "vllm":
        assert worker is not None
        used = cpu_of(worker.process.pid)
        worker.run(words)
        return time.monotonic() - began, cpu_of(worker.process.pid) - used
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    vllm = shutil.which("vllm", path=path) or "vllm"
    command = {
        "vllm-command": [vllm, "bench", "serve"],
        "precise": [sys.executable, "-m", "pytest_pdserve.clients.precise"],
    }[client]
    before = os.times()
    subprocess.run(
        [*command, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        timeout=LIMIT_S,
    )  # fmt: skip
    after = os.times()
    cpu = after.children_user + after.children_system
    return time.monotonic() - began, cpu - before.children_user - before.children_system


def run_all(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run every client at every number of streams, in rounds; yield a row per run."""
    with tempfile.TemporaryDirectory() as made, timed_server(Path(made), options.server) as port:
        folder = Path(made)
        model = str(folder / "model")
        make_tiny_model(folder / "model")
        worker = Worker(folder / "worker") if "vllm" in options.clients else None
        try:
            for streams in options.streams:
                for number in range(options.rounds):
                    for client in options.clients:
                        result = folder / f"{client}.json"
                        words = arguments(port, model, streams, result, number)
                        truth_before = httpx.get(f"http://127.0.0.1:{port}/truth", timeout=30)
                        truth_before.raise_for_status()
                        wall, cpu = measure(client, words, worker)
                        said = json.loads(result.read_text())
                        yield {
                            "client": client,
                            "streams": streams,
                            "said": {name: said[name] for name in METRICS},
                            "true": truth(port, streams),
                            "failed": said["failed"],
                            "outside_s": wall - said["duration"],
                            "cpu_s": cpu,
                        }
        finally:
            if worker is not None:
                worker.close()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the medians over rounds as a table in Markdown."""
    lines = [
        "| streams | client | mean TTFT, ms | true | p99 TTFT, ms | true | mean ITL, ms | true |"
        " output tok/s, off by | outside the load, s | CPU, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for streams in dict.fromkeys(row["streams"] for row in rows):
        for client in dict.fromkeys(row["client"] for row in rows):
            mine = [r for r in rows if (r["streams"], r["client"]) == (streams, client)]

            def median(part: str, name: str, runs: list[dict[str, Any]] = mine) -> float:
                return statistics.median(run[part][name] for run in runs)

            off = statistics.median(
                r["said"]["output_throughput"] / r["true"]["output_throughput"] - 1 for r in mine
            )
            lines.append(
                f"| {streams} | `{client}` "
                f"| {median('said', 'mean_ttft_ms'):.1f} | {median('true', 'mean_ttft_ms'):.1f} "
                f"| {median('said', 'p99_ttft_ms'):.1f} | {median('true', 'p99_ttft_ms'):.1f} "
                f"| {median('said', 'mean_itl_ms'):.3f} | {median('true', 'mean_itl_ms'):.3f} "
                f"| {off:+.1%} | {statistics.median(r['outside_s'] for r in mine):.1f} "
                f"| {statistics.median(r['cpu_s'] for r in mine):.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", default="1,64,256,1024")
    parser.add_argument("--clients", default="vllm-command,vllm,precise")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--server", type=Path, help="timed_server, built elsewhere")
    options = parser.parse_args()
    options.streams = [int(each) for each in options.streams.split(",")]
    options.clients = options.clients.split(",")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    try:
        rows.extend(run_all(options))
    except KeyboardInterrupt:
        sys.stdout.write("interrupted: the table has what was measured until then\n")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    seconds = time.monotonic() - began
    sys.stdout.write(
        f"{table(rows)}\n{os.cpu_count()} cores, {options.rounds} rounds, {seconds:.0f} s in all\n"
    )


if __name__ == "__main__":
    main()
