"""``pdserve history prune``: arrays and logs go by age and size; records and baselines' stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.history.pruning import named_by_baselines
from pytest_pdserve.history.pruning import plan_pruning
from pytest_pdserve.results.history import stored_sessions
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record
from tests.support.said import said_by
from tests.support.stored_nights import Shelf

NOW = datetime(2026, 11, 28, 22, tzinfo=UTC)
ARRAYS, LOGS = 3000, 5000


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Shelf(folder=tmp_path, make_record=make_record, cells=("dp",))


def night(shelf: Shelf, day: int) -> str:
    """A session with arrays and logs; returns its run id."""
    run_id = shelf.session(day)
    folder = shelf.runs / run_id / "dp"
    (folder / "cell.0.requests.parquet").write_bytes(b"p" * ARRAYS)
    for logs in ("logs", "logs-2"):
        (folder / logs).mkdir()
        (folder / logs / "decode-0.log").write_bytes(b"l" * (LOGS // 2))
    return run_id


def going(shelf: Shelf, *, days: int = 10, max_bytes: int | None = None) -> dict[str, str]:
    planned = plan_pruning(
        shelf.runs,
        named=named_by_baselines([shelf.folder / "baselines"]),
        older_than=timedelta(days=days),
        max_bytes=max_bytes,
        now=NOW,
    )
    return {each.path.name: each.why for each in planned if each.remove}


def test_arrays_and_logs_go_by_age(shelf: Shelf) -> None:
    old, _, _ = (night(shelf, day) for day in (17, 18, 27))
    assert going(shelf) == {old: "older than 10 days"}


def test_the_oldest_go_until_the_folder_is_small_enough(shelf: Shelf) -> None:
    first, second, third = (night(shelf, day) for day in (20, 21, 22))
    size = sum(p.stat().st_size for p in shelf.runs.rglob("*") if p.is_file())
    why = "runs folder larger than --max-size"
    assert going(shelf, days=90, max_bytes=size) == {}
    assert going(shelf, days=90, max_bytes=size - 1) == {first: why}
    assert going(shelf, days=90, max_bytes=size - ARRAYS - LOGS - 1) == {first: why, second: why}
    assert third not in going(shelf, days=90, max_bytes=size - ARRAYS - LOGS - 1)


def test_a_session_of_today_stays_however_large_it_is(shelf: Shelf) -> None:
    night(shelf, 28)
    assert going(shelf, days=1, max_bytes=0) == {}


@pytest.mark.parametrize("name", ["sweep.json", "sweep.proposal.json"])
def test_what_a_baseline_names_stays(name: str, shelf: Shelf) -> None:
    kept, gone = night(shelf, 1), night(shelf, 2)
    path = shelf.folder / "baselines" / "p5-efa" / name
    path.write_text(json.dumps({"sessions": [{"id": kept}]}))
    assert list(going(shelf, max_bytes=0)) == [gone]


def test_nothing_is_planned_while_a_baseline_cannot_be_read(shelf: Shelf) -> None:
    night(shelf, 1)
    (shelf.folder / "baselines" / "p5-efa" / "sweep.json").write_text("{")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        going(shelf)


def test_without_yes_it_is_listed_and_nothing_is_removed(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    old = night(shelf, 1)
    before = sorted(shelf.runs.rglob("*"))
    assert main(["history", "prune", "--older-than", "1"]) == 0
    said = said_by(capsys).out
    assert sorted(shelf.runs.rglob("*")) == before
    assert [line.split()[1] for line in said.splitlines() if " remove " in line] == [old]
    assert said.endswith("nothing was removed; --yes removes it\n")


def test_with_yes_arrays_and_logs_are_gone_and_the_records_are_whole(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = night(shelf, 1)
    before = list(stored_sessions(shelf.runs, system="p5-efa", unreadable=[]))
    assert main(["history", "prune", "--older-than", "1", "--yes"]) == 0
    assert said_by(capsys).out.endswith("of 1 sessions to remove: 7.8 KiB\nremoved\n")
    left = {path.suffix for path in (shelf.runs / run_id).rglob("*") if path.is_file()}
    assert left == {".json"}
    assert list(stored_sessions(shelf.runs, system="p5-efa", unreadable=[])) == before


def test_logs_that_are_a_link_to_elsewhere_are_left_alone(shelf: Shelf) -> None:
    run_id = night(shelf, 1)
    elsewhere = shelf.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.log").write_text("mine")
    (shelf.runs / run_id / "dp" / "logs-3").symlink_to(elsewhere)
    assert main(["history", "prune", "--older-than", "1", "--yes"]) == 0
    assert (elsewhere / "mine.log").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--older-than", "0"), "--older-than 0: expected 1 to 36,500 days"),
        (("--older-than", "nan"), "--older-than nan: expected 1 to 36,500 days"),
        (("--max-size", "-1"), "--max-size -1.0: expected a number of GiB, 0 or more"),
    ],
)
def test_ages_and_sizes_that_cannot_be_are_refused(
    arguments: tuple[str, ...], said: str, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "prune", *arguments]) == 4
    assert said_by(capsys).err == f"pdserve: {said}\n"
