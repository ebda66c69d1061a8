"""What an A/A study says of noise: the arithmetic against oracles, then through ``pdserve``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.oneway import anova_oneway

from pytest_pdserve.commands.main import main
from pytest_pdserve.judge.estimation import Floats
from pytest_pdserve.judge.estimation import Ints
from pytest_pdserve.results.calibration import load_calibration
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.store import load_record
from pytest_pdserve.study.variance import Sample
from pytest_pdserve.study.variance import noise_of
from pytest_pdserve.study.variance import shares
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.rules import Rules
from tests.support.stored_nights import INVALID
from tests.support.stored_nights import Shelf
from tests.support.stored_nights import write_record

MakeRecord = Callable[..., Record]


def study(icc: float, *, nights: int, each: int, seed: int = 1) -> tuple[Floats, Ints]:
    source = np.random.default_rng(seed)
    groups = np.repeat(np.arange(nights), each)
    common = source.standard_normal(nights) * np.sqrt(icc)
    return common[groups] + source.standard_normal(nights * each) * np.sqrt(1 - icc), groups


def test_mean_squares_are_those_of_statsmodels() -> None:
    values, groups = study(0.4, nights=12, each=4)
    found = shares([(values, groups)])
    assert found is not None
    f = anova_oneway(values, groups, use_var="equal").statistic
    assert found.icc == pytest.approx((f - 1) / (f + 3))


def test_shares_of_a_balanced_study_are_those_of_a_mixed_model() -> None:
    values, groups = study(0.5, nights=40, each=3)
    found = shares([(values, groups)])
    assert found is not None
    data = pd.DataFrame({"y": values, "night": groups})
    fitted = MixedLM.from_formula("y ~ 1", data, groups="night").fit(reml=True)
    common = float(fitted.cov_re.iloc[0, 0])
    assert found.icc == pytest.approx(common / (common + fitted.scale), abs=1e-3)
    assert found.total == pytest.approx(common + fitted.scale, rel=1e-3)


@pytest.mark.parametrize("icc", [0.0, 0.2, 0.5, 0.9])
def test_the_share_is_found_and_its_interval_holds_it_nine_times_in_ten(icc: float) -> None:
    found = [shares([study(icc, nights=20, each=2, seed=seed)]) for seed in range(400)]
    estimates = [s.icc for s in found if s]
    held = np.mean([s.low <= icc <= s.high for s in found if s])
    assert np.median(estimates) == pytest.approx(icc, abs=0.06)
    # At 0 the lower end is cut off there, so that one side never misses.
    assert held == pytest.approx(0.95 if icc == 0 else 0.90, abs=0.05)


def test_unbalanced_nights_and_single_runs_are_used() -> None:
    values, groups = study(0.5, nights=60, each=4)
    keep = np.random.default_rng(3).random(len(values)) < 0.6
    found = shares([(values[keep], groups[keep])])
    assert found is not None
    assert found.icc == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("groups", [[0, 0, 0], [0, 1, 2]])
def test_one_night_or_single_runs_say_nothing(groups: list[int]) -> None:
    assert shares([(np.array([1.0, 2.0, 3.0]), np.array(groups))]) is None


def test_no_noise_at_all_is_no_division_by_zero() -> None:
    found = shares([(np.zeros(4), np.array([0, 0, 1, 1]))])
    assert found is not None
    assert (found.total, found.icc, found.low, found.high) == (0.0, 0.0, 0.0, 1.0)


def sample(*, start_sd: float, later: int, warmup: float = 0.0) -> Sample:
    source = np.random.default_rng(5)
    values, nights, starts = [], [], []
    for night in range(300):
        common = source.normal(0, 0.004)
        for session in range(2):
            base = common + source.normal(0, start_sd)
            for run in range(1 + later):
                slow = warmup if run == 0 and later else 0.0
                values.append(float(100 * np.exp(base + slow + source.normal(0, 0.003))))
                nights.append(f"n{night}")
                starts.append(f"n{night}-{session}")
    return Sample(values=tuple(values), nights=tuple(nights), starts=tuple(starts))


def test_what_belongs_to_the_start_shows_in_further_runs_on_the_same_servers() -> None:
    noise = noise_of("mean_itl_ms", [sample(start_sd=0.005, later=2)], Rules())
    assert noise is not None
    total = 0.004**2 + 0.005**2 + 0.003**2
    assert noise.sd == pytest.approx(np.sqrt(total), rel=0.08)
    assert noise.icc == pytest.approx(0.004**2 / total, abs=0.15)
    assert noise.start == pytest.approx(0.005**2 / total, abs=0.2)
    assert noise.warmup == pytest.approx(0.0, abs=0.002)


@pytest.mark.parametrize(("metric", "sign"), [("mean_itl_ms", 1), ("output_throughput", -1)])
def test_a_first_run_that_is_slow_shows_a_warm_up_too_short(metric: str, sign: int) -> None:
    noise = noise_of(metric, [sample(start_sd=0.002, later=2, warmup=sign * 0.05)], Rules())
    assert noise is not None
    assert noise.warmup == pytest.approx(0.05, abs=0.005)


def test_single_runs_do_not_tell_of_the_start() -> None:
    noise = noise_of("mean_itl_ms", [sample(start_sd=0.005, later=0)], Rules())
    assert noise is not None
    assert noise.start is None
    assert noise.warmup is None


@pytest.fixture
def shelf(tmp_path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.chdir(tmp_path)
    return Shelf(folder=tmp_path, make_record=make_record)


def calibrate(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["calibrate", "--system", "p5-efa", *arguments]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def study_of(shelf: Shelf, nights: int, **given: Any) -> None:
    for day in range(1, nights + 1):
        shelf.session(day, 20, **given)
        shelf.session(day, 23, **given)


def test_a_calibration_is_written_and_read(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.night_sd, shelf.run_sd = 0.006, 0.006
    study_of(shelf, 20)
    said = calibrate(capsys)
    assert "p5-efa: 40 fresh starts in 20 nights, 2 cells" in said
    found = load_calibration(shelf.system)
    assert found is not None
    assert found.icc == pytest.approx(0.5, abs=0.2)
    assert found.metrics["mean_itl_ms"].sd == pytest.approx(0.0085, rel=0.3)
    assert f"ICC {found.icc:.2f}: the median over metrics" in said
    assert "WARNING" not in said


def test_confirmation_runs_on_other_starts_do_not_count(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    study_of(shelf, 6)
    calibrate(capsys)
    before = load_calibration(shelf.system)
    for path in [*shelf.runs.rglob("*.0.record.json")]:
        record = load_record(path)
        slow = {name: value * 3 for name, value in record.metrics.items()}
        write_record(path.parent.parent, replace(record, repeat=1, start=1, metrics=slow))
    calibrate(capsys)
    after = load_calibration(shelf.system)
    assert before is not None
    assert after is not None
    assert after.metrics == before.metrics


def test_repeats_on_the_first_start_tell_of_it(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    study_of(shelf, 5, repeats=3, restarts=False)
    calibrate(capsys)
    found = load_calibration(shelf.system)
    assert found is not None
    assert found.metrics["mean_itl_ms"].start is not None


def test_few_nights_are_warned_of(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    study_of(shelf, 5)
    assert "WARNING: 5 nights say little" in calibrate(capsys)


@pytest.mark.parametrize("nights", [1, 4])
def test_too_few_nights_are_refused(
    nights: int, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    study_of(shelf, nights)
    said = calibrate(capsys, code=4)
    assert f"{2 * nights} sessions of {nights} nights" in said
    assert "at least 5 nights are needed" in said


def test_nights_of_one_session_are_refused(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.nights(12)
    assert "and two sessions in some of them" in calibrate(capsys, code=4)


def test_invalid_runs_do_not_count(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    study_of(shelf, 5)
    run = shelf.session(6, findings=(INVALID,))
    said = calibrate(capsys)
    assert f"left out: invalid: {run} dp" in said
    found = load_calibration(shelf.system)
    assert found is not None
    assert found.sessions == 10


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_time_that_cannot_be_is_no_sample(
    value: float, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    study_of(shelf, 5)
    calibrate(capsys)
    before = load_calibration(shelf.system)
    for path in shelf.runs.glob("20261105T23*/*/*.json"):
        data = json.loads(path.read_text())
        data["metrics"]["mean_itl_ms"] = value
        write_json(path, data)
    calibrate(capsys)
    after = load_calibration(shelf.system)
    assert before is not None
    assert after is not None
    assert after.metrics["mean_ttft_ms"] == before.metrics["mean_ttft_ms"]
    assert after.metrics["mean_itl_ms"] != before.metrics["mean_itl_ms"]


@pytest.mark.parametrize("command", [["calibrate"], ["baseline", "propose"], ["judge"]])
def test_a_record_of_400_digits_is_no_traceback(
    command: list[str], shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    study_of(shelf, 5)
    run = shelf.session(6)
    for path in (shelf.runs / run).glob("*/*.json"):
        data = json.loads(path.read_text())
        data["metrics"]["mean_itl_ms"] = 10**400
        path.write_text(json.dumps(data))
    arguments = [*command, "--system", "p5-efa", *([run] if command == ["judge"] else [])]
    assert main(arguments) == (4 if command == ["judge"] else 0)
    said = capsys.readouterr()
    if command == ["judge"]:
        assert f"runs/{run}: none of its 2 records can be read" in said.err
        assert "is greater than the maximum of 1e+18" in said.err
    else:
        assert (
            f"left out: runs/{run}/dp/random-512-256-n4.0.record.json: /metrics/mean_itl_ms: "
            in said.out
        )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema_version": 3}, "/schema_version: 3, expected 1 or 2"),
        ({"icc": 1.5}, "/icc: 1.5 is greater than the maximum of 1"),
        ({"icc": None}, "/icc: None is not of type 'number'"),
        ({"system": "p6"}, "/system: is of 'p6', not of 'p5-efa'"),
        ({"metrics": {}}, "/metrics: {} should be non-empty"),
    ],
)
def test_a_wrong_calibration_is_refused_in_a_sentence(
    change: dict[str, object],
    why: str,
    shelf: Shelf,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study_of(shelf, 5)
    calibrate(capsys)
    path = Path(shelf.system.source).parent / "calibration.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError) as refused:
        load_calibration(shelf.system)
    assert str(refused.value).startswith(f"{path}: {why}")


def test_a_calibration_of_other_hardware_is_refused(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    study_of(shelf, 5)
    calibrate(capsys)
    for known in (None, "0123456789ab", "unknown"):
        assert load_calibration(shelf.system, fingerprint=known) is not None
    path = Path(shelf.system.source).parent / "calibration.json"
    with pytest.raises(ConfigError) as refused:
        load_calibration(shelf.system, fingerprint="ffffffffffff")
    assert str(refused.value) == (
        f"{path} was made on another host or system file (fingerprint 0123456789ab, here "
        "ffffffffffff); move it away, and study this with pdserve calibrate"
    )


def test_a_calibration_of_unknown_hardware_is_believed(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    study_of(shelf, 5, fingerprint="unknown")
    calibrate(capsys)
    assert load_calibration(shelf.system, fingerprint="ffffffffffff") is not None


@pytest.mark.parametrize("name", ["mean_itl", "completed"])
def test_a_renamed_metric_is_refused(
    name: str, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    study_of(shelf, 5)
    calibrate(capsys)
    path = Path(shelf.system.source).parent / "calibration.json"
    data = json.loads(path.read_text())
    data["metrics"][name] = data["metrics"].pop("mean_itl_ms")
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=f"/metrics/{name}: unknown metric '{name}'"):
        load_calibration(shelf.system)
