"""Stored nights of a few cells, drawn around typical values; nothing of them is a measurement."""

from __future__ import annotations

import itertools
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.baselines import write_baseline
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.results.kinds import RECORD
from pytest_pdserve.results.kinds import SESSION
from pytest_pdserve.results.store import RECORD_SUFFIX
from pytest_pdserve.results.store import SESSION_FILE
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sessions import StoredRef
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import Workload

MakeRecord = Callable[..., Record]
TYPICAL = {
    "mean_ttft_ms": 100.0,
    "p99_ttft_ms": 180.0,
    "mean_itl_ms": 10.0,
    "output_throughput": 500.0,
}
COUNTS = {"completed": 4.0, "failed": 0.0}
CELLS = ("1p3d", "dp")
SHORT = Workload(input_len=512, output_len=256, num_prompts=4)
LONG = Workload(input_len=1024, output_len=256, num_prompts=4)
INVALID = Finding(check="completed", severity="invalid", message="3 of 4 requests completed")


@dataclass(kw_only=True)
class Shelf:
    """A project on ``p5-efa`` whose runs folder is filled by hand."""

    folder: Path
    make_record: MakeRecord
    source: random.Random = field(default_factory=lambda: random.Random(7))
    night_sd: float = 0.003
    run_sd: float = 0.005
    cells: tuple[str, ...] = CELLS
    effects: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        own = self.folder / "baselines" / "p5-efa"
        own.mkdir(parents=True)
        shutil.copy(SHIPPED[0] / "p5-efa" / "system.toml", own)

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def system(self) -> System:
        return load_system("p5-efa", [self.folder / "baselines"])

    def session(
        self,
        day: int,
        hour: int = 22,
        *,
        slower: float = 0.0,
        cells: tuple[str, ...] | None = None,
        workloads: tuple[Workload, ...] = (SHORT,),
        repeats: int = 1,
        restarts: bool = True,
        metrics: dict[str, float] | None = None,
        **fields: Any,
    ) -> str:
        """Records of one session in November, the 1st to the 28th; returns its run id.

        :param restarts: whether every repeat has servers that were started for it.
        """
        run_id = f"202611{day:02}T{hour:02}0000-p5-efa"
        began = f"2026-11-{day:02}T{hour:02}:00:00.000Z"
        session = fields.pop("session", SessionRef(id=run_id, started_at=began))
        path = self.runs / run_id / SESSION_FILE
        system = fields.get("system", "p5-efa")
        write_json(path, SESSION.dump(StoredRef(session=session, system=system), path))
        effect = self.effects.setdefault(str(day), self.source.gauss(0, self.night_sd))
        for topology, workload, repeat in itertools.product(
            self.cells if cells is None else cells, workloads, range(repeats)
        ):
            values = {n: self._draw(n, v, effect + slower) for n, v in TYPICAL.items()}
            record = self.make_record(
                {**values, **(metrics or {})},
                session=session,
                topology=topology,
                workload=workload,
                repeat=repeat,
                start=repeat if restarts else 0,
                requests=None,
                **fields,
            )
            write_record(self.runs / run_id, record)
        return run_id

    def _draw(self, name: str, typical: float, shift: float) -> float:
        sign = -1 if name == "output_throughput" else 1
        return typical * math.exp(sign * (shift + self.source.gauss(0, self.run_sd)))

    def nights(self, count: int, first: int = 1, **given: Any) -> list[str]:
        return [self.session(day, **given) for day in range(first, first + count)]

    def baseline(self, count: int = 20, **fields: Any) -> Path:
        """Write the project's baseline of *count* nights in October; returns its file."""
        path = self.folder / "baselines" / "p5-efa" / "sweep.json"
        write_baseline(path, typical_baseline(count, **{"cells": self.cells, **fields}))
        return path


def typical_baseline(
    count: int = 20,
    *,
    cells: tuple[str, ...] = CELLS,
    workloads: tuple[Workload, ...] = (SHORT,),
    starts: int = 3,
    **fields: Any,
) -> Baseline:
    """A baseline of so many nights in October, each of which showed the typical values.

    :param starts: fresh starts of the first night.
    """
    sources = tuple(
        Source(
            id=f"202610{day:02}T220000-p5-efa",
            started_at=f"2026-10-{day:02}T22:00:00.000Z",
            versions={"vllm": "0.15.1", "nixl": "0.10.1"},
            nodes=("node0", "node1"),
        )
        for day in range(1, count + 1)
    )
    nights = tuple(
        Night(session=source.id, starts=1 if place else starts, values=TYPICAL)
        for place, source in enumerate(sources)
    )
    cell = CellBaseline(counts=COUNTS, nights=nights)
    made = Baseline(
        system="p5-efa",
        suite="sweep",
        source="sweep.json",
        fingerprint="0123456789ab",
        sessions=sources,
        cells={topology: {workload.id: cell for workload in workloads} for topology in cells},
    )
    return replace(made, **fields)


def write_record(folder: Path, record: Record) -> Path:
    """Write *record* where a session of *folder* would; returns its file."""
    name = f"{record.workload.id}.{record.repeat}{RECORD_SUFFIX}"
    path = folder / record.topology / name
    write_json(path, RECORD.dump(record, path))
    return path
