"""``pdserve selftest --gate``: the noise it draws, what it counts, and that it can be BROKEN."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.judge.gate import block_arrays
from pytest_pdserve.judge.gate import levels
from pytest_pdserve.study.gate_gpu_runs import GPU_STARTS
from pytest_pdserve.study.gate_gpu_runs import METRIC_NAMES
from pytest_pdserve.study.gate_gpu_runs import RUNS
from pytest_pdserve.study.gate_gpu_runs import deviations
from pytest_pdserve.study.gate_noise import KINDS
from pytest_pdserve.study.gate_noise import REFERENCE
from pytest_pdserve.study.gate_noise import TTFT
from pytest_pdserve.study.gate_noise import GateNoise
from pytest_pdserve.study.gate_noise import draw_gates
from pytest_pdserve.study.gate_noise import gate_noise_named
from pytest_pdserve.study.gate_selftest import TARGETS
from pytest_pdserve.study.gate_selftest import GateReport
from pytest_pdserve.study.gate_selftest import GateTarget
from pytest_pdserve.study.gate_selftest import gate_selftest
from pytest_pdserve.study.gate_trials import LAYOUTS
from pytest_pdserve.study.gate_trials import TRIALS
from pytest_pdserve.study.gate_trials import GateTrial
from pytest_pdserve.study.gate_trials import Place
from pytest_pdserve.study.gate_trials import count_gates
from pytest_pdserve.study.gate_trials import simple_rule_fails
from pytest_pdserve.study.noise import Floats
from pytest_pdserve.study.rates import Rate
from pytest_pdserve.study.rates import Tally
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import GATE_RULE

GPU = Path(__file__).parents[1] / "data" / "gpu_four_h200_five_starts.csv"
LAYOUT = LAYOUTS["40 cells"]
NONE = GateNoise(name="none", about="No noise at all.", spread=0.0)


def drawn(noise: GateNoise, gates: int = 100) -> Floats:
    rng = np.random.default_rng(1)
    return draw_gates(noise, rng, layout=LAYOUT, gates=gates, blocks=GATE_RULE.max_blocks)


def counted(trial: GateTrial, gates: int) -> Tally:
    return count_gates(trial, np.random.default_rng(1), layout=LAYOUT, gates=gates)


# Noise.


def test_metrics_that_are_simulated_are_those_that_gates_judge() -> None:
    assert set(METRIC_NAMES) == set(METRICS.gate_margins)


@pytest.mark.parametrize("shape", ["normal", "t3", "exponential"])
def test_one_run_has_the_spread_of_its_kind(shape: str) -> None:
    logs = drawn(replace(REFERENCE, shape=shape))  # type: ignore[arg-type]
    sds = [0.02 if name == "mean_ttft_ms" else 0.01 for name in METRIC_NAMES]
    assert logs.std(axis=(0, 1, 2, 3, 4)) == pytest.approx(sds, rel=0.05)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [pytest.param(1, 0.3, id="same topology"), pytest.param(8, 0.0, id="another topology")],
)
def test_cells_of_a_topology_share_a_part_of_each_start(cell: int, expected: float) -> None:
    logs = drawn(REFERENCE)[..., 0]
    found = np.corrcoef(logs[..., 0].ravel(), logs[..., cell].ravel())[0, 1]
    assert found == pytest.approx(expected, abs=0.06)


def test_the_starts_of_a_block_are_a_b_b_a_in_time() -> None:
    logs = drawn(replace(NONE, drift=0.02))[0, ..., 0, 0]
    in_time = np.stack([logs[:, 0, 0], logs[:, 1, 0], logs[:, 1, 1], logs[:, 0, 1]], axis=1)
    steps = np.diff(in_time.ravel())
    assert steps == pytest.approx(np.full(31, steps[0]))
    assert abs(in_time[-1, -1]) == pytest.approx(0.02)


def test_nodes_wander_from_where_the_last_start_led() -> None:
    logs = drawn(replace(NONE, wander=0.005))[..., 0, 0]
    assert logs[:, -1, 0, 1].std() == pytest.approx(0.005 * np.sqrt(32), rel=0.2)


def test_one_start_in_five_is_slow_in_all_cells_of_a_topology() -> None:
    logs = drawn(replace(NONE, slow_starts=0.2))[..., 0]
    assert set(np.unique(logs)) == {0.0, np.log1p(0.025)}
    assert (logs > 0).mean() == pytest.approx(0.2, abs=0.02)
    assert (logs[..., 0] == logs[..., 7]).all()


def test_a_slowed_run_is_slow_in_every_metric_by_5_to_50_percent() -> None:
    logs = drawn(replace(NONE, slowed_runs=0.02))
    slow = logs[..., 0] > 0
    assert slow.mean() == pytest.approx(0.02, abs=0.002)
    assert (logs == logs[..., :1]).all()
    assert np.log(1.05) <= logs[slow].min() < logs[slow].max() <= np.log(1.5)


@pytest.mark.parametrize(
    ("kind", "ratio"),
    [
        pytest.param(replace(REFERENCE, spread_of_spreads=0.35), np.exp(1.645 * 0.35), id="uneven"),
        pytest.param(replace(REFERENCE, noisy_cells=0.05), 1.1, id="few noisy cells"),
    ],
)
def test_spreads_of_cells_differ_as_the_kind_says(kind: GateNoise, ratio: float) -> None:
    sds = drawn(kind)[..., 0].std(axis=(1, 2, 3)).ravel()
    assert np.quantile(sds, 0.95) / np.median(sds) > 0.95 * ratio
    assert drawn(REFERENCE)[..., 0].std(axis=(1, 2, 3)).max() < 0.02 < sds.max()


def test_the_copied_runs_are_the_measured_ones_of_the_file() -> None:
    found: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    with GPU.open() as file:
        for row in csv.DictReader(file):
            if row["role"] == "measured" and row["output_len"] == "256":
                values = (float(row[name]) for name in METRIC_NAMES)
                key = row["topology"], int(row["input_len"])
                found.setdefault(key, []).append((int(row["start"]), *values))
    assert {key: tuple(runs) for key, runs in found.items()} == RUNS


def test_resampled_runs_are_measured_ones_and_a_topology_shares_its_start() -> None:
    logs = drawn(gate_noise_named("gpu-runs"), gates=20)
    one, other = (deviations("1p3d", prompts) for prompts in (512, 4096))
    first, second = (logs[..., cell, :].reshape(-1, len(METRIC_NAMES)) for cell in (0, 1))
    for mine, others in zip(first, second, strict=True):
        starts = [(one[start] == mine).all(axis=1).any() for start in range(GPU_STARTS)]
        assert any(
            starts[start] and (other[start] == others).all(axis=1).any()
            for start in range(GPU_STARTS)
        )


def test_normal_gpu_noise_is_as_large_as_that_of_the_runs() -> None:
    logs = drawn(gate_noise_named("gpu-normal"))
    ttft = logs[..., 0, TTFT].std()
    assert ttft == pytest.approx(np.concatenate(deviations("1p3d", 512))[:, TTFT].std(), rel=0.1)


def test_an_unknown_kind_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["selftest", "--gate", "--noise", "pink"]) == 4
    known = ", ".join(kind.name for kind in KINDS)
    message = f"--noise 'pink' is not a kind of noise of gates, expected one of {known}"
    assert capsys.readouterr().err == f"pdserve: {message}\n"


# Changes.


@pytest.mark.parametrize(
    ("where", "values"),
    [("a cell", 5), ("one metric", 1), ("a topology", 40), ("everywhere", 200)],
)
def test_a_change_is_planted_into_every_run_of_b_alone(where: Place, values: int) -> None:
    runs = np.zeros((20, 2, 2, 2, LAYOUT.cells, len(METRIC_NAMES)))
    trial = GateTrial(noise=NONE, size=0.05, where=where)
    planted = trial.planted(np.random.default_rng(1), runs, LAYOUT)
    assert not planted[:, :, 0].any()
    changed = planted[:, :, 1] == np.log1p(0.05)
    assert (changed.sum(axis=(3, 4)) == values).all()
    assert (changed == changed[:, :1, :1]).all()


# Rates: few gates, so bounds are wide.


@pytest.mark.quick_cases(6)
@pytest.mark.parametrize(
    "trial",
    [trial for trial in TRIALS if not trial.size],
    ids=[trial.name for trial in TRIALS if not trial.size],
)
def test_equal_stacks_are_hardly_ever_no_go(trial: GateTrial) -> None:
    from statsmodels.stats.proportion import proportion_confint  # slow to import

    tally = counted(trial, 60)
    low, _ = proportion_confint(tally.rate("NO-GO").hits, 60, alpha=0.001, method="beta")
    assert low < 0.01
    assert not tally.rate("without forecast").hits


def test_equal_stacks_at_1_percent_noise_are_go_in_three_blocks_of_a_cell() -> None:
    tally = counted(GateTrial(noise=REFERENCE), 100)
    assert tally.rate("GO").share > 0.95
    assert np.mean(tally.samples["blocks of a cell"]) < 3
    assert tally.rate("one run").share > tally.rate("NO-GO").share


@pytest.mark.parametrize(
    ("where", "least"), [("a cell", 0.95), ("one metric", 0.88), ("everywhere", 0.95)]
)
def test_5_percent_is_no_go(where: Place, least: float) -> None:
    tally = counted(GateTrial(noise=REFERENCE, size=0.05, where=where), 100)
    assert tally.rate("NO-GO").share > least
    assert tally.rate("GO").share == 0
    assert np.mean(tally.samples["blocks to NO-GO"]) < 3.8


def test_what_is_neither_go_nor_no_go_says_which_blocks_would_decide() -> None:
    tally = counted(GateTrial(noise=gate_noise_named("gpu-normal")), 20)
    assert tally.rate("not enough").share > 0.8
    assert min(tally.samples["forecast"]) > GATE_RULE.max_blocks


@pytest.mark.parametrize(
    ("metric", "runs", "b", "fails"),
    [
        pytest.param("mean_itl_ms", 1, (0.06, 0.0, 0.0), True, id="one run"),
        pytest.param("mean_itl_ms", 3, (0.06, 0.0, 0.0), False, id="one of three"),
        pytest.param("mean_itl_ms", 3, (0.06, 0.06, 0.0), True, id="two of three"),
        pytest.param("mean_ttft_ms", 1, (0.06, 0.0, 0.0), False, id="TTFT by less than 10 %"),
        pytest.param("mean_ttft_ms", 1, (0.11, 0.0, 0.0), True, id="TTFT"),
    ],
)
def test_what_people_do_now_compares_the_medians_of_few_runs(
    metric: str, runs: int, b: tuple[float, float, float], fails: bool
) -> None:
    logs = np.zeros((1, 2, 2, 2, 1, len(METRIC_NAMES)))
    place = METRIC_NAMES.index(metric)
    logs[0, 0, 1, :, 0, place], logs[0, 1, 1, 0, 0, place] = np.log1p(b[:2]), np.log1p(b[2])
    assert simple_rule_fails(logs, runs_each=runs).tolist() == [fails]


# The report.


def tally_of(target: GateTarget, value: float) -> Tally:
    if target.is_mean:
        return Tally(samples={target.what: [value - 0.1, value + 0.1] * 500})
    return Tally(rates={target.what: Rate(hits=1000 * value, of=1000)})


@pytest.mark.parametrize(
    "target", TARGETS, ids=[f"{target.trial.name}: {target.what}" for target in TARGETS]
)
def test_a_target_is_missed_where_more_than_chance_says_so(target: GateTarget) -> None:
    scale, unit = (1.0, "") if target.is_mean else (100.0, " %")
    is_upper = target.at_most < 100
    bound = target.at_most if is_upper else target.at_least
    bad = 2 * bound + (0.05 if is_upper else -1.1)
    side = "at most" if is_upper else "at least"
    missed = target.missed(tally_of(target, bad))
    assert missed is not None
    assert missed.startswith(f"{target.trial.name}: {target.what} {scale * bad:.2f}{unit} (")
    assert missed.endswith(f", target {side} {scale * bound:g}{unit}")
    assert target.missed(tally_of(target, bound)) is None
    assert target.missed(Tally()) == f"{target.trial.name}: {target.what} was not counted"


def test_a_gate_without_a_forecast_is_named() -> None:
    tally = counted(GateTrial(noise=REFERENCE), 1)
    tally.rates["without forecast"] = Rate(hits=1, of=1)
    tallies = {("reference: equal", "40 cells"): tally}
    missed = GateReport(gates=1, seed=0, tallies=tallies).missed
    assert "reference: equal, 40 cells: 1 gates without a forecast, target none" in missed


@pytest.mark.slow
def test_figures_depend_on_the_seed_and_not_on_the_processes() -> None:
    one = gate_selftest(gates=120, seed=3, noise="drift", workers=1)
    assert gate_selftest(gates=120, seed=3, noise="drift", workers=2) == one
    assert gate_selftest(gates=120, seed=4, noise="drift", workers=1) != one


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    code = main(["selftest", "--gate", "--workers", "1", *arguments])
    return code, capsys.readouterr().out.splitlines()


def test_a_sound_rule_is_called_sound_in_two_simulated_tables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, lines = run(capsys, "--noise", "starts", "--gates", "50", "--seed", "7")
    drawn = "(simulated, seed 7, 50 gates a row)"
    assert (code, lines[-1]) == (0, f"sound: no target is missed by more than chance {drawn}")
    titles = [line for line in lines if line.startswith("SIMULATED (seed 7, 50 gates a row): ")]
    assert len(titles) == len(LAYOUTS)


@pytest.mark.slow
def test_no_line_is_wider_than_a_terminal_of_120(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = run(capsys, "--gates", "1")
    assert max(map(len, lines[:-1])) <= 120


def test_a_rule_that_counts_every_block_is_called_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (levels, block_arrays):
        broken = replace(GATE_RULE, blocks_against=1, spreads=0.0)
        monkeypatch.setattr(module, "GATE_RULE", broken)
    code, lines = run(capsys, "--noise", "spread-3", "--gates", "30")
    missed = "BROKEN: spread-3: equal: NO-GO 100.00 % ("
    assert (code, lines[-1][: len(missed)]) == (1, missed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gate", "--gates", "0"], "--gates 0: expected 1 to 1,000,000"),
        (["--gate", "--seed", "-1"], "--seed -1: expected 0 to 2^63 - 1"),
        (["--gate", "--workers", "0"], "--workers 0: expected 1 to 64"),
        (
            ["--gate", "--nights", "5"],
            "--nights is for simulated nights, and --gate is given",
        ),
        (["--gates", "5"], "--gates is for simulated gates, and --gate is not given"),
        (["--gate", "--series", "x.csv"], "--gate is for simulations, and --series is given"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["selftest", *arguments])
    assert (code, capsys.readouterr().err) == (4, f"pdserve: {message}\n")
