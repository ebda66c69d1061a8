"""The nightly rule through record files and ``pdserve``, on noise drawn here and nowhere else.

An independent check of ``pdserve selftest``: a project with a system is made, nights are written
as record files, a baseline is proposed and accepted, and every night is judged by ``pdserve
judge``; the cells that it names are run again on a further start, as a session would. Usage::

    python benchmarks/judge_by_files.py [KIND] [NIGHTS] [SEED]

KIND is normal, t3, slowed (2 % of runs by 5 to 50 %) or shared (85 % of the variance is the night).
Everything printed is SIMULATED.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from pytest_pdserve.commands.main import main as pdserve

SPREADS = {
    "mean_e2el_ms": 0.008,
    "mean_itl_ms": 0.008,
    "mean_tpot_ms": 0.008,
    "output_throughput": 0.008,
    "mean_ttft_ms": 0.02,
    "p99_ttft_ms": 0.06,
}
LEVELS = {name: 100.0 * (n + 1) for n, name in enumerate(SPREADS)}
TOPOLOGIES = ("dp", "route2", "route4", "1p3d", "2p2d")
LENGTHS = tuple((i, o) for i in (512, 1024) for o in (256, 512, 1024, 2048))
FIRST = datetime(2026, 1, 1, 1, tzinfo=UTC)
SYSTEM = "drawn"
Cell = tuple[str, tuple[int, int]]
CELLS: tuple[Cell, ...] = tuple((t, lengths) for t in TOPOLOGIES for lengths in LENGTHS)


class Project:
    """A folder with a system, its runs and its baseline."""

    def __init__(self, folder: Path, template: dict[str, Any], kind: str, seed: int) -> None:
        self.folder, self.template, self.kind = folder, template, kind
        self.source = random.Random(seed)  # noqa: S311 - a simulation
        self.night_effects: dict[tuple[int, Cell], dict[str, float]] = {}
        system = folder / "baselines" / SYSTEM / "system.toml"
        system.parent.mkdir(parents=True)
        system.write_text(
            'schema_version = 1\ndescription = "drawn"\n[cluster]\nkind = "local"\nnodes = 4\n'
            'gpus_per_node = 1\n[model]\npath = "m"\n'
        )

    def run_id(self, night: int) -> str:
        """Name of the session of a night."""
        return f"{FIRST + timedelta(days=night):%Y%m%dT%H%M%S}-{SYSTEM}"

    def record(self, night: int, cell: Cell, start: int, slower: float = 0.0) -> None:
        """Write one run of a cell."""
        topology, (input_len, output_len) = cell
        began = f"{FIRST + timedelta(days=night):%Y-%m-%dT%H:%M:%S}.000Z"
        workload = {**self.template["workload"], "input_len": input_len, "output_len": output_len}
        session = {"id": self.run_id(night), "started_at": began, "simulated_night": None}
        data = {
            **self.template,
            "session": session,
            "topology": topology,
            "workload": workload,
            "repeat": start,
            "start": start,
            "metrics": self.draw(night, cell, slower),
        }
        folder = self.folder / "runs" / session["id"]
        path = folder / topology / f"{input_len}-{output_len}.{start}.record.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))
        if not (folder / "session.json").exists():
            data_of_session = {"schema_version": 1, "session": session, "system": SYSTEM}
            (folder / "session.json").write_text(json.dumps(data_of_session))

    def draw(self, night: int, cell: Cell, slower: float) -> dict[str, float]:
        """Values of one run; *slower* is of its four ITL-like metrics."""
        source, common = self.source, self.standard()
        key = (night, cell)
        if key not in self.night_effects:
            self.night_effects[key] = {name: self.standard() for name in SPREADS}
        share = 0.85 if self.kind == "shared" else 0.0
        slow = self.kind == "slowed" and source.random() < 0.02
        extra = math.log1p(source.uniform(0.05, 0.50)) if slow else 0.0
        values = {}
        for name, spread in SPREADS.items():
            own = math.sqrt(0.6) * common + math.sqrt(0.4) * self.standard()
            noise = math.sqrt(share) * self.night_effects[key][name] + math.sqrt(1 - share) * own
            planted = math.log1p(slower) if spread == 0.008 else 0.0
            log = spread * noise + extra + planted
            sign = -1 if name == "output_throughput" else 1
            values[name] = LEVELS[name] * math.exp(sign * log)
        return values

    def standard(self) -> float:
        """A draw of variance 1."""
        if self.kind != "t3":
            return self.source.gauss(0, 1)
        chi = sum(self.source.gauss(0, 1) ** 2 for _ in range(3))
        return self.source.gauss(0, 1) / math.sqrt(chi / 3) / math.sqrt(3)

    def judge(self, night: int) -> dict[str, Any]:
        """Return the JSON that ``pdserve judge`` prints for a night."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            arguments = ["judge", "--system", SYSTEM, "--runs", "runs", "--format", "json"]
            pdserve([*arguments, self.run_id(night)])
        found: dict[str, Any] = json.loads(output.getvalue())
        return found

    def night(self, night: int, slower: float = 0.0) -> tuple[dict[str, Any], int]:
        """Write and judge a night, running again what is named; returns verdicts and runs.

        :param slower: of the first cell.
        """

        def measure(cell: Cell, start: int) -> None:
            self.record(night, cell, start, slower if cell == CELLS[0] else 0.0)

        for cell in CELLS:
            measure(cell, 0)
        runs, verdicts = len(CELLS), self.judge(night)
        for start in (1, 2):
            again = set(verdicts["again"])
            chosen = [cell for cell in CELLS if named(cell, again)]
            for cell in chosen:
                measure(cell, start)
            runs += len(chosen)
            if chosen:
                verdicts = self.judge(night)
        return verdicts, runs


def named(cell: Cell, names: set[str]) -> bool:
    """Tell whether a cell is among *names*, which are topologies and workload ids."""
    topology, (input_len, output_len) = cell
    return any(name.startswith(f"{topology} random-{input_len}-{output_len}-") for name in names)


def template() -> dict[str, Any]:
    """A record that sanity has nothing to say of, from the tests' own data."""
    from pytest_pdserve.results.kinds import RECORD
    from pytest_pdserve.values.record import Record
    from pytest_pdserve.values.sessions import SessionRef
    from pytest_pdserve.values.workload import Workload

    record = Record(
        session=SessionRef(id="x", started_at="2026-01-01T00:00:00.000Z"),
        system=SYSTEM,
        simulated=False,
        fingerprint="0123456789ab",
        topology="dp",
        workload=Workload(input_len=512, output_len=256, num_prompts=256),
        repeat=0,
        start=0,
        started_at="2026-01-01T00:00:00.000Z",
        finished_at="2026-01-01T00:00:02.000Z",
        versions={"vllm": "0.32.0"},
        host={"drawn": "yes"},
        nodes=("node0",),
        processes=(),
        endpoint="drawn",
        client={},
        metrics={"mean_itl_ms": 1.0},
        served=(),
        timings_s={"bench": 2.0},
        findings=(),
        requests=None,
    )
    return RECORD.dump(record, "drawn")


def share(count: int, of: int) -> str:
    """A share in percent with its 95 % Wilson interval."""
    interval = binomtest(count, of).proportion_ci(method="wilson")
    return f"{count / of:.2%} ({interval.low:.2%} to {interval.high:.2%}) of {of}"


def main(kind: str, nights: int, seed: int) -> None:
    """Judge clean nights, and planted ones after each baseline."""
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="judge-by-files-"))
    project = Project(folder, template(), kind, seed)
    os.chdir(folder)
    quiet: Callable[[list[str]], int] = lambda arguments: _quietly(arguments)  # noqa: E731
    for night in range(20):
        for cell in CELLS:
            project.record(night, cell, 0)
    quiet(["baseline", "propose", "--system", SYSTEM, "--runs", "runs"])
    quiet(["baseline", "accept", "--system", SYSTEM, "--approver", "drawn"])
    failed = runs = suspicious = 0
    for night in range(20, 20 + nights):
        verdicts, made = project.night(night)
        statuses = [cell["verdict"] for cell in verdicts["cells"].values()]
        failed += "FAIL" in statuses
        suspicious += sum(status != "PASS" for status in statuses)
        runs += made
    found = 0
    planted = max(20, nights // 5)
    for extra in range(planted):
        night = 20 + nights + 40 * (extra + 1)
        cells = project.night(night, slower=0.05)[0]["cells"]
        found += next(cells[name] for name in cells if _first(name))["verdict"] == "FAIL"
    say = sys.stdout.write
    say(f"SIMULATED, {kind}, seed {seed}, {len(CELLS)} cells, through record files and pdserve\n")
    say(f"clean nights with a false FAIL of a cell: {share(failed, nights)}\n")
    say(f"cells not PASS: {share(suspicious, nights * len(CELLS))}\n")
    say(f"runs per cell-night: {runs / nights / len(CELLS):.3f}\n")
    say(f"5 % of a cell's ITL-like metrics FAILs the same night: {share(found, planted)}\n")
    say(f"{time.monotonic() - began:.0f} s\n")
    shutil.rmtree(folder)


def _quietly(arguments: list[str]) -> int:
    with contextlib.redirect_stdout(io.StringIO()):
        return pdserve(arguments)


def _first(name: str) -> bool:
    return named(CELLS[0], {name})


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        given[0] if given else "normal",
        int(given[1]) if len(given) > 1 else 200,
        int(given[2]) if len(given) > 2 else 1,
    )
