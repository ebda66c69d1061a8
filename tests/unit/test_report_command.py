"""``pdserve report``: of a session's folder, of the latest of several, and of those without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.report.writing import write_report
from pytest_pdserve.results.kinds import REPORT
from pytest_pdserve.results.store import load_report
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.report import Report
from tests.support.reports import cell
from tests.support.reports import report_of
from tests.support.said import said_by
from tests.support.stored_nights import Shelf

OLD, NEW = "20261119T220000-p5-efa", "20261120T220000-p5-efa"


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    """A project with 20 nights of ``dp``, and the records of a session that is slower."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    made = Shelf(folder=tmp_path, make_record=make_record, night_sd=0.0, run_sd=0.0, cells=("dp",))
    made.baseline()
    made.session(19, slower=0.06)
    return made


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command; returns what it prints, on standard error if it fails."""

    def run(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(["report", *arguments]) == code
        said = said_by(capsys)
        return said.out if code == 0 else said.err

    return run


def keep(shelf: Shelf, report: Report) -> None:
    """Write the report of the session of 20 November into its folder."""
    write_report(report, shelf.runs / shelf.session(20) / "report.json", "json")


def test_a_session_without_a_report_is_judged_from_its_records(
    shelf: Shelf, report: Callable[..., str]
) -> None:
    found = REPORT.parse(json.loads(report("--format", "json")), "report")
    assert (found.rejudged, found.measured, found.status) == (True, True, "SUSPICIOUS")
    (verdict,) = found.verdicts
    assert verdict.records == ("dp/random-512-256-n4.0.record.json",)
    assert (shelf.runs / OLD / verdict.records[0]).exists()
    assert report().startswith("## SUSPICIOUS on p5-efa: 1 SUSPICIOUS\n")
    assert load_report(shelf.runs / OLD) is None


def test_the_latest_session_is_shown_and_no_earlier_one(
    shelf: Shelf, report: Callable[..., str]
) -> None:
    keep(shelf, report_of())
    for named in ("runs", f"runs/{NEW}"):
        assert report(named).splitlines()[0] == "## Nothing was measured on p5-efa"
    assert "SUSPICIOUS" in report(f"runs/{OLD}").splitlines()[0]


def test_a_session_that_left_no_record_says_so(shelf: Shelf, report: Callable[..., str]) -> None:
    folder = shelf.runs / shelf.session(21)
    for path in folder.glob("*/*.record.json"):
        path.unlink()
    said = report("runs").splitlines()
    assert said[0] == "## No results of p5-efa: the session did not come to its end"
    assert not any("SUSPICIOUS" in line for line in said)
    assert "pdserve_metric_value{" not in report("runs", "--format", "prom")


def test_a_session_that_cannot_be_read_is_not_passed_over(
    shelf: Shelf, report: Callable[..., str]
) -> None:
    folder = shelf.runs / shelf.session(21)
    for path in (folder / "session.json", *folder.glob("*/*.record.json")):
        path.write_text("{")
    said = report("runs", code=4)
    assert said.startswith(f"pdserve: runs/{folder.name}/session.json is not valid JSON: ")
    assert said.endswith("this may be the latest session: name another folder\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not valid JSON"),
        ("{}", "'schema_version' is a required property"),
        ('{"schema_version": 2}', "/schema_version: 2, expected 1"),
        ('{"schema_version": 1, "measured": true}', "'system' is a required property"),
    ],
)
def test_a_report_that_cannot_be_read_is_one_sentence(
    content: str, said: str, shelf: Shelf, report: Callable[..., str]
) -> None:
    (shelf.runs / OLD / "report.json").write_text(content)
    (line,) = report("runs", code=4).splitlines()
    assert line.startswith(f"pdserve: runs/{OLD}/report.json")
    assert said in line


@pytest.mark.parametrize("name", ["nowhere", "baselines", "pytest.ini"])
def test_a_folder_without_a_session_is_one_sentence(
    name: str, shelf: Shelf, report: Callable[..., str]
) -> None:
    assert report(name, code=4) == (
        f"pdserve: {name} holds no session that can be read: name the folder of a session, or of "
        "several\n"
    )


@pytest.mark.parametrize(
    ("form", "begins"),
    [("md", "## FAIL on "), ("json", '{\n "schema_version": 1'), ("prom", "# F")],
)
def test_a_report_is_written_to_a_file_as_it_is_printed(
    form: str, begins: str, shelf: Shelf, report: Callable[..., str]
) -> None:
    keep(shelf, report_of(cell()))
    assert report("--format", form, "--output", "out/file") == ""
    written = Path("out/file").read_text()
    assert written.startswith(begins)
    assert written == report("--format", form)
    assert [path.name for path in Path("out").iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_is_one_sentence(
    shelf: Shelf, report: Callable[..., str]
) -> None:
    (line,) = report("--output", "pytest.ini/x", code=7).splitlines()
    assert line.startswith("pdserve: pytest.ini/x cannot be written: ")
