"""The nightly judgement on nights whose answer is known, and on judges that are broken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from pytest_pdserve.judge import dependence
from pytest_pdserve.judge import estimation
from pytest_pdserve.judge import evidence
from pytest_pdserve.judge import night
from pytest_pdserve.judge import night_rows
from pytest_pdserve.judge.estimation import Bools
from pytest_pdserve.judge.estimation import Floats
from pytest_pdserve.judge.evidence import Nights
from pytest_pdserve.judge.night import State
from pytest_pdserve.judge.night_rows import TestVerdict
from pytest_pdserve.judge.wording import describe_icc
from pytest_pdserve.judge.wording import describe_test
from pytest_pdserve.values import metrics as metrics_module
from pytest_pdserve.values.rules import Budget
from pytest_pdserve.values.rules import Rules

RULES = Rules()
METRICS = ("mean_itl_ms", "output_throughput")
CELLS = tuple(f"{topology} cell{n}" for topology in ("dp", "1p3d") for n in range(9))
FAMILIES = np.repeat([0, 1], 9)
WORSE = np.array([1.0, -1.0])
SD = 0.01
METRICS_MARGIN = metrics_module.METRICS["mean_itl_ms"].margin


def baseline(count: int = 20) -> Floats:
    """Runs of 1 % noise around 100; every cell has the same spread and, exactly, the same mean."""
    rng = np.random.default_rng(8)
    logs = rng.standard_normal((len(CELLS), 2, count))
    logs -= logs.mean(axis=-1, keepdims=True)
    logs *= SD / logs.std(axis=-1, ddof=1, keepdims=True)
    values: Floats = 100 * np.exp(logs)
    return values


def worse(shift: Floats | float) -> Floats:
    """One run of every test, worse than the baseline by *shift* on the log scale."""
    values: Floats = 100 * np.exp(np.broadcast_to(shift, (len(CELLS), 2)) * WORSE)
    return values


def in_cell(shift: float, cell: int = 0) -> Floats:
    shifts = np.zeros((len(CELLS), 2))
    shifts[cell] = shift
    return shifts


def judge(
    *runs: Floats,
    past: Nights | None = None,
    rules: Rules = RULES,
    base: Floats | None = None,
) -> State:
    """The state after runs on which every cell took part, unless NaN says it did not."""
    values = baseline() if base is None else base
    envelopes = estimation.envelopes_from_runs(values, METRICS, FAMILIES, rules=rules)
    return State.of(envelopes, np.stack(runs, axis=-1), rules=rules, past=past)


def only(cells: Bools | list[bool], run: Floats) -> Floats:
    """A run that only some cells made."""
    return np.where(np.asarray(cells, dtype=bool)[:, None], run, math.nan)


def session(truth: Callable[[int], Floats], **given: object) -> State:
    """Run what is asked for until nothing is; *truth* gives the run of that number."""
    state = judge(truth(0), **given)  # type: ignore[arg-type]
    runs = [truth(0)]
    while np.any(asked := night.next_cells(state)):
        runs.append(only(asked, truth(len(runs))))
        state = judge(*runs, **given)  # type: ignore[arg-type]
    return state


def table(state: State) -> dict[tuple[str, str], TestVerdict]:
    judged = night.verdicts(state)
    said = night_rows.rows(judged, state, cells=CELLS, families=("dp", "1p3d"))
    return {(row.cell, row.metric): row for row in said}


def failing(state: State) -> set[str]:
    return {row.cell for row in table(state).values() if row.status == "FAIL"}


def test_an_unchanged_night_passes_with_one_run_each() -> None:
    state = judge(worse(0.0))
    assert not night.next_cells(state).any()
    rows = table(state)
    assert {row.status for row in rows.values()} == {"PASS"}
    row = rows["dp cell0", "output_throughput"]
    assert (row.runs, row.fired) == (1, ())
    assert row.p == pytest.approx(0.5)
    assert 0.01 < row.bound < 0.03
    assert 0.03 < row.visible < 0.06
    assert rows["dp", "mean_itl_ms"].runs == 9


def test_every_cell_needs_its_first_run() -> None:
    nothing = judge(np.full((len(CELLS), 2), math.nan))
    assert night.next_cells(nothing).all()
    assert {row.status for row in table(nothing).values()} == {"INCONCLUSIVE"}


def test_a_slow_cell_is_run_again_until_it_fails() -> None:
    state = session(lambda _: worse(in_cell(0.08)))
    assert np.sum(~np.isnan(state.logs[:, 0]), axis=-1).tolist() == [3] + [1] * 17
    rows = table(state)
    assert failing(state) == {"dp cell0"}
    row = rows["dp cell0", "mean_itl_ms"]
    assert (row.fired, row.runs) == (("tonight",), 3)
    assert row.shift == pytest.approx(math.expm1(0.08))
    assert rows["dp cell0", "output_throughput"].shift == pytest.approx(-math.expm1(-0.08))
    assert row.p < 1.25e-5


def test_one_slow_run_is_run_again_and_cleared() -> None:
    state = session(lambda run: worse(in_cell(0.40 if run == 0 else 0.0)))
    assert np.sum(~np.isnan(state.logs[0, 0])) == 4
    assert table(state)["dp cell0", "mean_itl_ms"].status == "PASS"


def test_an_invalid_first_run_leaves_the_second_to_be_the_first() -> None:
    state = judge(only([False] + [True] * 17, worse(0.0)), only([True] + [False] * 17, worse(0.08)))
    assert night.next_cells(state).tolist() == [True] + [False] * 17


def test_two_runs_of_a_night_never_fail() -> None:
    state = judge(worse(in_cell(0.5)), only([True] + [False] * 17, worse(0.5)))
    assert night.next_cells(state).tolist() == [True] + [False] * 17
    assert failing(state) == set()
    assert table(state)["dp cell0", "mean_itl_ms"].status == "INCONCLUSIVE"


@pytest.mark.parametrize("size", [0.02, 0.3])
def test_what_becomes_better_passes(size: float) -> None:
    state = session(lambda _: worse(-size))
    assert {row.status for row in table(state).values()} == {"PASS"}


def test_a_short_baseline_cannot_fail_on_one_night_but_on_several() -> None:
    base = baseline(14)
    state = session(lambda _: worse(in_cell(0.08)), base=base)
    assert (~np.isnan(state.logs)).sum() == len(CELLS) * 2
    row = table(state)["dp cell0", "mean_itl_ms"]
    assert (row.status, row.fired, row.visible) == ("INCONCLUSIVE", (), math.inf)
    past = None
    for _ in range(4):
        past = evidence.with_tonight(past, night.verdicts(state).night)
        state = judge(worse(in_cell(0.08)), past=past, base=base)
    assert "window of 5" in table(state)["dp cell0", "mean_itl_ms"].fired


def history(shift: Floats | float, nights: int) -> Nights | None:
    past = None
    for _ in range(nights):
        past = evidence.with_tonight(past, night.verdicts(judge(worse(shift))).night)
    return past


def test_a_small_change_is_found_by_nights() -> None:
    small = in_cell(0.023, 3)
    assert failing(session(lambda _: worse(small))) == set()
    fired = {
        nights: table(judge(worse(small), past=history(small, nights)))[
            "dp cell3", METRICS[0]
        ].fired
        for nights in (1, 4, 6)
    }
    assert fired[1] == ()
    assert fired[4] == ("window of 5",)
    assert fired[6] == ("window of 5", "window of 7")


def test_what_was_mended_since_does_not_fail_tonight() -> None:
    large, back = in_cell(0.06), in_cell(0.0)
    past = history(large, 4)
    still = table(judge(worse(large), past=past))["dp cell0", "mean_itl_ms"]
    assert still.status == "FAIL"
    mended = judge(worse(back), past=past)
    assert not night.next_cells(mended).any()
    assert failing(mended) == set()
    row = table(mended)["dp cell0", "mean_itl_ms"]
    assert (row.status, row.open) == ("INCONCLUSIVE", True)
    assert describe_test(row).startswith("mean_itl_ms 6.2% worse over nights, not tonight; 0.0% ")


def test_half_a_regression_is_still_there() -> None:
    past = history(in_cell(0.06), 4)
    row = table(judge(worse(in_cell(0.035)), past=past))["dp cell0", "mean_itl_ms"]
    assert (row.status, "window of 5" in row.fired) == ("FAIL", True)
    assert row.shift == pytest.approx(math.expm1(0.035))
    assert row.lasting == pytest.approx(math.expm1(0.06))


@pytest.mark.parametrize(
    ("nights", "status"), [(3, "INCONCLUSIVE"), (7, "INCONCLUSIVE"), (8, "FAIL")]
)
def test_windows_and_families_need_eight_nights_of_baseline(nights: int, status: str) -> None:
    base, past = baseline(nights), None
    for _ in range(6):
        past = evidence.with_tonight(past, night.verdicts(judge(worse(0.3), base=base)).night)
    rows = table(judge(worse(0.3), past=past, base=base))
    assert rows["dp cell0", "mean_itl_ms"].status == status
    assert rows.get(("dp", "mean_itl_ms")) is None or status == "FAIL"


def test_a_run_outside_of_its_envelope_is_no_pass_however_wide_the_margin() -> None:
    quiet = 100 * np.exp(np.log(baseline() / 100) / 10)
    row = table(judge(worse(in_cell(0.02)), base=quiet))["dp cell0", "mean_itl_ms"]
    assert row.bound < METRICS_MARGIN
    assert (row.status, row.open) == ("INCONCLUSIVE", True)


def test_where_nothing_would_have_been_seen_it_is_said_of_rates_too() -> None:
    rows = table(judge(worse(0.07), base=baseline(5)))
    for metric in METRICS:
        assert math.isinf(rows["dp cell0", metric].visible)
        assert "no change would have been seen" in describe_test(rows["dp cell0", metric])


def test_a_slowed_run_does_not_keep_a_topology_from_passing() -> None:
    rows = table(judge(worse(in_cell(0.40))))
    assert rows["dp", "mean_itl_ms"].status == "PASS"


def test_a_topology_that_could_be_far_worse_does_not_pass() -> None:
    loud = 100 * np.exp(np.log(baseline() / 100) * 30)
    row = table(judge(worse(0.15), base=loud))["dp", "mean_itl_ms"]
    assert row.bound > METRICS_MARGIN
    assert (row.status, row.fired) == ("INCONCLUSIVE", ())


def test_the_icc_is_said_with_where_it_comes_from() -> None:
    assert describe_icc({"a": 0.2, "b": 0.2}, calibrated=True) == "ICC 0.2 (calibrated)"
    said = describe_icc({"a": 0.2, "b": 0.41}, calibrated=False)
    assert said == "ICC 0.2 to 0.41 (assumed, or seen in the baseline; see pdserve calibrate)"


def test_a_change_spread_thin_is_found_in_its_family() -> None:
    shifts = np.where(FAMILIES[:, None] == 1, 0.02, 0.0)
    state = judge(worse(shifts))
    assert failing(state) == {"1p3d"}
    row = table(state)["1p3d", "output_throughput"]
    assert (row.status, row.fired) == ("FAIL", ("family",))
    assert row.shift == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("size", [0.02, 0.1, 0.5])
def test_a_family_of_quiet_cells_fails_and_says_by_how_much(size: float) -> None:
    """However quiet: four standard deviations, to which a run is clipped, are below the floor."""
    quiet = 100 * np.exp(np.log(baseline(10) / 100) / 10)
    rows = table(judge(worse(size), base=quiet))
    row = rows["dp", "mean_itl_ms"]
    assert row.status == "FAIL"
    assert row.shift == pytest.approx(math.expm1(size), rel=0.01)


def test_where_a_cell_may_have_two_runs_no_night_alone_fails_or_would_have_seen() -> None:
    state = session(lambda _: worse(in_cell(0.2)), rules=replace(RULES, most_runs=2))
    row = table(state)["dp cell0", "mean_itl_ms"]
    assert (row.status, row.runs, row.visible) == ("INCONCLUSIVE", 2, math.inf)


def test_a_change_below_the_practical_floor_never_fails() -> None:
    base = 100 * (baseline() / 100) ** 0.05
    shifts = in_cell(0.008)
    state = judge(worse(shifts), worse(shifts), worse(shifts), base=base)
    assert night.verdicts(state).t[0, 0].min() > 5.5
    assert failing(state) == set()


def test_a_noisy_cell_is_inconclusive_not_passed() -> None:
    state = judge(worse(0.0), base=100 * (baseline() / 100) ** 3)
    rows = table(state)
    assert {rows[cell, METRICS[0]].status for cell in CELLS} == {"INCONCLUSIVE"}
    assert rows[CELLS[0], METRICS[0]].visible > 0.05


def test_what_three_nights_could_not_decide_is_named() -> None:
    nights = [worse(in_cell(0.02)) for _ in range(2)]
    first = judge(nights[0])
    z = night.verdicts(first).night
    past = Nights(**{n: np.stack([getattr(z, n)] * 2, axis=-1) for n in ("z", "shift", "runs")})
    open_ = night.undecided(judge(worse(in_cell(0.02)), past=past), 3)
    assert open_.sum() == 2
    assert open_[0].all()
    assert not night.undecided(judge(worse(0.0), past=past), 3).any()
    assert not night.undecided(first, 3).any()
    bound = night.bound_of(z, first)
    assert np.allclose(bound, night.verdicts(first).bound)


def test_what_was_not_measured_or_has_no_baseline_is_inconclusive() -> None:
    base, run = baseline(), worse(0.0)
    base[0], run = math.nan, only([True] * 17 + [False], run)
    rows = table(judge(run, base=base))
    for cell in (CELLS[0], CELLS[17]):
        row = rows[cell, METRICS[0]]
        assert (row.status, math.isnan(row.p)) == ("INCONCLUSIVE", True)
    assert rows[CELLS[1], METRICS[0]].status == "PASS"


def test_the_budget_is_one_clean_night_in_a_hundred() -> None:
    budget = Budget()
    shares = budget.shares(tests=360, families=40)
    assert [share.part for share in shares] == [
        *("tonight", "window of 3", "window of 5", "window of 7", "family")
    ]
    assert sum(share.level * share.tests for share in shares) == pytest.approx(0.01)
    assert budget.total == pytest.approx(0.01)
    assert judge(worse(0.0)).limits.shares == budget.shares(tests=36, families=4)


def test_nights_side_by_side_are_judged_as_one_by_one() -> None:
    shifts = [in_cell(0.08), in_cell(0.02, 5), np.zeros((len(CELLS), 2))]
    alone = [night.verdicts(judge(*[worse(s)] * 3)) for s in shifts]
    envelopes = judge(worse(0.0)).envelopes
    runs = np.stack([np.repeat(worse(s)[..., None], 3, axis=-1) for s in shifts])
    together = night.verdicts(State.of(envelopes, runs, rules=RULES))
    for number, one in enumerate(alone):
        assert np.array_equal(together.failed[number], one.failed)
        assert np.array_equal(together.passed[number], one.passed)
        assert together.t[:, number] == pytest.approx(one.t, nan_ok=True)


@settings(max_examples=20)
@given(st.permutations(range(len(CELLS))))
def test_the_order_of_cells_is_of_no_matter(order: list[int]) -> None:
    shifts = in_cell(0.08) + in_cell(0.015, 11)
    runs = [worse(shifts)] * 3
    found = night.verdicts(judge(*runs))
    envelopes = estimation.envelopes_from_runs(
        baseline()[order], METRICS, FAMILIES[order], rules=RULES
    )
    moved = np.stack([run[order] for run in runs], axis=-1)
    again = night.verdicts(State.of(envelopes, moved, rules=RULES))
    assert np.array_equal(again.failed, found.failed[order])
    assert again.bound == pytest.approx(found.bound[order])


@settings(max_examples=40)
@given(st.floats(0, 0.3), st.floats(0, 0.3))
def test_worse_is_never_judged_better(one: float, other: float) -> None:
    less, more = sorted((one, other))
    better, worse_ = (night.verdicts(judge(*[worse(in_cell(s))] * 3)) for s in (less, more))
    assert np.all(better.failed[0] <= worse_.failed[0])
    assert np.all(better.passed[0] >= worse_.passed[0])


# What a sound judge does, each with one way to break it that must show.


def clean_nights_pass() -> None:
    assert failing(judge(*[worse(in_cell(0.012))] * 3)) == set()
    assert {row.status for row in table(judge(worse(0.0))).values()} == {"PASS"}


def slow_cells_fail() -> None:
    assert failing(session(lambda _: worse(in_cell(0.08)))) == {"dp cell0"}


def a_slow_night_is_not_four_slow_runs() -> None:
    assert failing(judge(*[worse(in_cell(0.0225))] * 4)) == set()


def one_wild_run_is_no_verdict() -> None:
    wild = [worse(in_cell(1.0 if run == 0 else 0.012)) for run in range(4)]
    assert failing(judge(*wild)) == set()


def short_baselines_do_not_fail() -> None:
    assert failing(judge(*[worse(in_cell(0.08))] * 4, base=baseline(14))) == set()


def small_lasting_changes_fail() -> None:
    small = in_cell(0.023, 3)
    assert failing(judge(worse(small), past=history(small, 6))) == {"dp cell3"}


def topologies_fail() -> None:
    assert failing(judge(worse(np.where(FAMILIES[:, None] == 1, 0.02, 0.0)))) == {"1p3d"}


def quiet_cells_keep_their_floor() -> None:
    base = 100 * (baseline() / 100) ** 0.05
    assert failing(judge(*[worse(in_cell(0.008))] * 3, base=base)) == set()


SOUND = (
    clean_nights_pass,
    slow_cells_fail,
    a_slow_night_is_not_four_slow_runs,
    one_wild_run_is_no_verdict,
    short_baselines_do_not_fail,
    small_lasting_changes_fail,
    topologies_fail,
    quiet_cells_keep_their_floor,
)


@pytest.mark.parametrize("holds", SOUND)
def test_the_judge_is_sound(holds: Callable[[], None]) -> None:
    holds()


Break = Callable[[pytest.MonkeyPatch], None]


def flip_the_thresholds(patch: pytest.MonkeyPatch) -> None:
    sound = estimation.upper_t
    patch.setattr(night, "upper_t", lambda df, p: -sound(df, p))


def invert_better(patch: pytest.MonkeyPatch) -> None:
    sound = estimation.directions
    patch.setattr(estimation, "directions", lambda names: -sound(names))


def drop_the_icc(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(evidence, "night_variance", lambda runs, icc: 1 / np.maximum(runs, 1))


def drop_the_clip(patch: pytest.MonkeyPatch) -> None:
    sound = evidence.night_of
    patch.setattr(night, "night_of", lambda logs, env, clip: sound(logs, env, clip=math.inf))


def forget_the_baseline_runs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(night, "_may_fail_tonight", lambda state: state.envelopes.df > 0)


def forget_the_nights(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(night, "with_tonight", lambda past, now: evidence.with_tonight(None, now))


def forget_families(patch: pytest.MonkeyPatch) -> None:
    sound = evidence.family_statistic
    patch.setattr(
        night,
        "family_statistic",
        lambda *a, **k: replace(sound(*a, **k), t=np.full((2, 2), math.nan)),
    )


def never_ask_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(night, "_suspicions", lambda state: np.zeros(state.logs.shape[:-1], dtype=bool))


def drop_the_floor(patch: pytest.MonkeyPatch) -> None:
    sound = estimation.worse_by
    patch.setattr(estimation, "worse_by", lambda fraction, signs: 0 * sound(fraction, signs))


def pass_on_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(night, "night_variance", lambda runs, icc: 100.0 + 0 * runs)


def swap_the_metrics(patch: pytest.MonkeyPatch) -> None:
    known = metrics_module.METRICS
    swapped = {METRICS[0]: known[METRICS[1]], METRICS[1]: known[METRICS[0]]}
    patch.setattr(estimation, "METRICS", {**known, **swapped})


@pytest.mark.parametrize(
    ("broken", "shows"),
    [
        (flip_the_thresholds, clean_nights_pass),
        (invert_better, slow_cells_fail),
        (drop_the_icc, a_slow_night_is_not_four_slow_runs),
        (drop_the_clip, one_wild_run_is_no_verdict),
        (forget_the_baseline_runs, short_baselines_do_not_fail),
        (forget_the_nights, small_lasting_changes_fail),
        (forget_families, topologies_fail),
        (never_ask_again, slow_cells_fail),
        (drop_the_floor, quiet_cells_keep_their_floor),
        (pass_on_nothing, clean_nights_pass),
        (swap_the_metrics, slow_cells_fail),
    ],
)
def test_a_broken_judge_turns_red(
    broken: Break, shows: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        shows()


def test_a_renamed_metric_is_refused_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = {
        "out_throughput" if name == "output_throughput" else name: metric
        for name, metric in metrics_module.METRICS.items()
    }
    monkeypatch.setattr(estimation, "METRICS", renamed)
    with pytest.raises(ValueError, match="'output_throughput' is no metric"):
        clean_nights_pass()


def test_dependence_and_judgement_agree_on_what_is_steady() -> None:
    assert judge(worse(0.0)).envelopes.steady.all()
    residuals = np.random.default_rng(0).standard_t(3, (len(CELLS), 2, 40))
    assert not dependence.steady(residuals, rules=RULES).any()
