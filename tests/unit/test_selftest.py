"""``pdserve selftest``: the noise it draws, what it counts, and that a broken rule is BROKEN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.judge import nightly
from pytest_pdserve.study import series
from pytest_pdserve.study.noise import KINDS
from pytest_pdserve.study.noise import SIMULATED
from pytest_pdserve.study.noise import SPREADS
from pytest_pdserve.study.noise import Floats
from pytest_pdserve.study.noise import Layout
from pytest_pdserve.study.noise import Noise
from pytest_pdserve.study.noise import draw
from pytest_pdserve.study.noise import noise_named
from pytest_pdserve.study.rates import Rate
from pytest_pdserve.study.rates import Tally
from pytest_pdserve.study.selftest import TARGETS
from pytest_pdserve.study.selftest import Report
from pytest_pdserve.study.selftest import Target
from pytest_pdserve.study.selftest import selftest
from pytest_pdserve.study.simple_rules import failed_cells
from pytest_pdserve.study.trials import TRIALS
from pytest_pdserve.values.rules import RULE

EVEN = noise_named("even")


def drawn(noise: Noise, nights: int = 200) -> Floats:
    return draw(noise, np.random.default_rng(1), layout=Layout(), baseline=0, nights=nights)


def correlation(one: Floats, other: Floats) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.mark.parametrize("shape", ["normal", "t3", "exponential"])
def test_one_run_of_a_metric_has_the_spread_of_the_reference(shape: str) -> None:
    logs = drawn(replace(EVEN, shape=shape))  # type: ignore[arg-type]
    assert logs.std(axis=(0, 1, 2)) == pytest.approx(list(SPREADS.values()), rel=0.05)


@pytest.mark.parametrize(
    ("noise", "one", "other", "expected"),
    [
        pytest.param(EVEN, (0, 0, 0), (0, 0, 1), 0.6, id="two metrics of a run"),
        pytest.param(EVEN, (0, 0, 0), (1, 0, 0), 0.0, id="two runs of a cell"),
        pytest.param(
            replace(EVEN, night_share=0.5), (0, 0, 0), (1, 0, 0), 0.5, id="two runs of a night"
        ),
        pytest.param(
            replace(EVEN, start_share=0.8), (0, 0, 0), (0, 1, 0), 0.8, id="two cells of a start"
        ),
        pytest.param(
            replace(EVEN, start_share=0.8), (0, 0, 0), (0, 8, 0), 0.0, id="cells of two topologies"
        ),
    ],
)
def test_values_are_correlated_as_the_kind_says(
    noise: Noise, one: tuple[int, int, int], other: tuple[int, int, int], expected: float
) -> None:
    logs = drawn(noise, nights=3000)
    found = correlation(logs[(slice(None), *one)], logs[(slice(None), *other)])
    assert found == pytest.approx(expected, abs=0.06)


def test_nights_resemble_the_one_before_where_the_kind_says_so() -> None:
    logs = drawn(replace(EVEN, night_share=1.0, night_correlation=0.7), nights=500)[:, 0]
    assert correlation(logs[1:], logs[:-1]) == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize(
    ("noise", "starts"),
    [
        pytest.param(replace(EVEN, slowed_nights=0.1), 5, id="sticky"),
        pytest.param(replace(EVEN, slowed_nights=0.1, reruns_elsewhere=True), 1, id="elsewhere"),
    ],
)
def test_a_slowed_night_slows_its_reruns_unless_they_are_made_elsewhere(
    noise: Noise, starts: int
) -> None:
    slowed = drawn(replace(noise, scale=0.0))[..., 0] > 0
    assert set(slowed.sum(axis=1)[slowed[:, 0]].tolist()) == {starts}


def test_the_slow_node_serves_every_eighth_start_in_turn() -> None:
    logs = drawn(replace(EVEN, nodes=8, scale=0.0), nights=16)[:, :, 0, 0]
    slow = np.argwhere(logs > 0)
    assert len(set(slow.sum(axis=1) % 8)) == 1
    assert logs.max() == pytest.approx(np.log(1.06))


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_kind_is_found_by_its_name(kind: Noise) -> None:
    assert noise_named(kind.name) is kind


@pytest.mark.parametrize(("hits", "of"), [(0, 50), (1, 50), (25, 50), (50, 50), (7, 2000)])
def test_the_interval_of_independent_nights_is_wilsons(hits: int, of: int) -> None:
    from statsmodels.stats.proportion import proportion_confint  # slow to import

    expected = proportion_confint(hits, of, alpha=0.05, method="wilson")
    assert Rate(hits=hits, of=of).interval == pytest.approx(expected, abs=1e-9)


def test_nights_that_come_together_are_worth_fewer() -> None:
    tally = Tally()
    for hits in (0, 0, 0, 30):
        tally.count("red", hits, 30)
    rate = tally.rate("red")
    assert rate.design_effect == pytest.approx(40)
    assert rate.interval[1] - rate.interval[0] > 0.5


def test_tallies_add_up() -> None:
    one, other, both = Tally(), Tally(), Tally()
    for tally in (one, both):
        tally.count("red", 1, 30)
        tally.sample("limit", [0.04])
    for tally in (other, both):
        tally.count("red", 2, 30)
        tally.sample("limit", [0.05])
    one.add(other)
    assert one == both


@pytest.mark.parametrize(
    ("metric", "runs", "values", "fails"),
    [
        pytest.param("mean_itl_ms", 1, (0.06, 0, 0), True, id="one run of three"),
        pytest.param("mean_itl_ms", 3, (0.06, 0, 0), False, id="one run of three, median"),
        pytest.param("mean_itl_ms", 3, (0.06, 0.06, 0), True, id="two runs of three, median"),
        pytest.param("mean_itl_ms", 1, (0.04, 0, 0), False, id="less than 5 %"),
        pytest.param("mean_e2el_ms", 1, (0.06, 0, 0), False, id="a metric that is not gated"),
    ],
)
def test_what_people_do_now_fails_a_cell_5_percent_over(
    metric: str, runs: int, values: tuple[float, ...], fails: bool
) -> None:
    draws = np.zeros((3, 1, len(SIMULATED)))
    draws[:, 0, SIMULATED.index(metric)] = np.log1p(values)
    assert failed_cells(np.zeros((1, len(SIMULATED))), draws, runs=runs).tolist() == [fails]


def report_of(noise: str, target: Target, rate: Rate) -> Report:
    tallies = {trial: Tally() for trial in TRIALS}
    tallies[target.trial].rates[target.key] = rate
    return Report(nights=1, seed=0, tallies={noise: tallies})


@pytest.mark.parametrize("target", TARGETS, ids=[target.what for target in TARGETS])
def test_a_target_that_is_missed_by_more_than_chance_is_named(target: Target) -> None:
    report = report_of("normal", target, Rate(hits=500, of=1000))
    side = "at most" if target.at_least is None else "at least"
    assert report.missed == (
        f"normal: {target.what} 50.00 % (46.91 to 53.09), target {side} "
        f"{100 * target.bound('normal'):g} %",
    )


@pytest.mark.parametrize("target", TARGETS, ids=[target.what for target in TARGETS])
def test_a_target_that_chance_may_have_missed_is_not_named(target: Target) -> None:
    bound = target.bound("normal")
    worse = bound + 0.01 if target.at_least is None else bound - 0.01
    assert report_of("normal", target, Rate(hits=50 * worse, of=50)).missed == ()


@pytest.mark.parametrize(
    ("noise", "key", "share"),
    [
        pytest.param("bimodal", "5 % same night", 0.80, id="bimodal starts hide 5 %"),
        pytest.param("bimodal", "reruns", 0.33, id="bimodal starts are run again"),
        pytest.param("sticky", "FAIL", 0.07, id="sticky nights FAIL in the first month"),
        pytest.param("doubled", "FAIL", 0.07, id="the floors are not meant for it"),
    ],
)
def test_some_kinds_have_targets_of_their_own(noise: str, key: str, share: float) -> None:
    target = next(target for target in TARGETS if target.key == key)
    assert report_of(noise, target, Rate(hits=10_000 * share, of=10_000)).missed == ()


@pytest.mark.slow
def test_figures_depend_on_the_seed_and_not_on_the_processes() -> None:
    one = selftest(nights=60, seed=3, noise="slow-tail", workers=1)
    assert selftest(nights=60, seed=3, noise="slow-tail", workers=2) == one
    assert selftest(nights=60, seed=4, noise="slow-tail", workers=1) != one


@pytest.mark.slow
def test_one_kind_has_the_figures_that_it_has_among_all() -> None:
    every = selftest(nights=1, seed=0, workers=1).tallies
    assert (
        selftest(nights=1, seed=0, noise="sticky", workers=1).tallies["sticky"] == every["sticky"]
    )


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    code = main(["selftest", "--workers", "1", *arguments])
    return code, capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_a_sound_rule_is_called_sound(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = run(capsys, "--noise", "normal", "--nights", "300", "--seed", "7")
    drawn = "(simulated, seed 7, 300 nights a kind)"
    assert (code, lines[-1]) == (0, f"sound: no target is missed by more than chance {drawn}")


@pytest.mark.slow
def test_every_table_says_that_it_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = run(capsys, "--noise", "sticky", "--nights", "60", "--seed", "7")
    rules = [number for number, line in enumerate(lines) if line.startswith(" ─")]
    titles = [line for line in lines if line.startswith("SIMULATED (seed 7, 60 nights a kind): ")]
    assert (len(rules), len(titles)) == (7, 7)


@pytest.mark.slow
def test_no_line_is_wider_than_a_terminal_of_120(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = run(capsys, "--nights", "1")
    assert max(map(len, lines[:-1])) <= 120


def test_a_rule_that_sees_nothing_is_called_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(series, "FLOORS", (5.0,) * len(SIMULATED))
    code, lines = run(capsys, "--noise", "normal", "--nights", "60")
    missed = "BROKEN: normal: 5 % of a cell found the same night 0.00 % (0.00 to 16.11), target at"
    assert (code, lines[-1][: len(missed)]) == (1, missed)


def test_a_rule_that_fails_on_one_run_is_called_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nightly, "RULE", replace(RULE, max_runs=1))
    code, lines = run(capsys, "--noise", "normal", "--nights", "60")
    missed = "BROKEN: normal: false FAIL nights "
    assert (code, lines[-1][: len(missed)]) == (1, missed)


KNOWN = (
    "normal, t3, slow-tail, ar1, slowed-runs, night-half, night-most, starts, bimodal, "
    "noisy-nights, sticky, sticky-nodes, even, uneven, bad-node, doubled, doubled-night"
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--noise", "pink"], f"--noise 'pink' is not a kind of noise, expected one of {KNOWN}"),
        (["--nights", "0"], "--nights 0: expected 1 to 1,000,000"),
        (["--nights", "9" * 400], f"--nights {'9' * 30}: expected 1 to 1,000,000"),
        (["--seed", "-1"], "--seed -1: expected 0 to 2^63 - 1"),
        (["--workers", "0"], "--workers 0: expected 1 to 64"),
        (
            ["--series", "nights.csv", "--seed", "1"],
            "--seed is for simulations, and --series is given",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["selftest", *arguments])
    assert (code, capsys.readouterr().err) == (4, f"pdserve: {message}\n")
