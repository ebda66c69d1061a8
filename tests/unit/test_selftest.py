"""The gate's test of itself, small, of a fixed seed: bounds that only a broken judge misses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from pytest_pdserve.commands.main import main
from pytest_pdserve.judge import estimation
from pytest_pdserve.judge import night
from pytest_pdserve.study.noise import Layout
from pytest_pdserve.study.noise import Regression
from pytest_pdserve.study.noise import draw
from pytest_pdserve.study.power import JUDGE
from pytest_pdserve.study.power import Outcome
from pytest_pdserve.study.power import Rate
from pytest_pdserve.study.power import clean_outcomes
from pytest_pdserve.study.power import planted_outcomes
from pytest_pdserve.study.profile import PROFILES
from pytest_pdserve.study.profile import REFERENCE
from pytest_pdserve.study.profile import NoiseProfile
from pytest_pdserve.study.profile import profile_named
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import Rules

SEED = 20261123


def clean(profile: NoiseProfile = REFERENCE, nights: int = 400) -> dict[str, Outcome]:
    rules = Rules(icc=profile.icc)
    found = clean_outcomes(profile, np.random.default_rng(SEED), nights=nights, rules=rules)
    return {outcome.rule: outcome for outcome in found}


def planted(regression: Regression, profile: NoiseProfile = REFERENCE) -> dict[str, Outcome]:
    found = planted_outcomes(
        profile,
        np.random.default_rng(SEED),
        regression=regression,
        replications=40,
        rules=Rules(icc=profile.icc),
    )
    return {outcome.rule: outcome for outcome in found}


def test_clean_nights_are_quiet_and_cheap_where_naive_rules_cry_wolf() -> None:
    rules = clean()
    judge = rules[JUDGE]
    assert judge.rates[0].share <= 0.02
    assert 1.0 < judge.runs <= 1.2
    assert judge.passed is not None
    assert judge.passed > 0.85
    for name in ("1 run ±5%", "1 run ±10%", "median of 3"):
        assert rules[name].rates[0].share > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t3", "mixture", "shared", "weeks", "weeks-icc", "outliers"])
def test_harsher_noise_does_not_make_it_cry_wolf(name: str) -> None:
    assert clean(PROFILES[name], 200)[JUDGE].rates[0].share <= 0.035


@pytest.mark.parametrize(
    ("regression", "nights", "least"),
    [
        (Regression(size=0.05, scope="cell"), 0, 0.85),
        (Regression(size=0.02, scope="topology"), 0, 0.85),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                (Regression(size=0.03, scope="cell"), 1, 0.80),
                (Regression(size=0.05, scope="metric"), 1, 0.80),
                (Regression(size=0.05, scope="cell", shape="drift"), 2, 0.80),
            )
        ),
    ],
    ids=["5 % of a cell", "2 % of a topology", "3 % of a cell", "5 % of a metric", "a drift"],
)
def test_a_planted_regression_is_found(regression: Regression, nights: int, least: float) -> None:
    assert planted(regression)[JUDGE].rates[nights].share >= least


@pytest.mark.slow
def test_heavy_tails_cost_the_first_night_and_no_more() -> None:
    found = planted(Regression(size=0.05, scope="cell"), PROFILES["t3"])[JUDGE]
    assert found.rates[1].share >= 0.8


def test_a_flipped_threshold_breaks_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = estimation.upper_t
    monkeypatch.setattr(night, "upper_t", lambda df, p: -sound(df, p))
    assert clean(nights=40)[JUDGE].rates[0].share > 0.5


def test_an_inverted_direction_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    regression = Regression(size=0.05, scope="cell")
    layout = Layout()
    args = {"layout": layout, "replications": 5, "nights": 7, "regression": regression}
    draws = draw(REFERENCE, np.random.default_rng(1), **args)  # type: ignore[arg-type]
    sound = estimation.directions
    monkeypatch.setattr(estimation, "directions", lambda names: -sound(names))
    state = night.State.of(
        estimation.envelopes_from_runs(
            draws.baseline, REFERENCE.metrics, layout.families, rules=Rules()
        ),
        draws.nights[:, -1],
        rules=Rules(),
    )
    assert not night.verdicts(state).failed[:, 0].any()


def test_the_same_seed_draws_the_same_nights() -> None:
    one, two = (clean(nights=20) for _ in range(2))
    assert one == two


def test_draws_have_the_noise_that_they_claim() -> None:
    layout = Layout(baseline_runs=60, topologies=1, cells_each=40, lead_nights=1)
    profile = replace(REFERENCE, outlier_rate=0.0, spread=0.0)
    draws = draw(profile, np.random.default_rng(3), layout=layout, replications=8, nights=59)
    logs = estimation.signed_log(draws.nights, profile.metrics)
    sds = logs[..., 0].std(axis=1, ddof=1).mean(axis=(0, 1))
    assert sds == pytest.approx([cv for _, cv in profile.cvs], rel=0.05)
    one, other = (
        (logs[..., m, run] - logs[..., m, run].mean(axis=1, keepdims=True)).ravel()
        for m, run in ((0, 0), (1, 0))
    )
    assert np.corrcoef(one, other)[0, 1] == pytest.approx(0.6, abs=0.05)
    again = (logs[..., 0, 1] - logs[..., 0, 1].mean(axis=1, keepdims=True)).ravel()
    assert np.corrcoef(one, again)[0, 1] == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(("hits", "of"), [(0, 50), (1, 50), (25, 50), (50, 50), (7, 2000)])
def test_the_interval_is_wilsons(hits: int, of: int) -> None:
    expected = proportion_confint(hits, of, alpha=0.05, method="wilson")
    assert Rate(hits=hits, of=of).interval() == pytest.approx(expected, abs=1e-9)


def test_a_share_of_nothing_is_no_share() -> None:
    nothing = Rate(hits=0, of=0)
    assert math.isnan(nothing.share)
    assert nothing.interval() == (0.0, 1.0)
    assert nothing + Rate(hits=1, of=2) == Rate(hits=1, of=2)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_profile_is_of_metrics_that_are_judged(profile: NoiseProfile) -> None:
    assert set(profile.metrics) <= set(METRICS)
    assert profile.source
    assert PROFILES[profile.name] is profile


def test_the_margin_is_three_sds_of_the_reference_and_never_below_the_floor() -> None:
    for name, cv in REFERENCE.cvs:
        assert METRICS[name].margin >= 3 * cv
    for metric in METRICS.values():
        assert metric.margin >= metric.floor


def test_an_unknown_profile_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="no profile 'quiet'; known are reference, t3"):
        profile_named("quiet")


def test_selftest_prints_what_it_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--nights", "40", "--seed", "7"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("SIMULATED, profile reference (")
    assert "seed 7" in text
    for words in (
        "window of 5",
        "40 simulated nights",
        "1 run ±10%",
        "2 simulated series",
        "5% step, p50_ttft_ms",
        "3% drift, one topology",
        "sound: false-alarm nights",
    ):
        assert words in text
    rows = [line for line in text.splitlines() if " step, " in line or " drift, " in line]
    assert {line.count("/") for line in rows} == {2 * 5}
    assert max(map(len, rows)) <= 100


def test_selftest_calls_a_judge_that_sees_nothing_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(night, "upper_t", lambda df, p: np.full(df.shape, np.inf))
    assert main(["selftest", "--nights", "40"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert "BROKEN: 10% step, one cell found in 0% of series within 7 nights" in last
    assert "3% step, one topology found in 0%" in last


@pytest.mark.slow
def test_selftest_calls_a_judge_that_cries_wolf_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = estimation.upper_t
    monkeypatch.setattr(night, "upper_t", lambda df, p: -sound(df, p))
    assert main(["selftest", "--nights", "40"]) == 1
    assert "BROKEN: false-alarm nights" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "quiet"], "no profile 'quiet'"),
        (["--nights", "0"], "--nights 0: at least one"),
        (["--nights", "9" * 400], f"--nights {'9' * 30}: at least one, 1,000,000 at most"),
        (["--seed", "-1"], "--seed -1: 0 or more"),
    ],
)
def test_selftest_refuses_what_makes_no_sense(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["selftest", *arguments]) == 4
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("nights", ["x", "1.5", ""])
def test_an_argument_that_is_no_number_is_bad_input_in_a_sentence(
    nights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["selftest", "--nights", nights])
    assert refused.value.code == 4
    assert capsys.readouterr().err == (
        f"pdserve: argument --nights: invalid int value: {nights!r}; see pdserve selftest --help\n"
    )
