"""What runs show of cells and topologies, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace

import pytest

from pytest_pdserve.judge.cells import changes_of
from pytest_pdserve.judge.cells import judge_metrics
from pytest_pdserve.judge.cells import missing_metrics
from pytest_pdserve.judge.cells import night_metrics
from pytest_pdserve.judge.cells import references_of
from pytest_pdserve.judge.cells import topology_night_metrics
from pytest_pdserve.judge.cells import topology_references
from pytest_pdserve.judge.cells import wrong_counts
from pytest_pdserve.judge.expected import ExpectedChanges
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.expected import ExpectedChange
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record

NOTHING_IS_EXPECTED = ExpectedChanges().covers_for_cell("", ())

FLOORS = {name: METRICS[name].floor for name in METRICS.times}
MakeRecord = Callable[..., Record]
LEVELS = {"mean_itl_ms": 10.0, "output_throughput": 500.0}
A, B, C = ("1p3d", "a"), ("1p3d", "b"), ("1p3d", "c")


def night(number: int, starts: int = 1, slower: float = 0.0) -> Night:
    """A night whose latency and throughput are both worse by a fraction."""
    itl, rate = LEVELS.values()
    values = {"mean_itl_ms": itl * (1 + slower), "output_throughput": rate / (1 + slower)}
    return Night(session=f"s{number}", starts=starts, values=values)


def cell(count: int = 20, **fields: int) -> CellBaseline:
    nights = tuple(night(n, **fields) for n in range(count))
    return CellBaseline(counts={"completed": 4.0}, nights=nights)


def baseline(*keys: Key, count: int = 20) -> Baseline:
    cells: dict[str, dict[str, CellBaseline]] = {}
    for topology, workload in keys:
        cells.setdefault(topology, {})[workload] = cell(count)
    sessions = tuple(Source(id=f"s{n}") for n in range(count))
    return Baseline(system="p5-efa", suite="sweep", source="b.json", sessions=sessions, cells=cells)


@pytest.fixture
def run(make_record: MakeRecord) -> MakeRecord:
    """A factory of runs that are slower by a fraction, on a numbered start."""

    def make(slower: float = 0.0, start: int | None = 0, **fields: object) -> Record:
        itl, rate = LEVELS.values()
        metrics = {"mean_itl_ms": itl * (1 + slower), "output_throughput": rate / (1 + slower)}
        return replace(make_record(metrics, start=start), **fields)  # type: ignore[arg-type]

    return make


def test_every_judged_metric_of_the_nights_has_a_reference() -> None:
    found = references_of(cell(), FLOORS)
    assert sorted(found) == ["mean_itl_ms", "output_throughput"]
    assert found["mean_itl_ms"].median == pytest.approx(math.log(10))
    assert found["output_throughput"].median == pytest.approx(-math.log(500))


def test_what_is_kept_but_not_judged_has_no_reference() -> None:
    values = {**LEVELS, "request_throughput": 2.0}
    kept = CellBaseline(nights=(Night(session="s0", values=values),))
    assert "request_throughput" not in references_of(kept, FLOORS)


def test_a_metric_that_the_first_night_lacks_has_the_starts_of_its_own_first_night() -> None:
    first = Night(session="s0", starts=3, values={"output_throughput": 500.0})
    references = references_of(CellBaseline(nights=(first, night(1))), FLOORS)
    assert references["mean_itl_ms"].limit == pytest.approx(math.log1p(0.16))
    assert references["output_throughput"].limit == pytest.approx(math.log1p(0.08))


def test_worse_is_positive_for_latency_and_throughput(run: MakeRecord) -> None:
    references = references_of(cell(), FLOORS)
    changes = changes_of(run(0.1), references)
    assert changes == {
        "mean_itl_ms": pytest.approx(math.log(1.1)),
        "output_throughput": pytest.approx(math.log(1.1)),
    }


def test_a_void_metric_shows_nothing(run: MakeRecord) -> None:
    void = Finding(check="chunks", severity="note", message="x", voids=("mean_itl_ms",))
    seen = night_metrics([run(findings=(void,))], references_of(cell(), FLOORS))
    assert sorted(seen) == ["output_throughput"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(4.0, [], id="the same"),
        pytest.param(
            3.0,
            [
                "completed is 3, expected 4 requests as in the baseline: the load or the "
                "servers differ"
            ],
            id="another count",
        ),
        pytest.param(
            None,
            [
                "completed is missing, expected 4 requests as in the baseline: the load or the "
                "servers differ"
            ],
            id="no count",
        ),
    ],
)
def test_a_count_must_be_that_of_the_baseline(
    run: MakeRecord, value: float | None, said: list[str]
) -> None:
    metrics = {"completed": value} if value is not None else {}
    assert list(wrong_counts([run(metrics=metrics)], cell())) == said


def test_a_void_count_is_not_compared(run: MakeRecord) -> None:
    void = Finding(check="counters", severity="note", message="x", voids=("completed",))
    assert list(wrong_counts([run(metrics={}, findings=(void,))], cell())) == []


def test_a_metric_that_a_run_lacks_is_named(run: MakeRecord) -> None:
    references = references_of(cell(), FLOORS)
    runs = [run(), run(metrics={"output_throughput": 500.0})]
    assert list(missing_metrics(runs, references)) == [
        "mean_itl_ms has a reference, but 1 of 2 runs have no value"
    ]


def test_a_zero_where_times_are_measured_is_missing(run: MakeRecord) -> None:
    references = references_of(cell(), FLOORS)
    runs = [run(metrics={**LEVELS, "mean_itl_ms": 0.0})]
    assert list(missing_metrics(runs, references)) == [
        "mean_itl_ms has a reference, but 1 of 1 runs have no value"
    ]


def test_a_topology_has_half_the_floors_and_fails_tonight_beyond_those_of_cells() -> None:
    stored = baseline(A, B)
    cells = {key: references_of(cell(), FLOORS) for key in (A, B)}
    found = topology_references(stored, cells, FLOORS)["mean_itl_ms"]
    assert found.median == pytest.approx(0.0)
    assert found.limit == pytest.approx(math.log1p(0.02))
    assert found.fail_limit == pytest.approx(math.log1p(0.04))
    assert found.nights == 20


def test_a_topologys_nights_are_those_that_two_of_its_cells_have() -> None:
    stored = baseline(A, B)
    short = replace(stored.cells["1p3d"]["b"], nights=stored.cells["1p3d"]["b"].nights[5:])
    stored = replace(stored, cells={"1p3d": {"a": stored.cells["1p3d"]["a"], "b": short}})
    cells = {A: references_of(cell(), FLOORS), B: references_of(short, FLOORS)}
    assert topology_references(stored, cells, FLOORS)["mean_itl_ms"].nights == 15


def topology(tonight: Mapping[Key, list[Record]], *keys: Key) -> dict[str, tuple[float, ...]]:
    """Percent by which each run of the topology was slower, by metric."""
    cells = {key: references_of(cell(), FLOORS) for key in keys}
    references = topology_references(baseline(*keys), cells, FLOORS)
    seen = topology_night_metrics(tonight, cells, references)
    return {
        name: tuple(round(100 * math.expm1(c), 6) for c in s.changes) for name, s in seen.items()
    }


def test_a_topologys_run_is_the_median_of_its_cells(run: MakeRecord) -> None:
    tonight = {A: [run(0.1)], B: [run(0.02)], C: [run(0.0)]}
    assert topology(tonight, A, B, C) == {"mean_itl_ms": (2.0,), "output_throughput": (2.0,)}


def test_a_cell_that_was_not_measured_is_left_out(run: MakeRecord) -> None:
    assert topology({A: [run(0.1)], B: [run(0.0)]}, A, B, C)["mean_itl_ms"] == pytest.approx(
        (100 * (math.sqrt(1.1) - 1),), abs=1e-4
    )


def test_one_cell_is_no_topology(run: MakeRecord) -> None:
    assert topology({A: [run(0.1)]}, A, B, C) == {}


def test_a_start_on_which_all_cells_ran_is_a_further_run(run: MakeRecord) -> None:
    tonight = {
        A: [run(0.1), run(0.2, start=1), run(0.03, start=2)],
        B: [run(0.1), run(0.03, start=2)],
    }
    assert topology(tonight, A, B)["mean_itl_ms"] == (10.0, 3.0)


def test_runs_whose_start_nobody_knows_are_no_run_of_the_topology(run: MakeRecord) -> None:
    tonight = {key: [run(0.1), run(0.2, start=None)] for key in (A, B)}
    assert topology(tonight, A, B)["mean_itl_ms"] == (10.0,)


def verdicts(
    *runs: Record,
    before: tuple[Record, ...] = (),
    covers: Callable[[str, float], ExpectedChange | None] = NOTHING_IS_EXPECTED,
) -> list[tuple[str, Status, int]]:
    references = references_of(cell(), FLOORS)
    found = judge_metrics(
        night_metrics(runs, references),
        [night_metrics([earlier], references) for earlier in before],
        one_night_is_enough=True,
        covers=covers,
    )
    return [(each.metric, each.status, each.nights) for each in found]


def test_the_largest_change_comes_first(run: MakeRecord) -> None:
    slow = run(metrics={"mean_itl_ms": 10.1, "output_throughput": 490.0})
    assert [name for name, *_ in verdicts(slow)] == ["output_throughput", "mean_itl_ms"]


def test_nights_in_a_row_are_counted_back_to_the_first_that_was_fine(run: MakeRecord) -> None:
    found = verdicts(run(0.1), before=(run(0.1), run(0.1), run(0.0), run(0.1)))
    assert found[0][1:] == (Status.FAIL, 2)


def test_an_expected_change_is_shown_and_does_not_fail(run: MakeRecord) -> None:
    entry = ExpectedChange(until="2099-01-01", owner="me", reason="#1", metrics=("mean_itl_ms",))
    asked = []

    def covers(metric: str, worse: float) -> ExpectedChange | None:
        asked.append((metric, round(worse, 6)))
        return entry if metric == "mean_itl_ms" else None

    runs = [run(0.1, start=start) for start in range(3)]
    assert dict((name, status) for name, status, _ in verdicts(*runs, covers=covers)) == {
        "mean_itl_ms": Status.EXPECTED,
        "output_throughput": Status.FAIL,
    }
    assert sorted(asked) == [("mean_itl_ms", 0.1), ("output_throughput", 0.1)]
