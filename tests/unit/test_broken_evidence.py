"""A right judge on broken evidence turns red."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pytest_pdserve.judge import envelope
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Finding
from tests.support.known_cases import BASELINE
from tests.support.known_cases import COUNTS
from tests.support.known_cases import FIRST
from tests.support.known_cases import FIXED
from tests.support.known_cases import KEYS
from tests.support.known_cases import NIGHTLY
from tests.support.known_cases import KnownCases
from tests.support.known_cases import MakeRecord

NAMES = (*NIGHTLY, *FIXED, *COUNTS)


@pytest.fixture
def cases(make_record: MakeRecord) -> KnownCases:
    return KnownCases(make_record)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e300, None])
def test_a_value_that_is_invalid_never_passes(
    name: str, value: float | None, cases: KnownCases
) -> None:
    improves = METRICS[name].better == "higher" and value == 1e300
    assert cases.cell(cases.odd(name, value)).status == ("PASS" if improves else "FAIL")


@pytest.mark.parametrize("name", sorted({*NIGHTLY, *FIXED, "completed"}))
def test_zero_never_passes(name: str, cases: KnownCases) -> None:
    verdict = cases.cell(cases.odd(name, 0.0))
    assert verdict.status == "FAIL"
    assert any(miss.startswith(name) for miss in verdict.misses)


@pytest.mark.parametrize("name", NAMES)
def test_a_renamed_metric_never_passes(name: str, cases: KnownCases) -> None:
    run = cases.run()
    renamed = {f"{key}_s" if key == name else key: value for key, value in run.metrics.items()}
    verdict = cases.cell(replace(run, metrics=renamed))
    assert verdict.status == "FAIL"
    assert f"{name} is in the baseline, but 1 of 1 runs lack it" in verdict.misses


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_one_run_that_lacks_a_metric_is_not_made_up_by_others(
    name: str, place: int, cases: KnownCases
) -> None:
    runs = [cases.run(), cases.run(), cases.run()]
    runs[place] = cases.odd(name, None)
    assert cases.cell(*runs).status == "FAIL"


@pytest.mark.parametrize("name", sorted(NIGHTLY))
def test_a_metric_that_sanity_voids_is_open_and_says_so(name: str, cases: KnownCases) -> None:
    note = Finding(check="chunks", severity="note", message="", voids=(name,))
    verdict = cases.cell(replace(cases.run(), findings=(note,)))
    assert (verdict.status, verdict.misses) == ("INCONCLUSIVE", (f"{name}: no run tonight has it",))


def test_no_run_at_all_is_no_verdict(cases: KnownCases) -> None:
    with pytest.raises(ValueError, match="expected runs of one cell, got none"):
        cases.cell()
    rows = cases.expected().judge({})
    assert {row.status for row in rows} == {"INCONCLUSIVE"}
    assert len(rows) == len(KEYS) * len(NIGHTLY)


def test_runs_of_two_cells_are_refused(cases: KnownCases) -> None:
    with pytest.raises(ValueError, match="expected runs of one cell"):
        cases.cell(cases.run(), cases.run(KEYS[1]))


@pytest.mark.parametrize("other", KEYS[1:4])
def test_another_cells_baseline_never_passes_what_was_slow(
    other: tuple[str, str], cases: KnownCases
) -> None:
    """Values of cells that are swapped: the faster one's clean run is then too slow."""
    cells = {topology: dict(workloads) for topology, workloads in BASELINE.cells.items()}
    cells[other[0]][other[1]] = BASELINE.cells[FIRST[0]][FIRST[1]]
    swapped = replace(BASELINE, cells=cells)
    verdict = envelope.judge_cell([cases.run(other)], swapped)
    assert verdict.status == "FAIL"


def test_a_wild_run_slipped_in_neither_fails_nor_hides_a_slow_cell(cases: KnownCases) -> None:
    wild, slow, sound = cases.run(slower=0.9), cases.run(slower=0.06), cases.run()
    rows = {
        name: {row.status for row in cases.expected().of_cell({FIRST: runs}, FIRST)}
        for name, runs in {
            "one wild of four": (wild, sound, sound, sound),
            "too good one of four": (cases.run(slower=-0.5), slow, slow, slow),
        }.items()
    }
    assert "FAIL" not in rows["one wild of four"]
    assert rows["too good one of four"] != {"PASS"}


@pytest.mark.parametrize("slower", [0.05, 0.1, 0.5, 5.0, 1e6])
def test_the_slower_the_surer(slower: float, cases: KnownCases) -> None:
    slow = cases.run(slower=slower)
    assert cases.cell(slow, slow, slow).status == "FAIL"
    assert cases.cell(slow).status == ("FAIL" if slower > 1 else "INCONCLUSIVE")


def test_a_fourfold_rate_of_a_fixed_limit_passes_as_an_improvement(cases: KnownCases) -> None:
    assert cases.cell(cases.run(request_throughput=8.0, mean_ttft_ms=25.0)).status == "PASS"
