"""Stored sessions judged by the baseline of today: through ``pdserve judge``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import SESSION
from pytest_pdserve.results.store import SESSION_FILE
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sessions import StoredRef
from pytest_pdserve.values.sessions import utc_text
from tests.support.stored_nights import INVALID
from tests.support.stored_nights import Shelf

CELL = "random-512-256-n4"
PD, DP = f"1p3d {CELL}", f"dp {CELL}"


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    """A project with an accepted baseline of 20 nights."""
    monkeypatch.chdir(tmp_path)
    made = Shelf(folder=tmp_path, make_record=make_record)
    made.nights(20)
    assert main(["baseline", "propose", "--system", "p5-efa"]) == 0
    assert main(["baseline", "accept", "--system", "p5-efa", "--approver", "Ada"]) == 0
    return made


@pytest.fixture
def judge(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    capsys.readouterr()

    def run(*arguments: str, code: int = 0) -> str:
        assert main(["judge", "--system", "p5-efa", *arguments]) == code
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return said.err if code == 4 else said.out

    return run


Judge = Callable[..., str]


def told(judge: Judge, *arguments: str, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(judge("--format", "json", *arguments, code=code))
    return found


def test_strict_takes_nothing_that_is_unproven(shelf: Shelf, judge: Judge) -> None:
    shelf.session(21)
    assert told(judge)["unproven"] == ["client: not seen"]
    assert told(judge, "--strict", code=6)["exit_code"] == 6
    assert "unproven: client: not seen" in judge()


def test_a_clean_night_does_not_fail(shelf: Shelf, judge: Judge) -> None:
    run = shelf.session(21)
    said = told(judge)
    assert said["run_id"] == run
    assert said["nights_before"] == 0
    assert {cell["verdict"] for cell in said["cells"].values()} <= {"PASS", "INCONCLUSIVE"}
    assert len(said["tests"]) == 2 * 4
    assert "run again" not in judge()


def test_a_slow_night_asks_for_more_runs_and_fails_with_them(shelf: Shelf, judge: Judge) -> None:
    shelf.session(21, slower=0.06)
    first = told(judge)
    assert first["again"] == [PD, DP]
    assert {cell["verdict"] for cell in first["cells"].values()} == {"INCONCLUSIVE"}
    assert "run again" in judge()
    shelf.session(21, slower=0.06, repeats=4)
    said = told(judge, code=1)
    assert {cell["verdict"] for cell in said["cells"].values()} == {"FAIL"}
    assert said["again"] == []
    text = judge(code=1)
    assert f"FAIL: dp, {CELL}, p5-efa" in text
    assert "(4 runs; found by: tonight; p = " in text
    (test,) = [t for t in said["tests"] if (t["cell"], t["metric"]) == (DP, "output_throughput")]
    assert test["shift"] == pytest.approx(0.058, abs=0.01)
    assert test["fired"] == ["tonight"]


@pytest.mark.parametrize(("slower", "code"), [(0.0, 0), (0.40, 1)])
def test_one_run_that_is_half_as_slow_again_fails_after_few_nights(
    slower: float,
    code: int,
    tmp_path: Path,
    make_record: Callable[..., Record],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    young = Shelf(folder=tmp_path, make_record=make_record)
    young.nights(3, cells=("dp",))
    assert main(["baseline", "propose", "--system", "p5-efa"]) == 0
    assert main(["baseline", "accept", "--system", "p5-efa", "--approver", "Ada"]) == 0
    young.session(4, slower=slower, cells=("dp",))
    capsys.readouterr()
    assert main(["judge", "--system", "p5-efa"]) == code
    text = capsys.readouterr().out
    said = re.search(
        r"mean_itl_ms \S+ ms, reference \S+ ms \(3 nights\): \+4\S+ more than 25%", text
    )
    assert bool(said) is bool(code)


def test_repeats_on_one_start_confirm_nothing(shelf: Shelf, judge: Judge) -> None:
    shelf.session(21, slower=0.06, repeats=3, restarts=False)
    said = told(judge)
    assert {cell["verdict"] for cell in said["cells"].values()} == {"INCONCLUSIVE"}
    assert {test["runs"] for test in said["tests"]} == {1}
    assert said["again"] == [PD, DP]
    shelf.session(21, slower=0.06, repeats=3)
    assert {test["runs"] for test in told(judge, code=1)["tests"]} == {3}


def test_limits_are_for_all_runs_of_a_start(shelf: Shelf, judge: Judge) -> None:
    run = shelf.session(21, repeats=2, restarts=False)
    path = shelf.runs / run / "dp" / f"{CELL}.1.record.json"
    record = json.loads(path.read_text())
    del record["metrics"]["completed"]
    write_json(path, record)
    (miss,) = told(judge, code=1)["cells"][DP]["misses"]
    assert miss == "completed is in the baseline, but 1 of 2 runs lack it"


def test_windows_look_at_the_nights_before_the_one_that_is_judged(
    shelf: Shelf, judge: Judge
) -> None:
    nights = shelf.nights(7, first=21, slower=0.017)
    assert told(judge, nights[0])["nights_before"] == 0
    said = told(judge, nights[-1], code=1)
    assert said["nights_before"] == 6
    fired = {part for test in said["tests"] for part in test["fired"]}
    assert "window of 7" in fired


def test_an_invalid_cell_is_no_pass(shelf: Shelf, judge: Judge) -> None:
    shelf.session(21, cells=("dp",))
    shelf.session(21, cells=("1p3d",), findings=(INVALID,))
    for partial in ((), ("--partial",)):
        said = told(judge, *partial, code=7)
        assert said["cells"][PD] == {
            "verdict": "ERROR",
            "misses": ["invalid: completed: 3 of 4 requests completed"],
        }
        assert said["invalid"] == [PD]
        assert said["not_measured"] == said["unreadable"] == []
        assert said["exit_code"] == 7
        assert {test["cell"] for test in said["tests"]} == {DP}
    text = judge(code=7)
    assert f"ERROR: 1p3d, {CELL}, p5-efa\n  invalid: completed: 3 of 4 requests completed" in text


def test_cells_of_the_baseline_without_a_run_are_named(shelf: Shelf, judge: Judge) -> None:
    shelf.session(21, cells=("dp",))
    said = told(judge, code=6)
    assert said["not_measured"] == [PD]
    assert {cell["verdict"] for cell in said["cells"].values()} == {"PASS"}
    assert f"not measured: {PD}\n" in judge(code=6)
    assert told(judge, "--partial")["not_measured"] == [PD]
    assert f"not measured: {PD}\n" in judge("--partial")


def torn(shelf: Shelf, run: str, pattern: str) -> list[Path]:
    """Records of a session that a full disk left, say."""
    found = sorted((shelf.runs / run).glob(pattern))
    for path in found:
        path.write_text(path.read_text()[:-40])
    return [path.relative_to(shelf.folder) for path in found]


@pytest.mark.parametrize("pattern", ["1p3d/*.json", "1p3d/*.1.record.json"])
def test_a_record_that_cannot_be_read_is_no_pass(pattern: str, shelf: Shelf, judge: Judge) -> None:
    paths = torn(shelf, shelf.session(21, repeats=2), pattern)
    for partial in ((), ("--partial",)):
        said = told(judge, *partial, code=6)
        assert [why.split(" is no valid JSON: ")[0] for why in said["unreadable"]] == [
            str(path) for path in paths
        ]
        assert said["invalid"] == []
    assert f"unreadable: {paths[0]} is no valid JSON: " in judge(code=6)


def test_what_cannot_be_judged_hides_no_fail(shelf: Shelf, judge: Judge) -> None:
    run = shelf.session(21, slower=0.06, repeats=3)
    torn(shelf, run, "1p3d/*.json")
    said = told(judge, code=1)
    assert said["exit_code"] == 1
    assert len(said["unreadable"]) == 3


def test_the_night_before_is_not_judged_in_stead_of_one_that_cannot_be_read(
    shelf: Shelf, judge: Judge
) -> None:
    shelf.session(21)
    run = shelf.session(22)
    paths = torn(shelf, run, "*/*.json")
    for named in ((), (run,)):
        said = judge(*named, code=4)
        assert f"{Path('runs') / run}: none of its 2 records can be read" in said
        assert f"the first: {paths[0]} is no valid JSON: " in said
        assert said.count("\n") == 1


def began(shelf: Shelf, name: str, system: str = "p5-efa") -> None:
    """Have a session of *system* begin on the day and hour that *name* begins with."""
    moment = datetime.strptime(name[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    session = SessionRef(id=name, started_at=utc_text(moment))
    path = shelf.runs / name / SESSION_FILE
    write_json(path, SESSION.dump(StoredRef(session=session, system=system), path))


@pytest.mark.parametrize("name", ["20261122T220000-p5-efa", "20261122T220000-p5-efa-2"])
def test_nor_of_one_that_left_no_record(name: str, shelf: Shelf, judge: Judge) -> None:
    before = shelf.session(21)
    began(shelf, name)
    (shelf.runs / name / "dp" / "logs").mkdir(parents=True)
    for named in ((), (name,)):
        said = judge(*named, code=4)
        assert f"{Path('runs') / name} holds no records of 'p5-efa': that session measured" in said
    assert told(judge, before)["run_id"] == before


def test_folders_of_others_are_no_newer_session(shelf: Shelf, judge: Judge) -> None:
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
    assert told(judge)["run_id"] == run


def test_the_newest_session_alone_is_read(shelf: Shelf, judge: Judge) -> None:
    torn(shelf, shelf.session(21), "dp/*.json")
    shelf.session(22)
    assert told(judge)["unreadable"] == []


def test_what_it_ends_with_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["judge", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "Exit codes: 0 OK, 1 FAIL, 2 INTERRUPTED, 3 FAULT OF PDSERVE, 4 BAD INPUT, 6 NOT JUDGED, "
        "7 ERROR" in said
    )
    assert "--partial Accept that cells of the baseline have no run" in said


def test_a_metric_that_is_missing_fails_by_name(shelf: Shelf, judge: Judge) -> None:
    run = shelf.session(21)
    path = shelf.runs / run / "dp" / f"{CELL}.0.record.json"
    record = json.loads(path.read_text())
    del record["metrics"]["mean_itl_ms"]
    write_json(path, record)
    said = told(judge, code=1)
    assert said["cells"][DP]["misses"][0] == (
        "mean_itl_ms is in the baseline, but 1 of 1 runs lack it"
    )
    (test,) = [t for t in said["tests"] if (t["cell"], t["metric"]) == (DP, "mean_itl_ms")]
    assert (test["status"], test["runs"]) == ("INCONCLUSIVE", 0)


def test_without_a_baseline_no_cell_is_judged(shelf: Shelf, judge: Judge) -> None:
    path = shelf.folder / "baselines" / "p5-efa" / "sweep.json"
    path.unlink()
    shelf.session(21)
    text = judge(code=6)
    assert (
        f"NOT JUDGED: 1p3d, {CELL}, p5-efa\n  no latency or throughput of this cell has a " in text
    )
    assert f"{path.name}, which does not exist)" in text
    assert "baseline  none" in text


def test_the_hardware_must_be_the_baselines(shelf: Shelf, judge: Judge) -> None:
    shelf.session(21, fingerprint="ffffffffffff")
    said = judge(code=4)
    assert "was recorded on another host or system file (fingerprint 0123456789ab" in said
    path = shelf.folder / "baselines" / "p5-efa" / "sweep.json"
    baseline = load_baseline(path, system=shelf.system, suite="sweep")
    assert baseline is not None
    assert baseline.provenance is not None
    assert baseline.provenance.fingerprint == "0123456789ab"


def test_what_was_never_stored_is_refused(shelf: Shelf, judge: Judge) -> None:
    shelf.session(21)
    assert "holds no records of 'p5-efa'" in judge("20260101T000000-p5-efa", code=4)
    assert "none holds no records of 'p5-efa'; make some" in judge("--runs", "none", code=4)


def test_a_calibration_is_believed(shelf: Shelf, judge: Judge) -> None:
    assert all(icc >= 0.2 for icc in told(judge)["icc"].values())
    for day in range(1, 21):
        shelf.session(day, 23)
    assert main(["calibrate", "--system", "p5-efa"]) == 0
    shelf.session(22)
    judge()
    calibration = json.loads(
        (shelf.folder / "baselines" / "p5-efa" / "calibration.json").read_text()
    )
    assert set(told(judge)["icc"].values()) == {calibration["icc"]} != {0.2}


def test_a_calibration_of_other_hardware_is_not_believed(shelf: Shelf, judge: Judge) -> None:
    for day in range(1, 21):
        shelf.session(day, 23)
    assert main(["calibrate", "--system", "p5-efa"]) == 0
    path = shelf.folder / "baselines" / "p5-efa" / "calibration.json"
    path.write_text(path.read_text().replace("0123456789ab", "ffffffffffff"))
    shelf.session(22)
    said = judge(code=4)
    assert said.startswith(f"pdserve: {path} was made on another host or system file (fingerprint")
    assert said.count("\n") == 1


def wrecked(shelf: Shelf, day: int) -> str:
    """A session of which nothing can be read, not even which system it measured."""
    run = shelf.session(day)
    torn(shelf, run, "*/*.record.json")
    (shelf.runs / run / SESSION_FILE).write_text("{")
    return run


def test_a_session_that_says_nothing_of_itself_is_not_passed_over(
    shelf: Shelf, judge: Judge
) -> None:
    run = wrecked(shelf, 22)
    said = judge(code=4)
    assert f"{run}: nothing of this session can be read, so it cannot be judged: " in said
    assert "session.json is no valid JSON" in said
    assert f"{run}: none of its 2 records can be read" in judge(run, code=4)


def test_a_wreck_of_long_ago_is_no_newer_session(shelf: Shelf, judge: Judge) -> None:
    run = wrecked(shelf, 1)
    os.utime(shelf.runs / run, (0, 0))
    judge()


def test_a_torn_session_file_loses_no_record(shelf: Shelf, judge: Judge) -> None:
    run = shelf.session(22)
    (shelf.runs / run / SESSION_FILE).write_text("{")
    assert told(judge)["run_id"] == run
