"""From baselines and records to tests: what counts as a run, and what nights then say."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from pytest_pdserve.judge.expectation import Expectation
from pytest_pdserve.judge.expectation import Runs
from pytest_pdserve.judge.expectation import expectation_of
from pytest_pdserve.judge.expectation import values_of
from pytest_pdserve.judge.stats import envelope_of_nights
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Cells
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.workload import Workload

MakeRecord = Callable[..., Record]
Key = tuple[str, str]
WORKLOADS = {
    workload.id: workload
    for workload in (
        Workload(input_len=i, output_len=o, num_prompts=4)
        for i in (512, 1024, 2048)
        for o in (256, 512, 1024)
    )
}
KEYS: tuple[Key, ...] = tuple((topology, name) for topology in ("1p3d", "dp") for name in WORKLOADS)
FIRST = KEYS[0]
TYPICAL = {"mean_itl_ms": 10.0, "output_throughput": 500.0}
NOISE = 0.008


def baseline_of(
    count: int = 20,
    *,
    keys: Sequence[Key] = KEYS,
    lacking: Mapping[Key, Sequence[str]] | None = None,
    nulls: int = 0,
) -> Baseline:
    """Runs of 0.8 % noise; of every test the noise has exactly that size and mean 0.

    :param lacking: metrics that a cell does not have.
    :param nulls: first runs of every second cell that are not there.
    """
    rng = np.random.default_rng(11)
    cells: dict[str, dict[str, dict[str, Envelope]]] = {}
    for number, (topology, workload) in enumerate(keys):
        cell = cells.setdefault(topology, {}).setdefault(workload, {})
        for name, typical in TYPICAL.items():
            missing = nulls if number % 2 else 0
            steps = rng.standard_normal(count - missing)
            steps = (steps - steps.mean()) / steps.std(ddof=1) * NOISE
            values = (*[None] * missing, *(typical * math.exp(step) for step in steps))
            if name not in (lacking or {}).get((topology, workload), ()):
                cell[name] = envelope_of_nights(name, values)
        failed = METRICS["failed"]
        cell["failed"] = Envelope(ref=0, rtol=0, better=failed.better, unit=failed.unit, runs=1)
    return Baseline(system="p5-efa", suite="sweep", source="b.json", provenance=None, cells=cells)


def expected(baseline: Baseline | None = None) -> Expectation:
    made = expectation_of(
        baseline or baseline_of(), floor=lambda name: METRICS[name].floor, rules=Rules()
    )
    assert made is not None
    return made


Night = Callable[..., Runs]


@pytest.fixture
def night(make_record: MakeRecord) -> Night:
    """A factory of nights: some cells slower by a fraction, with so many runs."""

    def make(
        slower: Mapping[Key, float] | None = None, *, runs: int = 1, keys: Sequence[Key] = KEYS
    ) -> Runs:
        made = {}
        for key in keys:
            factor = 1 + (slower or {}).get(key, 0.0)
            metrics = {
                "mean_itl_ms": TYPICAL["mean_itl_ms"] * factor,
                "output_throughput": TYPICAL["output_throughput"] / factor,
            }
            record = make_record(metrics, topology=key[0], workload=WORKLOADS[key[1]])
            made[key] = tuple(replace(record, repeat=n) for n in range(runs if factor > 1 else 1))
        return made

    return make


def failing(expectation: Expectation, tonight: Runs) -> set[str]:
    return {row.cell for row in expectation.judge(tonight) if row.status == "FAIL"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -0.0, -10.0])
def test_what_is_no_timing_is_no_run(value: float, make_record: MakeRecord) -> None:
    records = (make_record({"mean_itl_ms": value}), make_record({"mean_itl_ms": 11.0}))
    values = values_of({FIRST: records}, [FIRST], ["mean_itl_ms", "output_throughput"])
    assert np.array_equal(values[0], [[math.nan, 11.0], [500.0, 500.0]], equal_nan=True)


def test_what_is_voided_or_lacks_is_no_run(make_record: MakeRecord) -> None:
    note = Finding(check="chunks", severity="note", message="", voids=("mean_itl_ms",))
    whole = make_record()
    lacking = replace(
        whole, metrics={name: v for name, v in whole.metrics.items() if name != "mean_itl_ms"}
    )
    records = (make_record(findings=(note,)), lacking, whole)
    values = values_of({FIRST: records}, [FIRST], ["mean_itl_ms"])
    assert np.array_equal(values[0], [[math.nan, math.nan, 10.0]], equal_nan=True)


def test_cells_stand_in_the_order_of_keys_and_no_others(night: Night) -> None:
    tonight = night({KEYS[1]: 0.1}, runs=2, keys=KEYS[:3])
    values = values_of(tonight, [KEYS[1], KEYS[0], KEYS[5]], ["mean_itl_ms"])
    nan = math.nan
    assert values[:, 0] == pytest.approx(np.array([[11, 11], [10, nan], [nan, nan]]), nan_ok=True)
    assert np.isnan(values_of({}, KEYS, ["mean_itl_ms"])).all()


def test_a_baseline_without_values_is_no_expectation() -> None:
    fixed = {
        topology: {
            name: {m: replace(e, values=None) for m, e in metrics.items()}
            for name, metrics in workloads.items()
        }
        for topology, workloads in baseline_of().cells.items()
    }
    nothing: list[Cells] = [fixed, {}, {"dp": {}}]
    for cells in nothing:
        baseline = replace(baseline_of(), cells=cells)
        assert expectation_of(baseline, floor=lambda _: 0.01, rules=Rules()) is None


def test_a_clean_night_passes_in_one_run_each(night: Night) -> None:
    expectation, tonight = expected(), night()
    assert {row.status for row in expectation.judge(tonight)} == {"PASS"}
    assert len(expectation.judge(tonight)) == len(KEYS) * 2 + 2 * 2
    assert not any(expectation.suspicious(tonight, key) for key in KEYS)


def test_a_cell_slower_by_a_twentieth_fails_tonight_and_alone(night: Night) -> None:
    expectation, tonight = expected(), night({FIRST: 0.05}, runs=3)
    assert failing(expectation, tonight) == {" ".join(FIRST)}
    rows = {row.metric: row for row in expectation.of_cell(tonight, FIRST)}
    assert rows["mean_itl_ms"].fired == ("tonight",)
    assert rows["mean_itl_ms"].runs == 3
    assert rows["mean_itl_ms"].shift == pytest.approx(0.05)
    assert {row.status for row in expectation.of_cell(tonight, KEYS[1])} == {"PASS"}


def test_a_cell_is_run_again_until_it_fails(night: Night) -> None:
    expectation = expected()
    asked = [expectation.suspicious(night({FIRST: 0.05}, runs=n), FIRST) for n in (1, 2, 3)]
    assert asked == [("mean_itl_ms", "output_throughput")] * 2 + [()]
    assert expectation.suspicious(night({FIRST: 0.05}), KEYS[1]) == ()


def after_first(night: Night, later: Sequence[float]) -> Runs:
    first = night({FIRST: 0.2})[FIRST]
    return {FIRST: (*first, *(night({FIRST: slower})[FIRST][0] for slower in later))}


@pytest.mark.parametrize(
    ("later", "more"),
    [
        ((), True),
        ((0.0,), True),
        ((0.0, 0.0), True),
        ((0.0, 0.0, 0.0), False),
        ((-0.1,), False),
    ],
    ids=["one", "two", "three", "the most", "cleared"],
)
def test_a_suspicion_ends_with_the_runs_or_when_it_is_cleared(
    night: Night, later: Sequence[float], more: bool
) -> None:
    expectation = expected()
    tonight = after_first(night, later)
    assert bool(expectation.suspicious(tonight, FIRST)) is more
    assert failing(expectation, tonight) == set()


def test_nothing_is_suspicious_in_a_cell_that_is_unknown_or_has_no_run(night: Night) -> None:
    expectation = expected()
    assert expectation.suspicious(night({FIRST: 0.5}), ("2x1p1d", FIRST[1])) == ()
    assert expectation.suspicious({}, FIRST) == ()
    assert expectation.suspicious({FIRST: ()}, FIRST) == ()
    assert not expectation.knows(("2x1p1d", FIRST[1]))


def test_a_baseline_of_five_runs_leaves_it_open(night: Night) -> None:
    expectation, tonight = expected(baseline_of(5)), night({FIRST: 0.05}, runs=4)
    assert {row.status for row in expectation.of_cell(tonight, FIRST)} == {"INCONCLUSIVE"}
    assert failing(expectation, tonight) == set()
    assert expectation.suspicious(night({FIRST: 0.05}), FIRST) == ()


def test_three_nights_find_what_one_does_not(night: Night) -> None:
    small = night({FIRST: 0.03})
    expectation = expected()
    assert failing(expectation, small) == set()
    rows = expectation.after([small, small]).of_cell(small, FIRST)
    assert {row.status for row in rows} == {"FAIL"}
    assert {row.fired for row in rows} == {("window of 3",)}


def test_nights_older_than_windows_look_at_say_nothing(night: Night) -> None:
    clean, slow = night(), night({FIRST: 0.03})
    expectation = expected()
    assert expectation.rules.budget.past_nights == 6
    known = expectation.after([slow] * 5 + [clean] * 6)
    assert known.judge(slow) == expectation.after([clean] * 6).judge(slow)
    assert known.after([]).past is None
    newest = expectation.after([clean] * 9 + [slow] * 2)
    assert "window of 3" in newest.of_cell(slow, FIRST)[0].fired


def test_a_cell_that_has_its_turn_every_fifth_night_has_windows(night: Night) -> None:
    slow, without = night({FIRST: 0.03}), night(keys=KEYS[1:])
    known = expected().after([slow, *[without] * 4] * 2)
    assert "window of 3" in known.of_cell(slow, FIRST)[0].fired


def without(runs: Runs, metric: str) -> Runs:
    """The same nights, in which sanity voids a metric of the first cell."""
    note = Finding(check="chunks", severity="note", message="", voids=(metric,))
    return {**runs, FIRST: tuple(replace(r, findings=(note,)) for r in runs[FIRST])}


def test_what_three_nights_left_open_is_said_of_what_has_a_value_tonight(night: Night) -> None:
    open_ = night({FIRST: 0.018})
    known = expected().after([open_, *[night(keys=KEYS[1:])] * 9, open_])
    assert known.undecided(open_, 3) == ((FIRST, "mean_itl_ms"), (FIRST, "output_throughput"))
    longer = known.after([open_] * 3)
    assert longer.undecided(without(open_, "mean_itl_ms"), 3) == ((FIRST, "output_throughput"),)
    assert longer.undecided(night(keys=KEYS[1:]), 3) == ()


def test_nights_in_which_a_cell_did_not_run_are_passed_over(night: Night) -> None:
    slow, without = night({FIRST: 0.03}), night(keys=KEYS[1:])
    known = expected().after([slow, without, slow, without])
    assert "window of 3" in known.of_cell(slow, FIRST)[0].fired


def test_a_cell_that_did_not_run_tonight_is_open_whatever_was_before(night: Night) -> None:
    slow = night({FIRST: 0.1}, runs=3)
    rows = expected().after([slow] * 6).of_cell(night(keys=KEYS[1:]), FIRST)
    assert [(row.status, row.runs) for row in rows] == [("INCONCLUSIVE", 0)] * 2


def test_a_topology_slower_as_a_whole_fails_where_its_cells_do_not(night: Night) -> None:
    expectation = expected()
    tonight = night({key: 0.02 for key in KEYS if key[0] == "1p3d"})
    assert failing(expectation, tonight) == {"1p3d"}
    rows = expectation.of_topology(tonight, "1p3d")
    assert [(row.status, row.fired, row.runs) for row in rows] == [("FAIL", ("family",), 9)] * 2
    assert {row.status for row in expectation.of_topology(tonight, "dp")} == {"PASS"}
    assert expectation.of_topology(tonight, "2x1p1d") == ()


def test_a_topology_of_one_cell_has_no_row_of_its_own(night: Night) -> None:
    keys = [*KEYS[:3], KEYS[9]]
    expectation = expected(baseline_of(keys=keys))
    tonight = night(keys=keys)
    assert expectation.topologies == ("1p3d", "dp")
    assert expectation.of_topology(tonight, "dp") == ()
    assert len(expectation.of_topology(tonight, "1p3d")) == 2
    assert expectation.of_topology(night(keys=keys[:1]), "1p3d") == ()


def test_one_topology_alone_is_judged_as_well(night: Night) -> None:
    keys = KEYS[:9]
    expectation = expected(baseline_of(keys=keys))
    assert failing(expectation, night(keys=keys)) == set()
    assert failing(expectation, night({FIRST: 0.05}, runs=3, keys=keys)) == {" ".join(FIRST)}


def test_one_cell_alone_is_judged_by_its_own_variance(night: Night) -> None:
    expectation = expected(baseline_of(keys=[FIRST]))
    assert failing(expectation, night(keys=[FIRST])) == set()
    assert failing(expectation, night({FIRST: 0.1}, runs=3, keys=[FIRST])) == {" ".join(FIRST)}


def test_a_metric_that_only_some_cells_have_is_judged_there_only(night: Night) -> None:
    expectation = expected(baseline_of(lacking={FIRST: ["output_throughput"]}))
    tonight = night({FIRST: 0.05}, runs=3)
    assert [row.metric for row in expectation.of_cell(tonight, FIRST)] == ["mean_itl_ms"]
    assert failing(expectation, tonight) == {" ".join(FIRST)}
    whole = {row.metric: row.runs for row in expectation.of_topology(night(), "1p3d")}
    assert whole == {"mean_itl_ms": 9, "output_throughput": 8}


def test_a_cell_without_any_values_is_unknown_to_nights(night: Night) -> None:
    expectation = expected(baseline_of(lacking={FIRST: list(TYPICAL)}))
    assert not expectation.knows(FIRST)
    assert expectation.of_cell(night(), FIRST) == ()
    assert expectation.suspicious(night({FIRST: 0.5}), FIRST) == ()
    assert failing(expectation, night({KEYS[1]: 0.05}, runs=3)) == {" ".join(KEYS[1])}


def test_nulls_are_runs_that_a_cell_does_not_have(night: Night) -> None:
    baseline = baseline_of(nulls=4)
    expectation = expected(baseline)
    assert expectation.envelopes.given[:2, 0].tolist() == [20, 16]
    assert failing(expectation, night({KEYS[1]: 0.05}, runs=3)) == {" ".join(KEYS[1])}
    short = expected(baseline_of(nulls=6))
    rows = short.of_cell(night({KEYS[1]: 0.05}, runs=3), KEYS[1])
    assert {row.status for row in rows} == {"INCONCLUSIVE"}


def test_a_metric_that_no_run_has_tonight_is_open_while_others_pass(night: Night) -> None:
    tonight = dict(night())
    (record,) = tonight[FIRST]
    metrics = {name: v for name, v in record.metrics.items() if name != "mean_itl_ms"}
    tonight[FIRST] = (replace(record, metrics=metrics),)
    rows = {row.metric: row for row in expected().of_cell(tonight, FIRST)}
    assert (rows["mean_itl_ms"].status, rows["mean_itl_ms"].runs) == ("INCONCLUSIVE", 0)
    assert rows["output_throughput"].status == "PASS"


def test_the_floor_is_that_of_the_system(night: Night) -> None:
    tonight = night({FIRST: 0.05}, runs=3)
    wide = expectation_of(baseline_of(), floor=lambda _: 0.10, rules=Rules())
    assert wide is not None
    assert failing(wide, tonight) == set()
