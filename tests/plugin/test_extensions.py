"""A metric and a check that another package adds are asked for, recorded, judged and shown."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import WITHOUT_UNUSED

ROOT = Path(__file__).parents[2]
METRIC = """
from pytest_pdserve import Finding
from pytest_pdserve import Metric

p95_ttft = Metric(
    name="p95_ttft_ms",
    unit="ms",
    better="lower",
    quantity="ttft",
    statistic="p95",
    judged=True,
    heading="p95 TTFT",
    floor=0.1,
)
tokens_per_request = Metric(
    name="tokens_per_request",
    unit="tokens",
    better="equal",
    read=lambda seen: seen.result.total_output_tokens / seen.result.completed,
    judged=True,
)


def check_rate(seen):
    yield Finding(
        check="rate", severity="note", message=f"checked by another package: {seen.topology.id}"
    )
"""
POINTS = {
    "pdserve.metrics": {
        "p95": "pdserve_extra:p95_ttft",
        "tokens": "pdserve_extra:tokens_per_request",
    },
    "pdserve.checks": {"rate": "pdserve_extra:check_rate"},
}
TIMES = ("mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "mean_tpot_ms", "mean_e2el_ms")
MINE = ("--system", "mine", "--topology", "1p3d")
Install = Callable[..., None]


@pytest.fixture
def install(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package with entry points for the processes that this test starts."""
    site = pytester.path / "site"
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    monkeypatch.setenv("COLUMNS", "140")
    shutil.copytree(ROOT / "suites" / "sweep", pytester.path / "suites" / "sweep")

    def install(code: str = METRIC, points: dict[str, dict[str, str]] = POINTS) -> None:
        info = site / "pdserve_extra-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "pdserve_extra.py").write_text(code)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pdserve-extra\nVersion: 1.0\n")
        lines = [
            line
            for group, named in points.items()
            for line in (f"[{group}]", *(f"{name} = {value}" for name, value in named.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

    return install


def simulated(
    pytester: pytest.Pytester,
    *,
    night: int = 0,
    times: tuple[str, ...] = (*TIMES, "p95_ttft_ms"),
) -> None:
    """A simulated system of 64 prompts, which takes twice as long every night."""
    floors = dict.fromkeys((*times, "output_throughput"), 0.1)
    path = pytester.path / "baselines" / "mine" / "system.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "\n".join(
            [
                "schema_version = 1",
                'description = "simulated"',
                '[cluster]\nkind = "simulated"\nnodes = 4\ngpus_per_node = 8',
                '[model]\npath = "m"',
                "[sweep]\nnum_prompts = 64\ninput_lens = [512]\noutput_lens = [256]",
                f"[simulation]\nnight = {night}\ndrift_per_night = 1.0",
                '[judgement]\nclaims = "report"',
                "[judgement.floors]",
                *(f"{name} = {floor}" for name, floor in floors.items()),
            ]
        )
    )


def sweep(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("suites", *MINE, *WITHOUT_UNUSED, *arguments)


def record(pytester: pytest.Pytester) -> dict[str, Any]:
    path = max(pytester.path.glob("runs/*/1p3d/*.record.json"))
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def test_a_metric_of_another_package_is_asked_for(install: Install) -> None:
    install()
    code = "from pytest_pdserve.values.metrics import METRICS; print(METRICS.client_flags())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'metric-percentiles': '50,90,95,99'" in said.stdout
    assert "'percentile-metrics': 'ttft,itl,tpot,e2el'" in said.stdout


@pytest.mark.slow
def test_a_metric_of_another_package_is_recorded_judged_and_shown(
    install: Install, pytester: pytest.Pytester
) -> None:
    install()
    simulated(pytester)
    first = sweep(pytester)
    first.assert_outcomes(passed=1, skipped=1)  # NEW
    first.stdout.fnmatch_lines(["*  p95 TTFT*"])
    metrics = record(pytester)["metrics"]
    assert metrics["p90_ttft_ms"] < metrics["p95_ttft_ms"] < metrics["p99_ttft_ms"]
    assert metrics["tokens_per_request"] == 256


@pytest.mark.slow
def test_a_metric_of_another_package_fails_a_run(
    install: Install, pytester: pytest.Pytester
) -> None:
    install()
    simulated(pytester)
    sweep(pytester).assert_outcomes(passed=1, skipped=1)  # NEW
    sweep(pytester).assert_outcomes(passed=1, skipped=1)
    simulated(pytester, night=1)
    failing = sweep(pytester)
    failing.assert_outcomes(failed=1, skipped=1)
    failing.stdout.fnmatch_lines(["*p95_ttft_ms * ms, reference * ms (1 night, provisional): *"])


@pytest.mark.slow
def test_a_check_of_another_package_is_heard(install: Install, pytester: pytest.Pytester) -> None:
    install()
    simulated(pytester)
    result = sweep(pytester)
    result.stdout.fnmatch_lines(["note: checked by another package: 1p3d *"])
    found = [f["message"] for f in record(pytester)["findings"] if f["check"] == "rate"]
    assert found == ["checked by another package: 1p3d"]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("code", "group", "said"),
    [
        (
            "raise RuntimeError('torn')",
            "pdserve.metrics",
            "entry point x = pdserve_extra:x of pdserve-extra, group 'pdserve.metrics', cannot be "
            "loaded: RuntimeError: torn; upgrade or uninstall pdserve-extra",
        ),
        (
            "x = 5",
            "pdserve.metrics",
            "entry point 'x' of group 'pdserve.metrics' is a int, expected a pytest_pdserve.Metric",
        ),
        (
            "from pytest_pdserve import Metric\n"
            "x = Metric(name='failed', unit='requests', better='equal')",
            "pdserve.metrics",
            "entry point 'x' of group 'pdserve.metrics' defines metric 'failed', which exists "
            "already; give it another name",
        ),
        (
            "x = 5",
            "pdserve.checks",
            "entry point 'x' of group 'pdserve.checks' is a int, expected a function that takes "
            "an Observation and yields Findings",
        ),
    ],
    ids=["does not import", "no metric", "name is taken", "no check"],
)
def test_an_extension_that_cannot_be_used_is_one_sentence(
    install: Install, pytester: pytest.Pytester, code: str, group: str, said: str
) -> None:
    install(code, {group: {"x": "pdserve_extra:x"}})
    simulated(pytester, times=TIMES)
    result = sweep(pytester)
    text = result.stdout.str() + result.stderr.str()
    assert said in " ".join(text.split())
    assert "Traceback" not in text
    assert result.ret != 0
