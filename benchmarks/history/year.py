"""A year of nights in a history: how long it takes to import, to read and to list, and its size.

Simulated: 45 cells x 8 metrics x 365 nights at 1 % noise, written as the run folders of 365
sessions (16,425 records), with a step of 4 %, a drift of 6 % over 30 nights and a broken night.
Each command is a process of its own; seconds are those of the clock and those of the CPU, which
other work on the machine does not lengthen as much. ``python benchmarks/history/year.py FOLDER``
"""

from __future__ import annotations

import math
import random
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from datetime import timedelta
from pathlib import Path

import msgspec

from pytest_pdserve.report.history import folder_size
from pytest_pdserve.report.history import size_text
from pytest_pdserve.results.kinds import RECORD
from pytest_pdserve.results.kinds import SESSION
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sessions import StoredRef
from pytest_pdserve.values.workload import Workload

SYSTEM = "p5-efa"
NIGHTS = 365
TOPOLOGIES = ("dp", "route2", "route4", "1p3d", "2p2d")
WORKLOADS = tuple(
    Workload(input_len=tokens, output_len=out, num_prompts=128)
    for tokens in (512, 2048, 8192)
    for out in (64, 256, 1024)
)
LEVELS = {
    "mean_ttft_ms": 100.0,
    "p99_ttft_ms": 180.0,
    "mean_itl_ms": 10.0,
    "p99_itl_ms": 30.0,
    "mean_tpot_ms": 10.0,
    "mean_e2el_ms": 2600.0,
    "output_throughput": 500.0,
    "request_throughput": 2.0,
}
NOISE = 0.01
STEP_NIGHT, STEP = 120, 0.04
DRIFT_NIGHT, DRIFT_NIGHTS, DRIFT = 230, 30, 0.06
BROKEN_NIGHT, BROKEN = 300, 0.5


def shift(night: int, topology: str) -> float:
    """Return how much slower a topology is on a night, as a logarithm."""
    worse = 0.0
    if topology == "1p3d" and night >= STEP_NIGHT:
        worse += math.log1p(STEP)
    if topology == "route4":
        share = min(max(night - DRIFT_NIGHT, 0) / DRIFT_NIGHTS, 1.0)
        worse += share * math.log1p(DRIFT)
    return worse + (math.log1p(BROKEN) if night == BROKEN_NIGHT else 0.0)


def values(source: random.Random, worse: float) -> Mapping[str, float]:
    """Return the metrics of one run."""
    return {
        name: level * math.exp((-worse if "throughput" in name else worse) + source.gauss(0, NOISE))
        for name, level in LEVELS.items()
    }


def record(session: SessionRef, topology: str, workload: Workload, **fields: object) -> Record:
    """Return a record as long as those of real sessions."""
    process = ProcessRecord(
        name="decode[0]",
        node="node0",
        argv=("vllm", "serve", "model", *(f"--option-{n}" for n in range(20))),
        env={f"VARIABLE_{n}": "value" for n in range(10)},
        log="logs/decode-0.log",
    )
    return Record(
        session=session,
        system=SYSTEM,
        simulated=False,
        fingerprint="0123456789ab",
        topology=topology,
        workload=workload,
        repeat=0,
        start=0,
        started_at=str(session.started_at),
        finished_at=str(session.started_at),
        versions={"vllm": "0.15.1", "nixl": "0.10.1"},
        host={f"part{n}": "value" for n in range(30)},
        nodes=("node0", "node1", "node2", "node3"),
        processes=(process,) * 6,
        endpoint="http://127.0.0.1:8000",
        client={f"key{n}": float(n) for n in range(40)},
        served=(),
        timings_s={"bench": 60.0},
        findings=(Finding(check="client", severity="note", message="4 of 4 requests in time"),),
        requests=None,
        **fields,  # type: ignore[arg-type]
    )


def write_runs(runs: Path) -> None:
    """Write the run folders of a year."""
    source = random.Random(1)  # noqa: S311 - noise, no secret
    for night in range(NIGHTS):
        at = datetime(2026, 1, 1, 22) + timedelta(days=night)
        session = SessionRef(id=f"{at:%Y%m%dT%H%M%S}-{SYSTEM}", started_at=f"{at.isoformat()}.000Z")
        folder = runs / session.id
        folder.mkdir(parents=True)
        stored = SESSION.dump(StoredRef(session=session, system=SYSTEM), "year")
        (folder / "session.json").write_bytes(msgspec.json.encode(stored))
        for topology in TOPOLOGIES:
            (folder / topology).mkdir()
            for workload in WORKLOADS:
                made = record(
                    session, topology, workload, metrics=values(source, shift(night, topology))
                )
                data = {"schema_version": RECORD.version, **msgspec.to_builtins(made)}
                path = folder / topology / f"{workload.id}.0.record.json"
                path.write_bytes(msgspec.json.encode(data))


def timed(folder: Path, *arguments: str) -> None:
    """Run one command in *folder* and print its seconds and its last line."""
    command = [sys.executable, "-m", "pytest_pdserve.commands.main", *arguments]
    began, before = time.perf_counter(), cpu_s()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    seconds, cpu = time.perf_counter() - began, cpu_s() - before
    last = (done.stdout.strip().splitlines() or [""])[-1]
    say(f"{seconds:6.1f} s, CPU {cpu:5.1f} s  pdserve {' '.join(arguments)}: {last[:80]}")


def cpu_s() -> float:
    """Return the CPU seconds of all processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder: Path) -> None:
    """Make the year where it is not there yet, and time each command."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    if not (folder / "runs").exists():
        write_runs(folder / "runs")
    say(f"runs: {NIGHTS} nights, {size_text(folder_size(folder / 'runs'))}")
    timed(folder, "history", "import")
    timed(folder, "history", "import")
    say(f"history: {size_text(folder_size(folder / 'history'))}")
    timed(folder, "history", "list")
    timed(folder, "history", "show", "1p3d", WORKLOADS[0].id)
    timed(folder, "history", "show", f"20260501T220000-{SYSTEM}")
    timed(folder, "baseline", "propose", "--system", SYSTEM, "--history", "history")
    timed(folder, "history", "trend")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
