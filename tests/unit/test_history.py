"""Which stored sessions are nights before tonight, and which run folders belong to one night."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.history import History
from pytest_pdserve.results.history import one_per_start
from pytest_pdserve.results.history import past_nights
from pytest_pdserve.results.history import starts_of
from pytest_pdserve.results.kinds import SESSION
from pytest_pdserve.results.store import SESSION_FILE
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sessions import StoredRef
from pytest_pdserve.values.sessions import night_of
from tests.support.stored_nights import INVALID
from tests.support.stored_nights import Shelf
from tests.support.stored_nights import write_record


def session(run_id: str, simulated_night: int | None = None) -> SessionRef:
    """The session whose folder has a name as versions give it; one of unknown time otherwise."""
    began = None
    with contextlib.suppress(ValueError):
        began = datetime.strptime(run_id[:15], "%Y%m%dT%H%M%S").strftime("%Y-%m-%dT%H:%M:%SZ")
    return SessionRef(id=run_id, started_at=began, simulated_night=simulated_night)


TONIGHT = session("20261120T220000-p5-efa")


@pytest.fixture
def shelf(tmp_path: Path, make_record: Callable[..., Record]) -> Shelf:
    return Shelf(folder=tmp_path, make_record=make_record)


def past(shelf: Shelf, **given: Any) -> History:
    asked = {"fingerprint": "0123456789ab", "client_kind": "vllm-command", "tonight": TONIGHT}
    asked |= {"cells": (), "per_cell": 6}
    return past_nights(shelf.runs, system="p5-efa", **{**asked, **given})


def days(history: History) -> list[str]:
    """Day of the month on which the first session of each night began, newest first."""
    return [next(iter(night.runs.values()))[0].session.id[6:8] for night in history.nights]


def back(newest: int, oldest: int) -> list[str]:
    """Days of the month, newest first."""
    return [f"{day:02}" for day in range(newest, oldest - 1, -1)]


def test_the_newest_nights_are_the_past_newest_first(shelf: Shelf) -> None:
    shelf.nights(12)
    assert days(past(shelf)) == back(12, 7)


def test_a_night_is_called_by_its_date(shelf: Shelf) -> None:
    shelf.nights(2, first=18)
    assert [night.name for night in past(shelf).nights] == ["2026-11-19", "2026-11-18"]


def test_a_simulated_night_is_called_by_its_number(shelf: Shelf) -> None:
    for night in (0, 1):
        said = SessionRef(id=f"night-{night}", simulated_night=night)
        path = shelf.runs / said.id / SESSION_FILE
        write_json(path, SESSION.dump(StoredRef(session=said, system="p5-efa"), path))
        write_record(shelf.runs / said.id, shelf.make_record(session=said, requests=None))
    tonight = SessionRef(id="tonight", simulated_night=2)
    names = [night.name for night in past(shelf, tonight=tonight).nights]
    assert names == ["simulated night 1", "simulated night 0"]


WORKLOAD = "random-512-256-n4"
FILE = f"{WORKLOAD}.0.record.json"
CELLS = tuple((topology, WORKLOAD) for topology in ("1p3d", "dp"))


def test_topologies_that_take_turns_have_as_many_nights_each(shelf: Shelf) -> None:
    for day in range(1, 20):
        shelf.session(day, cells=("dp",) if day % 3 else ("1p3d",))
    assert len(past(shelf).nights) == 6
    history = past(shelf, cells=CELLS)
    assert days(history) == back(19, 3)
    assert [sum(cell in night.runs for night in history.nights) for cell in CELLS] == [6, 11]


def test_the_night_that_is_enough_is_read_to_its_end(shelf: Shelf) -> None:
    """Its first session is found last, and counts."""
    first = shelf.session(14, 20)
    shelf.session(14, 23)
    shelf.nights(5, first=15)
    (shelf.runs / shelf.session(13) / "dp" / FILE).write_text("{")
    shelf.session(1, cells=("dp",))
    history = past(shelf, cells=CELLS)
    assert days(history) == back(19, 14)
    assert {runs[0].session.id for runs in history.nights[-1].runs.values()} == {first}


def test_what_is_older_than_all_that_is_wanted_is_not_read(shelf: Shelf) -> None:
    for run in shelf.nights(12):
        if run < "20261106":
            (shelf.runs / run / "dp" / FILE).write_text("{")
    assert past(shelf, cells=CELLS).unreadable == ()
    assert past(shelf, cells=CELLS, per_cell=9).unreadable != ()


def test_a_cell_that_nobody_measures_any_more_is_not_looked_for_for_ever(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_pdserve.results.history.MAX_NIGHTS", 8)
    shelf.nights(12)
    shelf.session(11, fingerprint="ffffffffffff")
    gone = ("2p4d", WORKLOAD)
    assert days(past(shelf, cells=[*CELLS, gone])) == ["12", *back(10, 5)]


def test_what_began_after_tonight_is_no_past(shelf: Shelf) -> None:
    shelf.nights(3, first=19)
    assert days(past(shelf)) == ["19"]


def test_sessions_of_tonight_are_no_past(shelf: Shelf) -> None:
    shelf.nights(2, first=18)
    shelf.session(20, 14)
    assert days(past(shelf)) == back(19, 18)


@pytest.mark.parametrize(
    "versions",
    [{"vllm": "0.16.0", "nixl": "0.10.1"}, {"vllm": "0.15.1"}, {}],
    ids=["another vLLM", "an unknown NIXL", "unknown"],
)
def test_nights_of_every_version_are_the_past(versions: dict[str, str], shelf: Shelf) -> None:
    shelf.session(1)
    shelf.session(2, versions=versions)
    assert days(past(shelf)) == ["02", "01"]


@pytest.mark.parametrize(
    "other",
    [{"fingerprint": "ffffffffffff"}, {"system": "p6"}, {"findings": (INVALID,)}],
    ids=["other hardware", "another system", "invalid"],
)
def test_what_is_of_another_kind_is_no_past(other: dict[str, Any], shelf: Shelf) -> None:
    shelf.session(1)
    shelf.session(2, **other)
    assert days(past(shelf)) == ["01"]


def test_a_cell_of_which_a_run_was_invalid_is_left_out(shelf: Shelf) -> None:
    run = shelf.session(1, repeats=2)
    shelf.session(1, cells=("dp",), findings=(INVALID,))
    assert (shelf.runs / run / "dp" / f"{WORKLOAD}.1.record.json").exists()
    (night,) = past(shelf).nights
    assert {topology for topology, _ in night.runs} == {"1p3d"}


def test_of_every_start_the_first_run_counts(shelf: Shelf) -> None:
    shelf.session(1, repeats=3, restarts=False)
    shelf.session(2, repeats=3)
    thrice, once = past(shelf).nights
    assert {tuple(r.repeat for r in runs) for runs in once.runs.values()} == {(0,)}
    assert {tuple(r.repeat for r in runs) for runs in thrice.runs.values()} == {(0, 1, 2)}


def test_runs_are_told_apart_by_the_start_of_their_servers(
    make_record: Callable[..., Record],
) -> None:
    runs = [make_record(repeat=repeat, start=repeat // 2) for repeat in range(4)]
    assert starts_of(runs) == [runs[:2], runs[2:]]
    assert one_per_start(runs) == [runs[0], runs[2]]


def test_a_run_whose_start_is_not_known_is_a_start_by_itself(
    make_record: Callable[..., Record],
) -> None:
    runs = [make_record(repeat=repeat, start=None) for repeat in range(3)]
    assert starts_of(runs) == [[run] for run in runs]
    assert one_per_start([make_record(start=0), *runs]) == [make_record(start=0), *runs]


def test_of_a_night_the_first_session_that_has_a_cell_counts(shelf: Shelf) -> None:
    first = shelf.session(5, cells=("dp",))
    second = shelf.session(6, 3)
    (night,) = past(shelf).nights
    assert night.runs["dp", WORKLOAD][0].session.id == first
    assert night.runs["1p3d", WORKLOAD][0].session.id == second


def test_the_clients_own_result_is_no_record(shelf: Shelf) -> None:
    run = shelf.session(5)
    (shelf.runs / run / "dp" / f"{WORKLOAD}.0.bench.json").write_text("{}")
    (shelf.runs / run / "dp" / "notes.json").write_text("{}")
    history = past(shelf)
    assert days(history) == ["05"]
    assert history.unreadable == ()


def test_a_renamed_folder_is_named_and_left_out(shelf: Shelf) -> None:
    run = shelf.session(5)
    shutil.move(shelf.runs / run, shelf.runs / "old")
    history = past(shelf)
    assert history.nights == ()
    path = shelf.runs / "old" / "1p3d" / FILE
    assert (
        history.unreadable[0]
        == f"{path} is of session {run}, expected {path.parents[1].name}, the name of its folder"
    )


@pytest.mark.parametrize(
    ("name", "day", "found"),
    [("nightly-7", "05", True), ("20261105T220000-p5-efa", "25", False)],
    ids=["a name of its own", "a name of another day"],
)
def test_a_folders_name_does_not_say_when_it_began(
    shelf: Shelf, name: str, day: str, *, found: bool
) -> None:
    said = SessionRef(id=name, started_at=f"2026-11-{day}T22:00:00.000Z")
    path = shelf.runs / name / SESSION_FILE
    write_json(path, SESSION.dump(StoredRef(session=said, system="p5-efa"), path))
    write_record(shelf.runs / name, shelf.make_record(session=said, requests=None))
    history = past(shelf)
    sessions = [next(iter(night.runs.values()))[0].session for night in history.nights]
    assert sessions == [said] * found


def test_a_session_whose_own_file_is_torn_is_told_by_its_records(shelf: Shelf) -> None:
    run = shelf.session(5)
    (shelf.runs / run / SESSION_FILE).write_text("{")
    assert days(past(shelf)) == ["05"]


def test_a_session_that_left_no_record_is_no_night(shelf: Shelf) -> None:
    shelf.session(5, cells=())
    assert past(shelf) == History()


def test_records_of_a_session_of_another_system_are_not_read(shelf: Shelf) -> None:
    run = shelf.session(5)
    path = shelf.runs / run / SESSION_FILE
    write_json(path, SESSION.dump(StoredRef(session=session(run), system="p6"), path))
    (shelf.runs / run / "dp" / FILE).write_text("{")
    assert past(shelf) == History()


def test_without_a_runs_folder_there_is_no_past(shelf: Shelf) -> None:
    assert past(shelf) == History()


@pytest.mark.parametrize(
    ("run", "night"),
    [
        ("20261120T220000-x", "2026-11-20"),
        ("20261120T110000-x", "2026-11-20"),
        ("20261121T093000-x", "2026-11-20"),
        ("20261119T221500-x", "2026-11-19"),
        ("20261119T214500-x", "2026-11-19"),
        ("20261119T093000-x", "2026-11-18"),
        ("night-17", "night-17"),
        ("20269999T000000-x", "20269999T000000-x"),
    ],
)
def test_nights_are_counted_back_in_days(run: str, night: str) -> None:
    assert night_of(session(run), TONIGHT) == night


def test_a_session_is_a_night_of_its_own_where_tonight_has_no_time() -> None:
    assert night_of(session("20261119T221500-x"), session("tonight")) == "20261119T221500-x"


def test_a_nightly_job_near_any_hour_has_a_night_each_day() -> None:
    for hour in range(24):
        late = [
            session(f"202611{day:02}T{hour:02}{5 if day % 2 else 55:02}00-x")
            for day in range(1, 20)
        ]
        assert len({night_of(run, late[-1]) for run in late}) == 19


def test_a_simulated_night_is_the_one_that_was_named() -> None:
    night = [replace(TONIGHT, simulated_night=night) for night in (3, 4)]
    assert night_of(*night) == "simulated night 3"
