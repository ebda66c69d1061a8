"""``pdserve show``: stored sessions as tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.report.cells import cell_table
from pytest_pdserve.report.cells import finding_lines
from pytest_pdserve.results.kinds import RECORD
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.store import create_import
from pytest_pdserve.session.cell import Cell
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.workload import Workload
from tests.support.said import said_by

MakeRecord = Callable[..., Record]
LATE = Finding(check="client", severity="invalid", message="sent late")
NOTE = Finding(check="router", severity="note", message="the router retried")
RULE = "─"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, in which commands run."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(project: Path) -> RunStore:
    """A session of 10 March."""
    return create_import(project / "runs", "p5-efa", datetime(2026, 3, 10, 10, 15, tzinfo=UTC))


def write(store: RunStore, record: Record) -> None:
    record = replace(record, session=store.session)
    path = Path(f"{store.stem(record.topology, record.workload, record.repeat)}.record.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(RECORD.dump(record, path)))


def cells(store: RunStore, make_record: MakeRecord) -> None:
    """Write a cell of two runs, an invalid run of it, and a cell that is valid."""
    for repeat, ttft in enumerate((100.0, 120.0)):
        write(store, make_record({"mean_ttft_ms": ttft}, repeat=repeat))
    write(store, make_record(repeat=2, findings=(LATE,)))
    longer = Workload(input_len=1024, output_len=256, num_prompts=4)
    write(store, make_record(workload=longer, findings=(NOTE,)))


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if RULE not in line]


def test_a_session_is_a_table_of_what_was_measured_and_found(
    store: RunStore, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    cells(store, make_record)
    assert main(["show"]) == 0
    assert lines(said_by(capsys).out) == [
        "20260310T101500-p5-efa-imported, system p5-efa, 2026-03-10T10:15:00.000Z, vllm 0.15.1, "
        "nixl 0.10.1",
        "all workloads: random, n4",
        "                        TTFT   p99 TTFT    ITL   TPOT   output",
        " topology   workload      ms         ms     ms     ms    tok/s   validity",
        " 1p3d       1024-256   100.0      180.0   10.0      -    500.0   valid",
        " 1p3d       512-256    110.0      180.0   10.0      -    500.0   unproven, 2 runs",
        " 1p3d       512-256    100.0      180.0   10.0      -    500.0   invalid",
        "invalid: sent late [1p3d 512-256]",
        "unproven: not seen [1p3d 512-256]",
        "note: the router retried [1p3d 1024-256]",
    ]


def test_the_table_is_that_of_the_terminal(make_record: MakeRecord) -> None:
    row = (Cell(records=(make_record(),), paths=()), "PASS")
    assert lines("\n".join(cell_table([row]))) == [
        "                                 TTFT   p99 TTFT    ITL   TPOT   output",
        " topology   workload               ms         ms     ms     ms    tok/s   verdict",
        " 1p3d       random-512-256-n4   100.0      180.0   10.0      -    500.0   PASS",
    ]


def test_what_the_usual_columns_do_not_say_has_columns_of_its_own(
    store: RunStore, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    record = make_record()
    metrics = {"p50_ttft_ms": 90.0, "mean_e2el_ms": 2000.0, "p50_e2el_ms": 1900.0}
    write(store, replace(record, metrics=metrics))
    assert main(["show"]) == 0
    (heading,) = [line for line in said_by(capsys).out.splitlines() if "p99 TTFT" in line]
    assert heading.split("output")[1].split("   ") == ["", "p50 TTFT", "mean E2EL"]


def test_several_sessions_are_a_table_each_in_the_order_asked(
    store: RunStore, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    later = create_import(store.folder.parent, "p5-efa", datetime(2026, 3, 11, tzinfo=UTC))
    for each in (store, later):
        write(each, make_record(repeat=0))
    names = [later.session.id, store.session.id]
    assert main(["show", *names]) == 0
    tables = said_by(capsys).out.split("\n\n")
    assert [table.partition(",")[0] for table in tables] == names


def test_the_newest_session_is_shown_and_torn_ones_are_passed_over(
    store: RunStore, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    write(store, make_record())
    torn = create_import(store.folder.parent, "p5-efa", datetime(2026, 3, 12, tzinfo=UTC))
    assert main(["show"]) == 0
    said = said_by(capsys)
    assert said.out.startswith(store.session.id)
    assert said.err == f"pdserve: skipped {torn.session.id}: it has no record\n"


@pytest.mark.parametrize("simulated", [True, False])
def test_a_simulated_session_says_so(
    store: RunStore,
    make_record: MakeRecord,
    capsys: pytest.CaptureFixture[str],
    *,
    simulated: bool,
) -> None:
    write(store, make_record(simulated=simulated))
    assert main(["show"]) == 0
    assert ("SIMULATED, no server ran" in said_by(capsys).out) is simulated


def test_a_session_of_unknown_date_says_so(
    project: Path, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    write(create_import(project / "runs", "p5-efa", None), make_record(versions={}))
    assert main(["show"]) == 0
    title = said_by(capsys).out.splitlines()[0]
    assert title.endswith("-p5-efa-imported, system p5-efa, date unknown")


def test_json_has_every_run_with_its_metrics_units_and_findings(
    store: RunStore, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    cells(store, make_record)
    assert main(["show", "--format", "json"]) == 0
    (session,) = json.loads(said_by(capsys).out)
    assert (session["run_id"], session["night"]) == (store.session.id, "2026-03-10")
    assert [run["validity"] for run in session["runs"]] == [
        *("valid", "unproven", "unproven", "invalid")
    ]
    assert session["runs"][1]["metrics"]["mean_ttft_ms"] == 100.0
    assert session["units"]["mean_ttft_ms"] == "ms"
    assert session["runs"][3]["findings"] == [
        {"check": "client", "severity": "invalid", "message": "sent late"}
    ]


def test_a_voided_metric_is_not_shown(
    store: RunStore, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    void = replace(NOTE, voids=("mean_ttft_ms",))
    write(store, make_record(findings=(void,)))
    assert main(["show", "--format", "json"]) == 0
    (session,) = json.loads(said_by(capsys).out)
    assert session["runs"][0]["metrics"]["mean_ttft_ms"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "RUN 'nope': expected the name of a folder in {runs}"),
        (["../x"], "RUN '../x': expected the name of a folder in {runs}"),
        ([".."], "RUN '..': expected the name of a folder in {runs}"),
        (["/etc"], "RUN '/etc': expected the name of a folder in {runs}"),
        ([""], "RUN '': expected the name of a folder in {runs}"),
        (["notes"], "{runs}/notes has no readable session"),
        (
            ["--system", "local-cpu"],
            "{runs} holds no session of 'local-cpu' with a record; name another folder with --runs",
        ),
        (
            ["--system", "local-cpu", "20260310T101500-p5-efa-imported"],
            "{runs}/20260310T101500-p5-efa-imported is of system 'p5-efa', not of 'local-cpu'",
        ),
        (
            ["20260310T101500-p5-efa-imported"],
            "{runs}/20260310T101500-p5-efa-imported has no readable record",
        ),
    ],
    ids=[
        *("missing", "a path", "the folder above", "absolute", "no name", "no session"),
        *("none of a system", "of another system", "no record"),
    ],
)
def test_what_is_no_session_is_one_sentence(
    store: RunStore, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    runs = store.folder.parent
    (runs / "notes").mkdir()
    assert main(["show", *arguments]) == 4
    assert said_by(capsys).err == f"pdserve: {message.format(runs=runs)}\n"


def test_nothing_is_judged_and_nothing_is_written(
    store: RunStore, make_record: MakeRecord, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells(store, make_record)
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    assert main(["show"]) == 0
    words: Any = said_by(capsys).out
    assert not [word for word in ("PASS", "FAIL", "NEW", "SUSPICIOUS") if word in words]
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before


def test_findings_that_differ_in_numbers_are_one_line_with_the_cells(
    make_record: MakeRecord,
) -> None:
    def of(input_len: int, message: str) -> Cell:
        workload = Workload(input_len=input_len, output_len=256, num_prompts=4)
        finding = replace(NOTE, message=message)
        return Cell(records=(make_record(workload=workload, findings=(finding,)),), paths=())

    given = {512: "3 retries", 1024: "7 retries", 2048: "3 retries", 4096: "none"}
    assert finding_lines([of(*each) for each in given.items()], severities=("note",)) == [
        "note: 3 to 7 retries [1p3d 512-256, 1p3d 1024-256, 1p3d 2048-256]",
        "note: none [1p3d 4096-256]",
    ]
