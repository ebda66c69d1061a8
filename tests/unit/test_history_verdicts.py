"""Verdicts in a history: nights that FAILed stay out of proposals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.history.files import value_paths
from pytest_pdserve.history.store import Store
from pytest_pdserve.history.stored_sessions import sessions_of_history
from pytest_pdserve.report.writing import write_report
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.store import SESSION_FILE
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.report import VerdictReport
from pytest_pdserve.values.sessions import SessionRef
from tests.support.history_shelf import imported
from tests.support.reports import cell
from tests.support.reports import report_of
from tests.support.said import said_by
from tests.support.stored_nights import SHORT
from tests.support.stored_nights import Shelf

PROPOSE = ("baseline", "propose", "--system", "p5-efa")


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return Shelf(folder=tmp_path, make_record=make_record)


def said_of(shelf: Shelf, run_id: str, *verdicts: VerdictReport, ended: bool = True) -> None:
    """Write the report of a stored session."""
    session = json.loads((shelf.runs / run_id / SESSION_FILE).read_text())["session"]
    report = report_of(*verdicts, session=msgspec.convert(session, SessionRef), ended=ended)
    write_report(report, shelf.runs / run_id / "report.json", "json")


def verdict(topology: str, status: str, kind: str = "cell") -> VerdictReport:
    workload = SHORT.id if kind == "cell" else None
    return cell(kind=kind, status=status, topologies=(topology,), workload=workload, metrics=())


def proposed(shelf: Shelf) -> dict[str, list[str]]:
    """Sessions of the proposal by topology."""
    path = shelf.folder / "baselines" / "p5-efa" / "sweep.proposal.json"
    found = load_baseline(path, system=shelf.system)
    assert found is not None
    return {
        topology: [night.session for cell in there.values() for night in cell.nights]
        for topology, there in found.cells.items()
    }


def without_verdicts(store: Store) -> None:
    """Make every file as versions wrote it that kept no verdicts."""
    for path in value_paths(store.folder):
        table = pq.read_table(path)
        footer = json.loads(table.schema.metadata[b"pdserve"])
        for entry in footer["sessions"]:
            del entry["judged"], entry["form"]
        old = table.drop_columns(["verdict", "seats"])
        pq.write_table(old.replace_schema_metadata({b"pdserve": json.dumps(footer)}), path)


def test_each_cell_has_the_verdict_of_its_sessions_report(shelf: Shelf) -> None:
    run_id = shelf.session(1)
    said_of(shelf, run_id, verdict("1p3d", "FAIL"), verdict("dp", "PASS"))
    store, _ = imported(shelf)
    values = store.values()
    assert values.groupby("topology")["verdict"].unique().map(list).to_dict() == {
        "1p3d": ["FAIL"],
        "dp": ["PASS"],
    }
    (session,) = sessions_of_history(store, "p5-efa", 1).sessions
    assert session.verdicts == {("1p3d", SHORT.id): "FAIL", ("dp", SHORT.id): "PASS"}


def test_a_cell_of_a_topology_that_failed_as_a_whole_is_told_apart(shelf: Shelf) -> None:
    run_id = shelf.session(1, cells=("dp",))
    said_of(shelf, run_id, verdict("dp", "PASS"), verdict("dp", "FAIL", kind="topology"))
    assert set(imported(shelf)[0].values()["verdict"]) == {"TOPOLOGY FAIL"}


@pytest.mark.parametrize("ended", [True, False], ids=["no report", "did not end"])
def test_a_session_without_a_report_has_unknown_verdicts(shelf: Shelf, *, ended: bool) -> None:
    run_id = shelf.session(1)
    if not ended:
        said_of(shelf, run_id, verdict("dp", "PASS"), ended=False)
    store, _ = imported(shelf)
    assert set(store.values()["verdict"]) == {""}
    (session,) = sessions_of_history(store, "p5-efa", 1).sessions
    assert session.verdicts is None


def test_nights_that_failed_stay_out_of_a_proposal_and_are_named(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    nights = shelf.nights(4)
    for run_id in nights:
        status = "FAIL" if run_id == nights[3] else "PASS"
        said_of(shelf, run_id, verdict("1p3d", status), verdict("dp", "PASS"))
    imported(shelf)
    for run_id in nights[:3]:
        (shelf.runs / run_id).rename(shelf.folder / run_id)  # the rest is read from its run folder
    assert main([*PROPOSE, "--history", "history"]) == 0
    assert proposed(shelf) == {"1p3d": nights[:3], "dp": nights}
    said = said_by(capsys).out
    assert f"  left out: FAIL: {nights[3]}: 1 of 2 cells\n" in said
    assert "unknown" not in said
    assert main([*PROPOSE, "--history", "history", "--with-failed"]) == 0
    assert proposed(shelf) == {"1p3d": nights, "dp": nights}


def test_a_level_that_failed_every_night_is_taken_only_by_its_option(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = shelf.session(1)
    said_of(shelf, run_id, verdict("1p3d", "FAIL"), verdict("dp", "FAIL"))
    imported(shelf)
    assert main([*PROPOSE, "--history", "history"]) == 4
    assert said_by(capsys).err == (
        "pdserve: every session that could be taken FAILed (vllm 0.15.1, nixl 0.10.1, client "
        "vllm-command, fingerprint 0123456789ab): to accept the level of such nights, give "
        "--with-failed\n"
    )
    assert main([*PROPOSE, "--with-failed"]) == 4
    assert "--with-failed without --history has no effect" in said_by(capsys).err
    assert main([*PROPOSE, "--history", "history", run_id]) == 0  # it is named


def test_a_store_without_verdicts_opens_and_says_what_is_unknown(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    nights = shelf.nights(3)
    store, _ = imported(shelf)
    before = store.values()
    without_verdicts(store)
    opened = Store.open(store.folder)
    assert (
        opened.values()
        .drop(columns=["verdict", "seats"])
        .equals(before.drop(columns=["verdict", "seats"]))
    )
    assert opened.unreadable == []
    assert main([*PROPOSE, "--history", "history"]) == 0
    assert proposed(shelf)["dp"] == nights
    assert (
        "  verdicts unknown of 3 of 3 sessions, which are used: they left no report, or an older "
        "version imported them\n"
    ) in said_by(capsys).out


def test_an_older_store_learns_verdicts_where_the_run_folders_still_exist(shelf: Shelf) -> None:
    nights = shelf.nights(3)
    for run_id in nights:
        said_of(shelf, run_id, verdict("1p3d", "PASS"), verdict("dp", "PASS"))
    store, _ = imported(shelf)
    without_verdicts(store)
    again, said = imported(shelf)
    assert [each.path is not None for each in said] == [True] * 3
    assert len(again.values()) == 3 * 2 * 6
    assert set(again.values()["verdict"]) == {"PASS"}


def test_a_report_that_is_written_after_an_import_is_imported_too(shelf: Shelf) -> None:
    run_id = shelf.session(1, cells=("dp",))
    imported(shelf)
    said_of(shelf, run_id, verdict("dp", "FAIL"))
    store, _ = imported(shelf)
    assert set(store.values()["verdict"]) == {"FAIL"}


def test_a_torn_report_is_named_and_the_values_are_imported(shelf: Shelf) -> None:
    run_id = shelf.session(1)
    report = shelf.runs / run_id / "report.json"
    report.write_text("{")
    store, (said,) = imported(shelf)
    assert len(store.values()) == 2 * 6
    assert [each.startswith(f"{report} is not valid JSON") for each in said.unreadable] == [True]
