"""The history's store: what is imported is read again, whatever else happens to its folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pytest_pdserve.history.compaction import compact
from pytest_pdserve.history.exclusions import add_exclusion
from pytest_pdserve.history.store import Store
from pytest_pdserve.history.stored_sessions import sessions_of_history
from pytest_pdserve.results.history import stored_sessions
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from tests.support.history_shelf import CELL_VALUES
from tests.support.history_shelf import files_of
from tests.support.history_shelf import imported
from tests.support.stored_nights import INVALID
from tests.support.stored_nights import LONG
from tests.support.stored_nights import SHORT
from tests.support.stored_nights import Shelf

SOUND: dict[str, Any] = {"findings": ()}
UNPROVEN = Finding(check="client", severity="unproven", message="not seen")
VOID = Finding(check="chunks", severity="unproven", message="32 in 6", voids=("mean_itl_ms",))


@pytest.fixture
def shelf(tmp_path: Path, make_record: Callable[..., Record]) -> Shelf:
    return Shelf(folder=tmp_path, make_record=make_record)


def test_every_value_of_every_run_is_read_again(shelf: Shelf) -> None:
    shelf.session(1, workloads=(SHORT, LONG), repeats=2, **SOUND)
    store, _ = imported(shelf)
    values = store.values()
    (session,) = stored_sessions(shelf.runs, system="p5-efa", unreadable=[])
    stored = {
        (r.topology, r.workload.id, r.start, r.repeat, name): value
        for r in session.records
        for name, value in r.metrics.items()
    }
    keys = ["topology", "workload", "start", "repeat", "metric"]
    assert values.set_index(keys)["value"].to_dict() == stored
    assert set(values["night"]) == {pd.Timestamp("2026-11-01", tz="UTC")}
    assert set(values["status"]) == {"valid"}


@pytest.mark.parametrize(
    ("findings", "status", "of_itl", "reason"),
    [
        ((), "valid", "valid", ""),
        ((UNPROVEN,), "unproven", "unproven", "not seen"),
        ((INVALID, VOID), "invalid", "invalid", INVALID.message),
        ((VOID,), "unproven", "voided", "32 in 6"),
    ],
    ids=["valid", "unproven", "invalid", "voided"],
)
def test_a_value_has_the_status_that_sanity_gave_it(
    findings: tuple[Finding, ...], status: str, of_itl: str, reason: str, shelf: Shelf
) -> None:
    shelf.session(1, cells=("dp",), findings=findings)
    values = imported(shelf)[0].values().set_index("metric")
    assert values.loc["mean_ttft_ms", "status"] == status
    assert values.loc["mean_itl_ms", "status"] == of_itl
    assert values.loc["mean_itl_ms", "reason"] == reason


@pytest.mark.parametrize("wanted", [{"topology": "dp"}, {"metric": "mean_itl_ms"}])
def test_only_what_is_asked_for_is_read(wanted: dict[str, str], shelf: Shelf) -> None:
    shelf.nights(3, **SOUND)
    store, _ = imported(shelf)
    (name, value), every = next(iter(wanted.items())), store.values()
    found = store.values(**wanted)
    assert set(found[name]) == {value}
    assert len(found) == int((every[name] == value).sum()) > 0


def test_a_session_imported_twice_is_stored_once(shelf: Shelf) -> None:
    shelf.nights(3)
    store, _ = imported(shelf)
    before = files_of(store)
    again, said = imported(shelf)
    assert files_of(again) == before
    assert [each.path for each in said] == [None] * 3


def test_a_session_that_grew_since_is_stored_anew_and_counts_once(shelf: Shelf) -> None:
    shelf.session(1, cells=("dp",))
    imported(shelf)
    shelf.session(1, cells=("dp", "1p3d"))
    store, _ = imported(shelf)
    assert len(files_of(store)) == 2
    assert len(store.values()) == 2 * CELL_VALUES
    assert list(store.sessions()["unproven"]) == [2]


def test_sessions_of_two_systems_under_one_id_are_two(shelf: Shelf) -> None:
    run_id = shelf.session(1)
    other = Shelf(folder=shelf.folder / "other", make_record=shelf.make_record)
    other.session(1, system="onehost")
    imported(shelf)
    store, _ = imported(other, shelf.folder / "history")
    assert list(store.sessions()["session"]) == [run_id, run_id]
    assert set(store.values(system="onehost")["system"]) == {"onehost"}


def test_a_night_is_counted_back_from_the_newest_as_verdicts_count_it(shelf: Shelf) -> None:
    for day, hour in ((1, 23), (3, 0), (4, 0)):  # late, then after midnight
        shelf.session(day, hour)
    nights = imported(shelf)[0].sessions()["night"]
    assert [f"{night:%m-%d}" for night in nights] == ["11-02", "11-03", "11-04"]


def test_a_session_without_a_date_is_a_night_that_is_not_known(shelf: Shelf) -> None:
    shelf.session(1, session=SessionRef(id="20261101T220000-p5-efa"))
    store, _ = imported(shelf)
    assert store.sessions()["night"].isna().all()
    assert store.values()["night"].isna().all()


# Files that are torn.


@pytest.mark.parametrize("keep", [0, 4, 200, -1], ids=["empty", "magic", "half", "all but one"])
def test_a_torn_file_is_named_and_the_others_are_read(keep: int, shelf: Shelf) -> None:
    shelf.nights(3)
    store, said = imported(shelf)
    torn = said[1].path
    assert torn is not None
    torn.write_bytes(torn.read_bytes()[:keep])
    opened = Store.open(store.folder)
    assert len(opened.values()) == 2 * 2 * CELL_VALUES
    (sentence,) = opened.unreadable
    assert sentence.startswith(f"{torn} is damaged: ")


def test_a_file_whose_values_are_damaged_is_named_and_the_others_are_read(shelf: Shelf) -> None:
    shelf.nights(3)
    store, said = imported(shelf)
    torn = said[1].path
    assert torn is not None
    whole = torn.read_bytes()
    torn.write_bytes(whole[:4] + b"\xff" * 600 + whole[604:])
    opened = Store.open(store.folder)
    assert len(opened.values()) == 2 * 2 * CELL_VALUES
    assert [str(torn) in sentence for sentence in opened.unreadable] == [True]


def test_what_a_cut_off_write_left_is_named_and_not_read(shelf: Shelf) -> None:
    shelf.session(1)
    store, said = imported(shelf)
    path = said[0].path
    assert path is not None
    left = path.with_name(f".{path.name}.77.partial")
    left.write_bytes(path.read_bytes()[:100])
    opened = Store.open(store.folder)
    assert len(opened.values()) == 2 * CELL_VALUES
    assert opened.unreadable == [
        f"{left} is not read: it is of an interrupted write, or is being written now"
    ]


def test_a_torn_session_is_whole_after_it_is_imported_again(shelf: Shelf) -> None:
    shelf.nights(2)
    _, said = imported(shelf)
    path = said[0].path
    assert path is not None
    path.write_bytes(b"")
    store, _ = imported(shelf)
    assert len(store.values()) == 2 * 2 * CELL_VALUES


def test_a_parquet_file_of_another_program_is_named(shelf: Shelf) -> None:
    shelf.session(1)
    store, said = imported(shelf)
    assert said[0].path is not None
    other = said[0].path.with_name("other.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(other)
    opened = Store.open(store.folder)
    assert len(opened.values()) == 2 * CELL_VALUES
    assert opened.unreadable == [f"{other}: expected a file of a pdserve history"]


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a folder; make it with pdserve history import"):
        Store.open(tmp_path / "none")


# Files that are joined.


def test_joined_files_hold_the_same_values(shelf: Shelf) -> None:
    shelf.nights(5)
    store, _ = imported(shelf)
    before, sessions = store.values(), store.sessions()
    assert compact(store, min_files=5) == 5
    assert len(files_of(store)) == 2  # and the lock
    opened = Store.open(store.folder)
    order = ["session", "topology", "metric"]
    for one, other in ((opened.values(), before), (opened.sessions(), sessions)):
        by = [name for name in order if name in one.columns]
        pd.testing.assert_frame_equal(
            one.sort_values(by, ignore_index=True), other.sort_values(by, ignore_index=True)
        )


def test_a_month_of_few_files_stays_as_it_is(shelf: Shelf) -> None:
    shelf.nights(4)
    store, _ = imported(shelf)
    before = files_of(store)
    assert compact(store, min_files=5) == 0
    assert [name for name in files_of(store) if "lock" not in name] == before


def test_what_was_killed_between_joining_and_removing_is_read_once(shelf: Shelf) -> None:
    shelf.nights(5)
    store, _ = imported(shelf)
    shutil.copytree(store.folder, copy := shelf.folder / "copy")
    compact(store, min_files=5)
    shutil.copytree(store.folder, copy, dirs_exist_ok=True)
    assert len(files_of(Store.open(copy))) == 7
    assert len(Store.open(copy).values()) == 5 * 2 * CELL_VALUES


def test_a_session_that_grew_after_it_was_joined_counts_once(shelf: Shelf) -> None:
    shelf.nights(5, cells=("dp",))
    store, _ = imported(shelf)
    compact(store, min_files=5)
    shelf.session(3, cells=("dp", "1p3d"))
    again, _ = imported(shelf)
    assert len(again.values()) == 6 * CELL_VALUES
    assert compact(again, min_files=2) == 2
    assert len(Store.open(store.folder).values()) == 6 * CELL_VALUES
    assert len(files_of(store)) == 2


def test_a_torn_file_is_not_joined_and_not_removed(shelf: Shelf) -> None:
    shelf.nights(5)
    store, said = imported(shelf)
    torn = said[2].path
    assert torn is not None
    torn.write_bytes(b"PAR1")
    assert compact(store, min_files=5) == 4
    assert torn.exists()


# Exclusions.


def test_an_excluded_session_stays_with_its_reason(shelf: Shelf) -> None:
    first, second = shelf.nights(2)
    store, _ = imported(shelf)
    add_exclusion(store.folder, ("p5-efa", first), "node h04 throttled")
    sessions = store.sessions().set_index("session")
    assert sessions["excluded"].to_dict() == {first: True, second: False}
    values = store.values()
    assert set(values.loc[values["excluded"], "reason"]) == {"node h04 throttled"}
    assert len(values) == 2 * 2 * CELL_VALUES


def test_the_latest_entry_counts_and_no_entry_is_ever_changed(shelf: Shelf) -> None:
    run_id = shelf.session(1)
    store, _ = imported(shelf)
    key = ("p5-efa", run_id)
    moments = [datetime(2026, 11, day, tzinfo=UTC) for day in (3, 1, 2)]
    entries = [
        add_exclusion(store.folder, key, "why", excluded=excluded, now=now)
        for excluded, now in zip((True, False, False), moments, strict=True)
    ]
    assert list(store.sessions()["excluded"]) == [True]
    assert all(path.exists() for path in entries)
    add_exclusion(store.folder, key, "the node is fine", excluded=False)
    assert list(store.sessions()["excluded"]) == [False]


def test_a_torn_exclusion_is_named(shelf: Shelf) -> None:
    run_id = shelf.session(1)
    store, _ = imported(shelf)
    path = add_exclusion(store.folder, ("p5-efa", run_id), "why")
    path.write_text("{")
    assert list(store.sessions()["excluded"]) == [False]
    assert [sentence.startswith(f"{path} is not valid JSON") for sentence in store.unreadable] == [
        True
    ]


# Sessions read back.


def test_recalled_sessions_are_those_of_the_runs_folder(shelf: Shelf) -> None:
    shelf.session(1, repeats=2, findings=(VOID,))
    shelf.session(2, findings=(INVALID,))
    shelf.session(3, **SOUND)
    store, _ = imported(shelf)
    from_history = sessions_of_history(store, "p5-efa", 10).sessions
    stored = list(stored_sessions(shelf.runs, system="p5-efa", unreadable=[]))
    assert [each.run_id for each in from_history] == [each.run_id for each in stored]
    assert [each.night for each in from_history] == [each.night for each in stored]
    for one, other in zip(from_history, stored, strict=True):
        assert [*map(told, one.records)] == [*map(told, other.records)]


def told(record: Record) -> tuple[object, ...]:
    """Return what proposals and verdicts take from a record."""
    invalid, voided = bool(record.invalid), record.voided
    return (
        *(record.topology, record.workload, record.start, record.repeat, record.fingerprint),
        *(record.versions, record.nodes, record.client_kind, record.metrics, invalid, voided),
    )


def test_only_the_newest_sessions_are_recalled_and_no_excluded_one(shelf: Shelf) -> None:
    first, second, third = shelf.nights(3)
    store, _ = imported(shelf)
    add_exclusion(store.folder, ("p5-efa", third), "broken")
    from_history = sessions_of_history(store, "p5-efa", 1)
    assert [each.run_id for each in from_history.sessions] == [second]
    assert from_history.left_out == (f"excluded: {third}: broken",)
    assert from_history.session_ids == {first, second, third}
