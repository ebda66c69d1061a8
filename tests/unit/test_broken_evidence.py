"""A right judge on broken evidence turns red."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.results.baselines import write_baseline
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.session.session_judge import SessionJudge
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from tests.support.stored_nights import COUNTS
from tests.support.stored_nights import LONG
from tests.support.stored_nights import SHORT
from tests.support.stored_nights import TYPICAL
from tests.support.stored_nights import Shelf
from tests.support.stored_nights import typical_baseline

NAMES = (*TYPICAL, *COUNTS)
KEY: Key = ("dp", SHORT.id)
OTHERS: tuple[Key, ...] = (("dp", LONG.id), ("1p3d", SHORT.id))
TONIGHT = SessionRef(id="tonight", started_at="2026-11-20T22:00:00.000Z")


class Cases:
    """A judge of a clean cell, and runs of it."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.keep(typical_baseline(workloads=(SHORT, LONG)))

    def keep(self, baseline: Baseline) -> None:
        path = self.shelf.folder / "baselines" / "p5-efa" / "sweep.json"
        write_baseline(path, baseline)

    def run(
        self,
        metrics: Mapping[str, float | None] | None = None,
        *,
        slower: float = 0.0,
        start: int = 0,
    ) -> Record:
        """A run of the cell, slower by a fraction; a metric that is None lacks."""
        factor = {"lower": 1 + slower, "higher": 1 / (1 + slower)}
        times = {name: value * factor[METRICS[name].better] for name, value in TYPICAL.items()}
        merged = {**times, **COUNTS, **(metrics or {})}
        kept = {name: value for name, value in merged.items() if value is not None}
        record = self.shelf.make_record(topology="dp", session=TONIGHT, start=start)
        return replace(record, metrics=kept)

    def judge(self, *runs: Record, key: Key = KEY) -> Verdict:
        judge = SessionJudge(
            system=self.shelf.system,
            provenance=Provenance(versions={}, host={}, fingerprint="0123456789ab"),
            nodes_known=True,
            session=TONIGHT,
            runs=self.shelf.runs,
            state=self.shelf.folder / "state",
            rootdir=self.shelf.folder,
        )
        return judge.judge(key, runs)


@pytest.fixture
def cases(tmp_path: Path, make_record: Callable[..., Record]) -> Cases:
    return Cases(Shelf(folder=tmp_path, make_record=make_record))


def test_a_clean_run_passes(cases: Cases) -> None:
    assert cases.judge(cases.run()).status == "PASS"


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, None])
def test_a_value_that_is_invalid_never_passes(name: str, value: float | None, cases: Cases) -> None:
    verdict = cases.judge(cases.run({name: value}))
    assert verdict.status == "FAIL"
    assert any(miss.startswith(f"{name} ") for miss in verdict.misses)


@pytest.mark.parametrize("name", [*TYPICAL, "completed"])
def test_zero_never_passes(name: str, cases: Cases) -> None:
    verdict = cases.judge(cases.run({name: 0.0}))
    assert verdict.status == "FAIL"
    assert any(miss.startswith(f"{name} ") for miss in verdict.misses)


@pytest.mark.parametrize("name", NAMES)
def test_a_renamed_metric_never_passes(name: str, cases: Cases) -> None:
    run = cases.run()
    renamed = {f"{key}_s" if key == name else key: value for key, value in run.metrics.items()}
    assert cases.judge(replace(run, metrics=renamed)).status == "FAIL"


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_one_run_that_lacks_a_metric_is_not_made_up_by_others(
    name: str, place: int, cases: Cases
) -> None:
    runs = [cases.run(start=start) for start in range(3)]
    runs[place] = cases.run({name: None}, start=place)
    assert cases.judge(*runs).status == "FAIL"


@pytest.mark.parametrize("name", list(TYPICAL))
def test_a_metric_that_sanity_voids_is_not_judged_and_no_miss(name: str, cases: Cases) -> None:
    note = Finding(check="chunks", severity="note", message="", voids=(name,))
    verdict = cases.judge(replace(cases.run(slower=0.5), findings=(note,)))
    assert verdict.status == "SUSPICIOUS"
    assert {metric.metric for metric in verdict.metrics} == set(TYPICAL) - {name}


@pytest.mark.parametrize(
    ("voids", "why"),
    [
        (METRICS.latencies, "every latency that has a reference is void"),
        ((*METRICS.latencies, *TYPICAL), "every latency that has a reference is void"),
    ],
    ids=["every latency", "all"],
)
def test_a_cell_of_which_every_latency_is_void_is_not_judged(
    voids: tuple[str, ...], why: str, cases: Cases
) -> None:
    note = Finding(check="offered", severity="note", message="", voids=voids)
    verdict = cases.judge(replace(cases.run(), findings=(note,)))
    assert (verdict.status, verdict.misses) == ("NOT JUDGED", (why,))


def test_counts_alone_are_no_judgement(cases: Cases) -> None:
    verdict = cases.judge(cases.run(), key=("2p2d", SHORT.id))
    assert verdict.status == "NOT JUDGED"


@pytest.mark.parametrize("other", OTHERS)
def test_another_cells_baseline_never_passes_what_was_slow(other: Key, cases: Cases) -> None:
    """The nights of a cell that is half as slow, in place of its own: three clean runs are slow."""
    baseline = typical_baseline(workloads=(SHORT, LONG))
    cell = baseline.cells[other[0]][other[1]]
    halves = {
        name: value / 2 if METRICS[name].better == "lower" else value * 2
        for name, value in TYPICAL.items()
    }
    fast = replace(cell, nights=tuple(replace(night, values=halves) for night in cell.nights))
    swapped = {**baseline.cells["dp"], SHORT.id: fast}
    cases.keep(replace(baseline, cells={**baseline.cells, "dp": swapped}))
    assert cases.judge(*(cases.run(start=start) for start in range(3))).status == "FAIL"


@pytest.mark.parametrize(
    ("starts", "status"),
    [
        ((0.9, 0.0, 0.0), "PASS"),
        ((0.9, 0.9, 0.0), "PASS"),
        ((0.9, 0.9, 0.9), "FAIL"),
        ((0.06, 0.06, 0.035), "FAIL"),
        ((0.06, 0.035, 0.035), "SUSPICIOUS"),
    ],
    ids=[
        *("one wild run", "two wild runs", "three wild runs"),
        *("a median beyond the limit", "a median within it"),
    ],
)
def test_every_start_must_be_slow(starts: tuple[float, ...], status: str, cases: Cases) -> None:
    runs = [cases.run(slower=slower, start=n) for n, slower in enumerate(starts)]
    assert cases.judge(*runs).status == status


@pytest.mark.parametrize("slower", [0.05, 0.1, 0.5, 5.0, 1e6])
def test_one_run_never_fails_however_slow(slower: float, cases: Cases) -> None:
    assert cases.judge(cases.run(slower=slower)).status == "SUSPICIOUS"


@pytest.mark.parametrize("slower", [0.05, 0.1, 0.5, 5.0, 1e6])
def test_three_slow_starts_fail(slower: float, cases: Cases) -> None:
    runs = [cases.run(slower=slower, start=start) for start in range(3)]
    assert cases.judge(*runs).status == "FAIL"


def test_three_copies_of_a_run_confirm_nothing(cases: Cases) -> None:
    assert cases.judge(*[cases.run(slower=0.5)] * 3).status == "SUSPICIOUS"


@pytest.mark.parametrize("better", [-0.05, -0.5, -0.75])
def test_what_is_better_passes(better: float, cases: Cases) -> None:
    assert cases.judge(cases.run(slower=better)).status == "PASS"
