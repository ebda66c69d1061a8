"""Loads that differ in anything are cells of their own: rows, records, references."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from tests.support.house import WITHOUT_UNUSED

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "data" / "cases"
Import = Callable[..., list[Path]]


@pytest.fixture
def project(
    loaded: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    monkeypatch.setenv("COLUMNS", "140")
    return pytester


def test_a_concurrency_ladder_is_three_rows_records_and_references(
    project: pytest.Pytester,
) -> None:
    folder = project.path / "suites"
    folder.mkdir()
    shutil.copy(CASES / "suite" / "test_concurrency_ladder.py.txt", folder / "test_ladder.py")
    asked = ("suites", "--system", "simulated", "--topology", "1p3d", "-v", *WITHOUT_UNUSED)
    result = project.runpytest_inprocess(*asked)
    result.stdout.fnmatch_lines_random(
        [f"*::test_ladder[[]1p3d-random-512-256-n256-{load}] *" for load in ("c4", "c16", "c64")]
    )
    result.stdout.fnmatch_lines(
        [
            "all workloads: random, 512-256, n256",
            *(f" 1p3d       {load} *" for load in ("c4", "c16", "c64")),
        ]
    )
    records = sorted(path.name for path in project.path.glob("runs/*/1p3d/*.record.json"))
    assert records == [
        f"random-512-256-n256-{load}.{start}.record.json"
        for load in ("c16", "c4", "c64")
        for start in range(3)
    ]
    (baseline,) = project.path.glob("state/pytest-pdserve/baselines/simulated/*/sweep.json")
    cells = json.loads(baseline.read_text())["cells"]["1p3d"]
    assert cells.keys() == {f"random-512-256-n256-{load}" for load in ("c4", "c16", "c64")}


@pytest.fixture
def run_import(project: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> Import:
    """Import files into the project's runs; returns the records' files."""

    def run(*files: Path, dataset: str | None = None) -> list[Path]:
        flags = ["--dataset", dataset] if dataset else []
        asked = ["import", "--topology", "1p3d", "--system", "p5-efa", *flags]
        assert main([*asked, *map(str, files)]) == 0
        printed = capsys.readouterr().out.splitlines()
        return [Path(line) for line in printed if line.endswith(".record.json")]

    return run


def test_three_concurrencies_of_a_result_are_three_references(
    project: pytest.Pytester, run_import: Import, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((CASES / "import" / "concurrency").iterdir())
    own = project.path / "baselines" / "p5-efa"
    own.mkdir(parents=True)
    shutil.copy(ROOT / "baselines" / "p5-efa" / "system.toml", own)
    records = run_import(*files, dataset="random")
    stem = "random-unknown-unknown-655360in-655360out-n640"
    assert [path.name for path in records] == [
        f"{stem}-c{load}+unknown.0.record.json" for load in (16, 4, 64)
    ]
    assert main(["baseline", "propose", "--system", "p5-efa"]) == 0
    capsys.readouterr()
    cells = json.loads((own / "sweep.proposal.json").read_text())["cells"]["1p3d"]
    assert list(cells) == [f"{stem}-c{load}+unknown" for load in (16, 4, 64)]


@pytest.mark.parametrize(
    ("name", "dataset", "workload"),
    [
        ("sharegpt_no_dataset_flag", None, "unknown-217393in-198277out-n1000+unknown"),
        ("sharegpt_no_dataset_flag", "sharegpt", "sharegpt-n1000+unknown"),
        (
            "ramp_up",
            "random",
            "random-unknown-unknown-32768in-64out-n4-ramp-linear-1to10-c4+unknown",
        ),
        (
            "llmd_metadata_no_ignore_eos",
            "random",
            "random-1000-500-n300-rate10+unknown",
        ),
        (
            "concurrency/conc4",
            None,
            "unknown-655360in-655360out-n640-c4+unknown",
        ),
    ],
)
def test_what_a_result_does_not_say_is_unknown(
    run_import: Import, name: str, dataset: str | None, workload: str
) -> None:
    (path,) = run_import(CASES / "import" / f"{name}.json", dataset=dataset)
    assert path.name == f"{workload}.0.record.json"


def test_short_outputs_are_held_against_what_the_file_says_was_asked(run_import: Import) -> None:
    source = CASES / "import" / "llmd_metadata_no_ignore_eos.json"
    (path,) = run_import(source, dataset="random")
    findings = json.loads(path.read_text())["findings"]
    said = {f["message"]: f["severity"] for f in findings if f["check"] == "tokens"}
    assert said == {
        "81050 output tokens, expected 150000: outputs ended early, and whether --ignore-eos was "
        "given is unknown": "unproven",
        "299700 input tokens, expected 300000: the options that could explain it are unknown": (
            "unproven"
        ),
    }
