"""Statistics on arrays, against scipy.stats, statsmodels and the formulas written out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize
from scipy import special
from scipy import stats
from statsmodels.robust.scale import mad

from pytest_pdserve.judge import dependence
from pytest_pdserve.judge import estimation
from pytest_pdserve.judge import evidence
from pytest_pdserve.judge.estimation import Floats
from pytest_pdserve.values.rules import Rules

RULES = Rules()
METRICS = ("mean_itl_ms", "output_throughput")
SIX = np.array([0, 0, 0, 1, 1, 1])
gappy = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 9)),
    elements=st.floats(-100, 100) | st.just(math.nan),
)


def runs(
    seed: int = 0, *, cells: int = 6, count: int = 20, sd: float = 0.01, shape: str = "normal"
) -> Floats:
    """Values of both metrics around 100, shape (cells, 2, count)."""
    rng = np.random.default_rng(seed)
    size = (cells, 2, count)
    drawn = rng.standard_normal(size) if shape == "normal" else rng.standard_t(3, size)
    values: Floats = 100 * np.exp(sd * drawn)
    return values


def envelopes(values: Floats, rules: Rules = RULES) -> estimation.Envelopes:
    families = np.arange(values.shape[-3]) // 3
    return estimation.envelopes_from_runs(values, METRICS, families, rules=rules)


def test_positive_is_worse_whichever_way_a_metric_runs() -> None:
    worse = np.array([[[110.0], [90.0]]])
    same = np.array([[[100.0], [100.0]]])
    moved = estimation.signed_log(worse, METRICS) - estimation.signed_log(same, METRICS)
    assert moved[0, :, 0] == pytest.approx([math.log(1.1), -math.log(0.9)])


@pytest.mark.parametrize("name", ["failed", "mean_iltency_ms", ""])
def test_a_count_or_an_unknown_name_has_no_direction(name: str) -> None:
    with pytest.raises(ValueError, match="no metric that has a better and a worse"):
        estimation.directions(["mean_itl_ms", name])


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf])
def test_a_value_that_is_no_time_or_rate_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        estimation.signed_log(np.array([[[1.0], [value]]]), METRICS)


@given(st.floats(0.0, 0.9), st.sampled_from([1.0, -1.0]))
def test_a_fraction_goes_to_the_log_scale_and_back(fraction: float, sign: float) -> None:
    signs = np.array([sign])
    size = estimation.worse_by(np.array([fraction]), signs)
    assert size[0] == pytest.approx(sign * math.log(1 + sign * fraction))
    assert estimation.as_fraction(size, signs)[0] == pytest.approx(fraction)


@given(gappy)
def test_median_and_mean_are_those_of_what_is_there(values: Floats) -> None:
    for row, middle, mean in zip(
        values, estimation.median(values), estimation.mean_over(values), strict=True
    ):
        there = row[~np.isnan(row)]
        assert middle == pytest.approx(np.median(there) if len(there) else math.nan, nan_ok=True)
        assert mean == pytest.approx(
            there.mean() if len(there) else math.nan, nan_ok=True, abs=1e-12
        )


@given(
    hnp.arrays(np.float64, st.integers(3, 20), elements=st.floats(-1, 1)),
    st.sampled_from([3.0, 6.0]),
)
def test_outliers_are_told_by_the_scaled_mad(values: Floats, mads: float) -> None:
    kept = estimation.drop_outliers(values, mads=mads, sd_floor=0.001)
    limit = mads * max(mad(values), 0.001)
    away = np.abs(values - np.median(values))
    clear = np.abs(away - limit) > 1e-9
    assert np.array_equal(np.isnan(kept)[clear], (away > limit)[clear])


def test_equal_values_make_no_outlier_of_one_a_little_off() -> None:
    values = np.array([1.0] * 9 + [1.005])
    assert not np.isnan(estimation.drop_outliers(values, mads=6, sd_floor=0.001)).any()


@given(st.floats(1e-3, 1e3))
def test_the_inverse_of_trigamma(value: float) -> None:
    found = estimation.inverse_trigamma(np.array([value]))[0]
    assert special.polygamma(1, found) == pytest.approx(value, rel=1e-6)


def test_the_prior_is_smyths() -> None:
    """Against the moments written out for one metric, solved by bracketing."""
    rng = np.random.default_rng(5)
    df = rng.integers(5, 25, (45, 1)).astype(float)
    truth = 0.0001 * 6 / rng.chisquare(6, (45, 1))
    variances = truth * rng.chisquare(df) / df
    prior = estimation.prior_of(variances, df)
    e = np.log(variances) - special.digamma(df / 2) + np.log(df / 2)
    excess = e.var(ddof=1) - special.polygamma(1, df / 2).mean()
    half = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-3, 1e3)
    assert prior.df[0] == pytest.approx(2 * half, rel=1e-6)
    s0 = math.exp(e.mean() + special.digamma(half) - math.log(half))
    assert prior.variance[0] == pytest.approx(s0, rel=1e-6)


def test_the_prior_is_found_again_in_what_was_drawn_from_it() -> None:
    rng = np.random.default_rng(1)
    d0, s0, df = 5.0, 0.008**2, np.full((4000, 1), 19.0)
    variances = d0 * s0 / rng.chisquare(d0, df.shape) * rng.chisquare(df) / df
    prior = estimation.prior_of(variances, df)
    assert prior.df[0] == pytest.approx(d0, rel=0.1)
    assert prior.variance[0] == pytest.approx(s0, rel=0.05)


def test_cells_that_share_a_variance_are_worth_all_their_degrees_of_freedom() -> None:
    prior = estimation.prior_of(np.full((10, 1), 4e-4), np.full((10, 1), 19.0))
    assert prior.df[0] == 190
    assert np.isfinite(prior.variance).all()


@given(
    hnp.arrays(np.float64, (5, 1), elements=st.floats(1e-6, 1e-2)),
    hnp.arrays(np.float64, (5, 1), elements=st.integers(1, 30).map(float)),
)
def test_a_shrunken_variance_lies_between_its_own_and_the_prior(own: Floats, df: Floats) -> None:
    prior = estimation.prior_of(own, df)
    posterior, total = estimation.shrink(own, df, prior)
    assert np.all(posterior >= np.minimum(own, prior.variance) * (1 - 1e-9))
    assert np.all(posterior <= np.maximum(own, prior.variance) * (1 + 1e-9))
    assert np.all(total >= df)


def test_a_single_run_borrows_its_variance_and_two_cells_lend_none() -> None:
    values = runs()
    values[0, :, 1:] = math.nan
    borrowed = envelopes(values)
    assert borrowed.runs[0, 0] == 1
    assert np.isfinite(borrowed.sd[0]).all()
    alone = envelopes(runs(cells=2))
    assert np.all(alone.df == 19)
    assert np.isnan(envelopes(values[:2]).df[0]).all()


@given(st.floats(1, 500), st.floats(1e-6, 0.4))
def test_the_quantile_is_that_of_students_t(df: float, p: float) -> None:
    assert estimation.upper_t(np.array([df]), p)[0] == pytest.approx(stats.t.isf(p, df), rel=1e-6)


def test_an_envelope_is_the_prediction_interval_of_the_next_run() -> None:
    values = runs(3, cells=2, sd=0.05)
    found = envelopes(values)
    logs = estimation.signed_log(values, METRICS)
    scale = logs.std(axis=-1, ddof=1) * math.sqrt(1 + 1 / 20)
    assert found.location == pytest.approx(logs.mean(axis=-1))
    assert found.room(0.003) == pytest.approx(stats.t.isf(0.003, 19) * scale)


def test_an_envelope_is_never_tighter_than_the_practical_floor() -> None:
    found = envelopes(runs(sd=1e-5))
    assert found.sd == pytest.approx(RULES.sd_floor)
    floor = [math.log(1.01), -math.log(0.99)]
    assert found.room(0.003) == pytest.approx(np.broadcast_to(floor, (6, 2)))


def test_one_run_in_a_thousand_leaves_the_envelope_of_one_in_a_thousand() -> None:
    """20,000 baselines of ten runs, each with one more run: 3 % leave an envelope of 3 %."""
    values = runs(7, cells=20_000, count=11, sd=0.05)
    found = estimation.envelopes_from_runs(
        values[..., :10], METRICS, np.zeros(20_000, dtype=np.intp), rules=RULES
    )
    fresh = estimation.signed_log(values[..., 10:], METRICS)[..., 0]
    left = (fresh - found.location > found.room(0.03)).mean()
    assert left == pytest.approx(0.03, abs=0.003)


@given(st.integers(1, 4), st.floats(0, 1), st.integers(2, 30), st.floats(-3.9, 3.9))
def test_t_of_a_night_is_the_formula_of_the_design(
    n: int, icc: float, baseline: int, z: float
) -> None:
    found = envelopes(runs(count=baseline), replace(RULES, icc=icc))
    noise = found.noise[0, 0]
    scale = found.sd * math.sqrt(1 + 1 / found.runs[0, 0])
    logs = np.repeat((found.location + z * scale)[..., None], n, axis=-1)
    night = evidence.night_of(logs, found, clip=4.0)
    t = evidence.tonight_statistic(night, found)[0, 0]
    factor = math.sqrt((1 + 1 / found.runs[0, 0]) / (icc + (1 - icc) / n + noise))
    assert t == pytest.approx(z * factor, abs=1e-6)
    assert noise >= 1 / baseline - 1e-12


def test_no_run_contributes_more_than_the_clip() -> None:
    found = envelopes(runs())
    logs = np.full((6, 2, 1), 1e3)
    assert np.all(evidence.standardized(logs, found, clip=4.0) == 4.0)


def nights(z: Floats, count: float = 1.0) -> evidence.Nights:
    return evidence.Nights(z=z, shift=z * 0.01, runs=np.where(np.isnan(z), 0.0, count))


def test_a_window_of_one_night_is_the_night() -> None:
    found = envelopes(runs())
    z = np.linspace(-2, 2, 12).reshape(6, 2)
    alone = evidence.tonight_statistic(nights(z), found)
    window = evidence.window_statistic(nights(z[..., None]), found, nights=1, rules=RULES)
    extra = evidence.persistent(found, 1, RULES)
    assert np.all(extra == 0)
    assert window == pytest.approx(alone)


def test_a_window_gains_by_nights_but_not_beyond_the_baseline() -> None:
    found = envelopes(runs())
    quiet = np.full((6, 2, 7), 1.0)
    t = [
        evidence.window_statistic(nights(quiet), found, nights=n, rules=RULES)[0, 0]
        for n in (3, 5, 7)
    ]
    assert t == sorted(t)
    noise = found.noise[0, 0]
    assert t[-1] < math.sqrt(1.05 / noise)


def test_nights_without_a_run_are_passed_over() -> None:
    past = np.full((6, 2, 4), 1.0)
    past[0, 0, 2] = math.nan
    together = evidence.with_tonight(nights(past), nights(np.full((6, 2), 2.0)))
    assert together.z[0, 0].tolist() == pytest.approx([math.nan, 1, 1, 1, 2], nan_ok=True)
    found = envelopes(runs())
    five = evidence.window_statistic(together, found, nights=5, rules=RULES)
    assert np.isnan(five[0, 0])
    assert np.isfinite(five[1:]).all()
    three = evidence.window_statistic(together, found, nights=3, rules=RULES)
    assert three[0, 0] == pytest.approx(three[0, 0])


def test_a_family_of_independent_cells_is_judged_by_their_mean() -> None:
    found = envelopes(runs(11))
    z = np.full((6, 2), 1.5)
    family = evidence.family_statistic(nights(z), found, rules=RULES)
    assert family.t.shape == (2, 2)
    unit = (found.scale / found.sd) ** 2
    variance = (found.df / (found.df - 2) * (1 + found.noise) / unit)[:3].sum(axis=0) / 9
    variance = variance + found.sharing[0] * 2 / 3
    assert family.t[0] == pytest.approx(1.5 / np.sqrt(variance))


def test_a_topology_of_one_cell_is_no_family() -> None:
    found = estimation.envelopes_from_runs(runs(), METRICS, np.arange(6), rules=RULES)
    family = evidence.family_statistic(nights(np.full((6, 2), 4.0)), found, rules=RULES)
    assert np.isnan(family.t).all()


def test_shared_nights_are_seen_in_the_baseline() -> None:
    rng = np.random.default_rng(2)
    own, night = rng.standard_normal((18, 1, 40)), rng.standard_normal((2, 1, 40))
    families = np.arange(18) // 9
    apart = dependence.sharing(own, families)
    together = dependence.sharing(math.sqrt(0.5) * own + math.sqrt(0.5) * night[families], families)
    assert apart[0, 0] < 0.05
    assert together[0, 0] == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("turns", [1, 2, 5])
def test_shared_nights_are_seen_where_topologies_take_turns(turns: int) -> None:
    rng = np.random.default_rng(3)
    families = np.arange(45) // 9
    own, night = rng.standard_normal((45, 1, 100)), rng.standard_normal((5, 1, 100))
    series = math.sqrt(0.5) * (own + night[families])
    off = (np.arange(100) % turns != families[:, None] % turns)[:, None, :]
    series[off] = math.nan
    series -= np.nanmean(series, axis=-1, keepdims=True)
    assert dependence.sharing(series, families)[0, 0] == pytest.approx(0.5, abs=0.12)


def test_without_a_study_the_icc_is_what_the_baseline_shows_at_least() -> None:
    rng = np.random.default_rng(3)
    night = 100 * np.exp(0.01 * rng.standard_normal((1, 2, 20)))
    shared = runs(sd=0.002) * night / 100
    assert np.all(envelopes(shared).icc > 0.7)
    assert np.all(envelopes(shared, replace(RULES, icc=0.1)).icc == 0.1)
    assert np.all(envelopes(runs(cells=45)).icc == 0.2)


@given(st.integers(1, 40), st.floats(0.05, 0.95))
def test_what_persistence_adds_is_the_sum_over_the_lags(n: int, memory: float) -> None:
    summed = sum((1 - j / n) * memory**j for j in range(1, n))
    assert dependence.lagged(np.array(float(n)), memory) == pytest.approx(summed, abs=1e-9)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.1), (0.5, 0.35, 0.65)])
def test_persistence_is_found_again_in_short_series(share: float, low: float, high: float) -> None:
    rng = np.random.default_rng(4)
    night = rng.standard_normal((45, 1, 200))
    for k in range(1, 200):
        night[..., k] = 0.7 * night[..., k - 1] + math.sqrt(0.51) * night[..., k]
    series = math.sqrt(share) * night + math.sqrt(1 - share) * rng.standard_normal((45, 1, 200))
    last = series[..., -20:]
    residuals = last - last.mean(axis=-1, keepdims=True)
    assert low <= dependence.persistence(residuals, memory=0.7)[0, 0] <= high


def persistent_runs(count: int, cells: int = 45) -> Floats:
    """Half of the variance is the night's, and nights resemble the one before (0.7)."""
    rng = np.random.default_rng(5)
    night = rng.standard_normal((cells, 1, count + 50))
    for k in range(1, count + 50):
        night[..., k] = 0.7 * night[..., k - 1] + math.sqrt(0.51) * night[..., k]
    drawn = math.sqrt(0.5) * (night[..., 50:] + rng.standard_normal((cells, 1, count)))
    values: Floats = 100 * np.exp(0.01 * np.repeat(drawn, 2, axis=1))
    return values


def test_topologies_with_few_nights_do_not_hide_persistence() -> None:
    values = persistent_runs(20)
    values[9:, :, :15] = math.nan
    families = np.arange(45) // 9
    found = estimation.envelopes_from_runs(values, METRICS, families, rules=RULES)
    assert np.all(found.persistence > 0.25)
    assert np.all(found.icc > 0.25)


def test_eight_nights_show_persistence_even_if_one_is_dropped() -> None:
    values = persistent_runs(8)
    values[0, :, 3] *= 1.5
    assert np.all(envelopes(values).persistence > 0.2)
    assert np.all(envelopes(persistent_runs(7)).persistence == 0)


def test_heavy_tails_and_frequent_slow_runs_take_the_fail_from_one_night() -> None:
    assert envelopes(runs(1, cells=45)).steady.all()
    assert not envelopes(runs(1, cells=45, shape="t3")).steady.any()
    slowed = runs(1, cells=45)
    often = np.random.default_rng(6).random((45, 1, 20)) < 0.08
    slowed *= np.where(often, [[1.3], [1 / 1.3]], 1.0)
    assert not envelopes(slowed).steady.any()


def test_more_axes_in_front_change_nothing() -> None:
    values = np.stack([runs(1), runs(2)])
    both = envelopes(values)
    for number in (0, 1):
        one = envelopes(values[number])
        for name in ("location", "sd", "df", "sharing", "noise", "steady"):
            assert getattr(both, name)[number] == pytest.approx(getattr(one, name))
