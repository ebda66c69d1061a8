"""How often ``pdserve history trend`` is right, and how long it takes.

``simulate [SERIES]``: steps of 4 % and drifts of 6 % over 30 nights, planted at random nights in
histories with 1 % noise of several kinds, and what is found where nothing is. Simulated.

``nightlies FOLDER``: public nightlies (``amd_*.csv`` with ``amd_starts.csv``), as the command shows
them.

``year FOLDER``: makes a history of 45 cells x 8 metrics x 365 nights there, with a step of 4 % in
one topology, a drift of 6 % over 30 nights in another, and a broken night; times the command.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pytest_pdserve.history.compaction import compact
from pytest_pdserve.history.entries import SessionEntry
from pytest_pdserve.history.files import COLUMNS
from pytest_pdserve.history.files import file_schema
from pytest_pdserve.history.store import Store
from pytest_pdserve.report.table import text_table
from pytest_pdserve.report.trend import trend_lines
from pytest_pdserve.study.series_file import ALIASES
from pytest_pdserve.study.trend import analyze_series
from pytest_pdserve.study.trend_history import trend_of
from pytest_pdserve.values.sessions import SessionRef

Floats = npt.NDArray[np.float64]
SEED, NIGHTS, NOISE = 1, 365, 0.01
STEP, DRIFT, DRIFT_NIGHTS = math.log(1.04), math.log(1.06), 30
METRICS = {
    "mean_ttft_ms": (100.0, 0.02),
    "p99_ttft_ms": (300.0, 0.06),
    "mean_itl_ms": (10.0, 0.008),
    "mean_tpot_ms": (10.0, 0.008),
    "mean_e2el_ms": (2000.0, 0.008),
    "p50_ttft_ms": (90.0, 0.015),
    "output_throughput": (4000.0, 0.008),
    "request_throughput": (16.0, 0.008),
}
"""Level and noise of each metric of the year."""
TOPOLOGIES = ("dp", "route2", "route4", "1p3d", "2p2d")


def correlated(rng: np.random.Generator, nights: int, correlation: float) -> Floats:
    """Return nights of an AR(1) process of variance 1."""
    made = rng.normal(size=nights)
    for night in range(1, nights):
        made[night] = correlation * made[night - 1] + made[night] * math.sqrt(1 - correlation**2)
    return made


def with_a_broken_night(rng: np.random.Generator, nights: int) -> Floats:
    """Return normal noise, and one night that is 30 standard deviations off."""
    made = rng.normal(size=nights)
    made[rng.integers(nights)] += 30
    return made


KINDS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "AR(1) 0.3": lambda rng, n: correlated(rng, n, 0.3),
    "AR(1) 0.7": lambda rng, n: correlated(rng, n, 0.7),
    "Student's t, 3": lambda rng, n: rng.standard_t(3, size=n) / math.sqrt(3),
    "exponential": lambda rng, n: rng.exponential(size=n) - 1,
    "one broken night": with_a_broken_night,
}


def simulate(series: int) -> None:
    """Print a row for each kind of noise and length of history."""
    rows = []
    for nights in (60, 120, NIGHTS):
        for name, draw in KINDS.items():
            rng = np.random.default_rng(SEED)
            noise = [NOISE * draw(rng, nights) for _ in range(series)]
            found = [analyze_series(each).changes for each in noise]
            steps = sum(change.kind == "step" for each in found for change in each)
            false = sum(bool(each) for each in found)
            rows.append(
                (
                    str(nights),
                    name,
                    f"{false} of {series}",
                    str(steps),
                    str(sum(map(len, found)) - steps),
                    *planted(rng, draw, nights),
                )
            )
    columns = (
        *("nights", "noise of 1 %", "series with a\nfalse change", "false\nsteps", "false\ndrifts"),
        *("step dated\nwithin 3", "nothing\nelse", "drift\nfound", "its start\nwithin 10"),
    )
    say(*text_table(columns, rows, "rlrrrrrrr"))


def planted(
    rng: np.random.Generator, draw: Callable[[np.random.Generator, int], Floats], nights: int
) -> tuple[str, ...]:
    """Return how many of 100 steps and of 100 drifts are found, and dated well."""
    dated = alone = found = started = 0
    for _ in range(100):
        at = int(rng.integers(10, nights - 10))
        analysis = analyze_series(NOISE * draw(rng, nights) + STEP * (np.arange(nights) >= at))
        dated += any(c.kind == "step" and abs(c.first - at) <= 3 for c in analysis.changes)
        alone += len(analysis.changes) == 1
        at = int(rng.integers(5, nights - DRIFT_NIGHTS))
        line = np.clip((np.arange(nights) - at) / DRIFT_NIGHTS, 0, 1)
        analysis = analyze_series(NOISE * draw(rng, nights) + DRIFT * line)
        drifts = [c for c in analysis.changes if c.kind == "drift"]
        found += bool(drifts)
        started += any(abs(c.first - at) <= 10 for c in drifts)
    return f"{dated} %", f"{alone} %", f"{found} %", f"{started} %"


def frames_of(folder: Path, *names: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return public nightlies in the form of a history's values and sessions."""
    hosts = pd.read_csv(folder / "amd_starts.csv").set_index("start")["host"]
    values, sessions = [], []
    for name in names:
        rows = pd.read_csv(folder / f"{name}.csv")
        rows["night"] = pd.to_datetime(rows["night"], utc=True)
        cells = rows["cell"].str.rsplit("-", n=1, expand=True)
        common = {"system": name, "client_kind": "sglang", "excluded": False, "reason": ""}
        values.append(
            rows[["night", "value"]].assign(
                session=rows["start"],
                topology=cells[0],
                workload=cells[1],
                metric=rows["metric"].map(ALIASES),
                status="valid",
                **common,
            )
        )
        starts = rows.groupby(["night", "start"])["version"].first().reset_index()
        versions = [
            dict(zip(("sglang", "rocm"), v.split("+"), strict=True)) for v in starts.version
        ]
        sessions.append(
            starts[["night"]].assign(
                session=starts["start"],
                versions=[json.dumps(each) for each in versions],
                nodes=starts["start"].map(hosts).fillna(""),
                image="",
                fingerprint="",
                **common,
            )
        )
    return pd.concat(values), pd.concat(sessions)


def nightlies(folder: Path) -> None:
    """Print what is found in each file."""
    for name in ("amd_mi30x-grok1", "amd_mi30x-grok2", "amd_mi35x-dsr1mxfp4"):
        say(*trend_lines(trend_of(*frames_of(folder, name))), "")


def year(folder: Path) -> None:
    """Make the history, and print how long the command takes and what it prints."""
    rng, store = np.random.default_rng(SEED), Store.create(folder)
    cells = [(topology, f"w{number}") for topology in TOPOLOGIES for number in range(9)]
    logs = {
        (cell, metric): noise * rng.normal(size=NIGHTS)
        for cell in cells
        for metric, (_, noise) in METRICS.items()
    }
    nights = np.arange(NIGHTS)
    for topology, workload in cells:
        for metric in ("mean_itl_ms", "mean_tpot_ms", "mean_e2el_ms"):
            there = logs[(topology, workload), metric]
            if topology == "1p3d":
                there += STEP * (nights >= 200)
            if topology == "route4":
                there += DRIFT * np.clip((nights - 280) / DRIFT_NIGHTS, 0, 1)
            there[100] += 0.3
    first = pd.Timestamp("2025-11-28T01:00:00Z")
    for night in range(NIGHTS):
        began = (first + pd.Timedelta(days=night)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        entry = SessionEntry(
            session=SessionRef(id=f"night-{night:03d}", started_at=began),
            system="year",
            fingerprint="f",
            client_kind="vllm",
            versions={"vllm": "0.15.1" if night < 200 else "0.15.2", "nixl": "0.8.0"},
            nodes=("n01", "n02", "n03", "n04"),
            runs={"valid": len(cells)},
            source="simulated",
        )
        store.add(entry, rows_of(entry, logs, night))
    compact(store)
    for _ in range(3):
        began_s, spent_s = time.perf_counter(), cpu_seconds()
        command = [sys.executable, "-m", "pytest_pdserve.commands.main", "history", "trend"]
        said = subprocess.run(
            [*command, "--history", str(folder)], check=True, capture_output=True, text=True
        ).stdout
        took_s, cpu_s = time.perf_counter() - began_s, cpu_seconds() - spent_s
        say(f"{took_s:.2f} s, of the CPU {cpu_s:.2f} s; process and imports included")
    say(said)


def cpu_seconds() -> float:
    """Return what processes of this one have spent of the CPU, which other work changes less."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def rows_of(
    entry: SessionEntry, logs: dict[tuple[tuple[str, str], str], Floats], night: int
) -> pa.Table:
    """Return the rows of one night."""
    rows = [
        (
            *("year", entry.session.id, topology, workload, "vllm", metric),
            METRICS[metric][0] * math.exp(values[night]),
            *("valid", 0, 0, ""),
        )
        for ((topology, workload), metric), values in logs.items()
    ]
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    return pa.table(columns, schema=file_schema())


def say(*lines: str) -> None:
    """Print lines at once."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Do what the first argument names."""
    what, *more = arguments
    if what == "simulate":
        simulate(int(more[0]) if more else 1000)
    elif what == "nightlies":
        nightlies(Path(more[0]))
    else:
        year(Path(more[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
