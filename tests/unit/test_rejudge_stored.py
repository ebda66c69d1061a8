"""Stored sessions that lack something: which one ``pdserve judge`` judges, and that none passes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import SESSION
from pytest_pdserve.results.store import SESSION_FILE
from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sessions import StoredRef
from pytest_pdserve.values.sessions import utc_text
from tests.support.judging import JudgeCommand
from tests.support.stored_nights import INVALID
from tests.support.stored_nights import Shelf
from tests.support.stored_nights import write_record

CELL = "random-512-256-n4"
PD, DP = f"1p3d {CELL}", f"dp {CELL}"


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    """A project with a baseline of 20 nights."""
    monkeypatch.chdir(tmp_path)
    made = Shelf(folder=tmp_path, make_record=make_record)
    made.baseline()
    return made


@pytest.fixture
def judge(capsys: pytest.CaptureFixture[str]) -> JudgeCommand:
    return JudgeCommand(capsys=capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("slower", "code"), [(0.0, 0), (0.08, 1)])
def test_nights_that_were_accepted_judge_the_next(
    slower: float,
    code: int,
    tmp_path: Path,
    make_record: Callable[..., Record],
    monkeypatch: pytest.MonkeyPatch,
    judge: JudgeCommand,
) -> None:
    monkeypatch.chdir(tmp_path)
    shelf = Shelf(folder=tmp_path, make_record=make_record)
    shelf.nights(20)
    assert main(["baseline", "propose", "--system", "p5-efa"]) == 0
    assert main(["baseline", "accept", "--system", "p5-efa", "--approver", "Ada"]) == 0
    shelf.session(21, slower=slower, repeats=3)
    assert f"accepted by Ada on {datetime.now(UTC).date()}" in judge(code=code)


def test_strict_takes_nothing_that_is_unproven(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.session(21)
    assert judge.told()["unproven"] == ["client: not seen"]
    assert judge.told("--strict", code=6)["exit_code"] == 6
    assert "unproven: client: not seen" in judge()


def test_counts_are_of_all_runs_of_a_start(shelf: Shelf, judge: JudgeCommand) -> None:
    run = shelf.session(21, repeats=2, restarts=False)
    second = shelf.runs / run / "dp" / f"{CELL}.1.record.json"
    record = load_record(second)
    write_record(shelf.runs / run, replace(record, metrics={**record.metrics, "completed": 3.0}))
    (miss,) = judge.told(code=1)["cells"][DP]["misses"]
    assert miss == (
        "completed is 3, expected 4 requests as in the baseline: the load or the servers differ"
    )


def test_a_metric_that_is_missing_fails_by_name(shelf: Shelf, judge: JudgeCommand) -> None:
    run = shelf.session(21)
    record = load_record(shelf.runs / run / "dp" / f"{CELL}.0.record.json")
    metrics = {name: value for name, value in record.metrics.items() if name != "mean_itl_ms"}
    write_record(shelf.runs / run, replace(record, metrics=metrics))
    said = judge.told(code=1)["cells"][DP]
    assert said["misses"] == ["mean_itl_ms has a reference, but 1 of 1 runs have no value"]
    assert "mean_itl_ms" not in {metric["metric"] for metric in said["metrics"]}


@pytest.mark.parametrize("partial", [(), ("--partial",)], ids=["all", "partial"])
def test_an_invalid_cell_is_no_pass(
    partial: tuple[str, ...], shelf: Shelf, judge: JudgeCommand
) -> None:
    shelf.session(21, cells=("dp",))
    shelf.session(21, cells=("1p3d",), findings=(INVALID,))
    said = judge.told(*partial, code=7)
    assert said["cells"][PD] == {
        "verdict": "ERROR",
        "misses": ["invalid: completed: 3 of 4 requests completed"],
        "metrics": [],
    }
    assert said["invalid"] == [PD]
    assert said["not_measured"] == said["unreadable"] == []
    assert said["exit_code"] == 7
    text = judge(*partial, code=7)
    assert f"ERROR: 1p3d, {CELL}, p5-efa\n  invalid: completed: 3 of 4 requests completed" in text


def test_cells_of_the_baseline_without_a_run_are_named(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.session(21, cells=("dp",))
    said = judge.told(code=6)
    assert said["not_measured"] == [PD]
    assert {cell["verdict"] for cell in said["cells"].values()} == {"PASS"}
    assert f"not measured: {PD}\n" in judge(code=6)
    assert judge.told("--partial")["not_measured"] == [PD]
    assert f"not measured: {PD}\n" in judge("--partial")


def torn(shelf: Shelf, run: str, pattern: str) -> list[Path]:
    """Records of a session that a full disk left, say."""
    found = sorted((shelf.runs / run).glob(pattern))
    for path in found:
        path.write_text(path.read_text()[:-40])
    return found


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("pattern", ["1p3d/*.json", "1p3d/*.1.record.json"])
@pytest.mark.parametrize("partial", [(), ("--partial",)], ids=["all", "partial"])
def test_a_record_that_cannot_be_read_is_no_pass(
    pattern: str, partial: tuple[str, ...], shelf: Shelf, judge: JudgeCommand
) -> None:
    paths = torn(shelf, shelf.session(21, repeats=2), pattern)
    said = judge.told(*partial, code=6)
    assert [why.split(" is not valid JSON: ")[0] for why in said["unreadable"]] == [
        str(path) for path in paths
    ]
    assert said["invalid"] == []
    assert f"unreadable: {paths[0]} is not valid JSON: " in judge(*partial, code=6)


def test_what_cannot_be_judged_hides_no_fail(shelf: Shelf, judge: JudgeCommand) -> None:
    run = shelf.session(21, slower=0.08, repeats=3)
    torn(shelf, run, "1p3d/*.json")
    said = judge.told(code=1)
    assert said["exit_code"] == 1
    assert len(said["unreadable"]) == 3


def test_a_record_of_a_night_before_that_cannot_be_read_is_left_out_and_named(
    shelf: Shelf, judge: JudgeCommand
) -> None:
    before = shelf.session(20)
    (path, *_) = torn(shelf, before, "1p3d/*.json")
    shelf.session(21)
    assert judge.told()["nights_before"] == 1
    assert f"left out: {path} is not valid JSON: " in judge()


def test_without_a_baseline_no_cell_is_judged(shelf: Shelf, judge: JudgeCommand) -> None:
    path = shelf.folder / "baselines" / "p5-efa" / "sweep.json"
    path.unlink()
    shelf.session(21)
    assert judge.told(code=6)["cells"][DP] == {
        "verdict": "NOT JUDGED",
        "misses": ["no latency or throughput of this cell has a reference"],
        "metrics": [],
    }
    assert "baseline  none" in judge(code=6)


def test_a_cell_that_the_baseline_lacks_is_not_judged(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.baseline(cells=("1p3d",))
    shelf.session(21)
    said = judge.told(code=6)["cells"]
    assert {cell: verdict["verdict"] for cell, verdict in said.items()} == {
        PD: "PASS",
        DP: "NOT JUDGED",
    }


def test_the_hardware_must_be_the_baselines(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.session(21, fingerprint="ffffffffffff")
    path = shelf.folder / "baselines" / "p5-efa" / "sweep.json"
    assert judge(code=4) == (
        f"pdserve: {path} was measured on another host or with another system file (fingerprint "
        "0123456789ab, here ffffffffffff); move it away, and the next session records a new "
        "reference\n"
    )


def test_runs_of_an_endpoint_are_held_against_the_systems_nights(
    shelf: Shelf, judge: JudgeCommand
) -> None:
    shelf.session(21, fingerprint="ffffffffffff", host={"endpoint": "http://n:8000"})
    assert {cell["verdict"] for cell in judge.told()["cells"].values()} == {"PASS"}


def test_judging_changes_no_baseline(shelf: Shelf, judge: JudgeCommand) -> None:
    path = shelf.baseline(3)
    before = path.read_text()
    shelf.session(21)
    judge()
    assert path.read_text() == before
    assert load_baseline(path, system=shelf.system) is not None


def test_what_was_never_stored_is_refused(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.session(21)
    assert "holds no records of 'p5-efa'" in judge("20260101T000000-p5-efa", code=4)
    assert "none holds no records of 'p5-efa'; make some" in judge("--runs", "none", code=4)


def test_the_night_before_is_not_judged_instead_of_one_that_cannot_be_read(
    shelf: Shelf, judge: JudgeCommand
) -> None:
    shelf.session(21)
    run = shelf.session(22)
    paths = torn(shelf, run, "*/*.json")
    for named in ((), (run,)):
        said = judge(*named, code=4)
        assert f"{Path('runs') / run}: none of its 2 records can be read" in said
        assert f"the first: {paths[0]} is not valid JSON: " in said
        assert said.count("\n") == 1


def began(shelf: Shelf, name: str, system: str = "p5-efa") -> None:
    """Have a session of *system* begin on the day and hour that *name* begins with."""
    moment = datetime.strptime(name[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    session = SessionRef(id=name, started_at=utc_text(moment))
    path = shelf.runs / name / SESSION_FILE
    write_json(path, SESSION.dump(StoredRef(session=session, system=system), path))


@pytest.mark.parametrize("name", ["20261122T220000-p5-efa", "20261122T220000-p5-efa-2"])
def test_nor_instead_of_one_that_left_no_record(
    name: str, shelf: Shelf, judge: JudgeCommand
) -> None:
    before = shelf.session(21)
    began(shelf, name)
    (shelf.runs / name / "dp" / "logs").mkdir(parents=True)
    for named in ((), (name,)):
        said = judge(*named, code=4)
        where = Path("runs") / name
        assert f"{where} holds no records of 'p5-efa': that session has no measurements" in said
    assert judge.told(before)["run_id"] == before


def test_folders_of_others_are_no_newer_session(shelf: Shelf, judge: JudgeCommand) -> None:
    run = shelf.session(21)
    began(shelf, "20261122T220000-p6", "p6")
    began(shelf, "20261122T220000-p5-efa-ib", "p5-efa-ib")
    began(shelf, "20261120T230000-p5-efa")
    for name in ("notes", "20261122T230000-p5-efa"):  # no session left anything in them
        (shelf.runs / name).mkdir()
    other = "20261123T220000-p5-efa-2"
    (shelf.runs / shelf.session(23, system="p5-efa-2")).rename(shelf.runs / other)
    for path in (shelf.runs / other).glob("*/*.json"):
        path.write_text(path.read_text().replace('T220000-p5-efa"', 'T220000-p5-efa-2"'))
    began(shelf, other, "p5-efa-2")
    assert judge.told()["run_id"] == run


def test_the_newest_session_alone_is_judged(shelf: Shelf, judge: JudgeCommand) -> None:
    torn(shelf, shelf.session(21), "dp/*.json")
    run = shelf.session(22)
    said = judge.told()
    assert (said["run_id"], said["unreadable"]) == (run, [])


def wrecked(shelf: Shelf, day: int) -> str:
    """A session of which nothing can be read, not even which system it measured."""
    run = shelf.session(day)
    torn(shelf, run, "*/*.record.json")
    (shelf.runs / run / SESSION_FILE).write_text("{")
    return run


def test_a_session_that_says_nothing_of_itself_is_not_passed_over(
    shelf: Shelf, judge: JudgeCommand
) -> None:
    run = wrecked(shelf, 22)
    said = judge(code=4)
    assert f"{run}: nothing of this session can be read, so it cannot be judged: " in said
    assert "session.json is not valid JSON" in said
    assert f"{run}: none of its 2 records can be read" in judge(run, code=4)


def test_a_wreck_of_long_ago_is_no_newer_session(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.session(21)
    run = wrecked(shelf, 1)
    os.utime(shelf.runs / run, (0, 0))
    judge()


def test_a_torn_session_file_loses_no_record(shelf: Shelf, judge: JudgeCommand) -> None:
    run = shelf.session(22)
    (shelf.runs / run / SESSION_FILE).write_text("{")
    assert judge.told()["run_id"] == run


def test_what_it_ends_with_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["judge", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "Exit codes: 0 OK, 1 FAIL, 2 INTERRUPTED, 3 FAULT OF PDSERVE, 4 BAD INPUT, 6 NOT JUDGED, "
        "7 ERROR" in said
    )
    assert "--partial Accept that cells of the baseline have no run" in said


def test_the_json_is_one_line(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.session(21)
    text = judge("--format", "json")
    assert text.count("\n") == 1
    assert json.loads(text)["exit_code"] == 0
