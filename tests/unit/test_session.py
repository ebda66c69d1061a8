"""How a session judges what it measured: by hand-made records, with no server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.local.allocation import LocalAllocation
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.serving.provenance import measured_on
from pytest_pdserve.session.cell import Cell
from pytest_pdserve.session.session import Session
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import Workload
from tests.support.records import SESSION
from tests.support.sessions import CELL
from tests.support.sessions import cell_in
from tests.support.sessions import session_in

MakeRecord = Callable[..., Record]
MakeSession = Callable[..., Session]
MakeCell = Callable[..., Cell]


@pytest.fixture
def make_session(tmp_path: Path, p5_efa: System) -> MakeSession:
    return partial(session_in, tmp_path, p5_efa)


@pytest.fixture
def make_cell(make_record: MakeRecord, tmp_path: Path) -> MakeCell:
    return partial(cell_in, tmp_path, make_record)


def path_of(session: Session) -> Path:
    """The file that the session's nights join."""
    return session.session_judge.path


def cells_of(session: Session) -> dict[str, Any]:
    cells: dict[str, Any] = json.loads(path_of(session).read_text())["cells"]
    return cells


def test_a_cell_without_a_reference_is_new_and_recorded_at_once(
    make_session: MakeSession, make_cell: MakeCell, tmp_path: Path
) -> None:
    session = make_session()
    verdict = session.judge(make_cell())
    path = tmp_path / "baselines" / "p5-efa" / "sweep.json"
    assert (verdict.status, verdict.misses) == ("NEW", ())
    assert dict(verdict.evidence)["reference"] == f"the median of 1 start, recorded in {path}"
    assert session.verdicts == {("1p3d", CELL): verdict}
    (night,) = cells_of(session)["1p3d"][CELL]["nights"]
    assert night["values"]["mean_ttft_ms"] == pytest.approx(100.0)
    assert not (tmp_path / "state").exists()


def test_a_new_cell_is_the_median_of_its_starts(
    make_session: MakeSession, make_record: MakeRecord, tmp_path: Path
) -> None:
    records = tuple(
        make_record({"mean_itl_ms": itl_ms}, start=start)
        for start, itl_ms in enumerate((10.0, 14.0, 11.0))
    )
    session = make_session(first_runs=3)
    verdict = session.judge(Cell(records=records, paths=(tmp_path,) * 3))
    assert dict(verdict.evidence)["reference"].startswith("the median of 3 starts, recorded in ")
    (night,) = cells_of(session)["1p3d"][CELL]["nights"]
    assert (night["starts"], night["values"]["mean_itl_ms"]) == (3, 11.0)


def test_a_cell_that_is_recorded_stays_new_in_its_session(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    session = make_session()
    assert [session.judge(make_cell()).status for _ in range(2)] == ["NEW", "NEW"]
    assert make_session().judge(make_cell()).status == "PASS"


def test_nothing_is_recorded_where_that_is_not_wanted(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    session = make_session(record=False)
    said = dict(session.judge(make_cell()).evidence)["reference"]
    assert said == "the median of 1 start, recorded nowhere (--pdserve-no-record)"
    assert not path_of(session).exists()


def test_a_cell_of_which_every_latency_is_void_becomes_no_reference(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    note = Finding(check="offered", severity="note", message="m", voids=METRICS.latencies)
    session = make_session()
    verdict = session.judge(make_cell(findings=(note,)))
    assert verdict.status == "NOT JUDGED"
    assert verdict.misses == ("every latency is void, so this run cannot become the reference",)
    assert not path_of(session).exists()


def test_a_regression_is_told_with_where_to_look_and_what_to_do(
    make_session: MakeSession, make_record: MakeRecord, tmp_path: Path
) -> None:
    make_session().judge(Cell(records=(make_record(),), paths=(tmp_path,)))
    records = tuple(make_record({"p99_ttft_ms": 540.0}, start=start) for start in range(3))
    paths = tuple(tmp_path / f"{start}.record.json" for start in range(3))
    session = make_session()
    session.provenance = replace(session.provenance, versions={"vllm": "0.15.2", "nixl": "0.10.1"})
    verdict = session.judge(Cell(records=records, paths=paths))
    assert verdict.status == "FAIL"
    assert verdict.message == (
        "p99_ttft_ms 540 ms, reference 180 ms (1 night, provisional): +200 %, limit +160 %. "
        "Confirmed by 3 starts (+200 %). First seen tonight; vLLM 0.15.1 -> 0.15.2 since "
        f"the baseline. [1p3d, {CELL}, p5-efa]\n"
        f"  baseline  {path_of(session)} (vLLM 0.15.1, NIXL 0.10.1)\n"
        f"  record    {tmp_path}/0.record.json\n"
        f"  record    {tmp_path}/1.record.json\n"
        f"  record    {tmp_path}/2.record.json\n"
        '  rerun     pytest suites/sweep --topology 1p3d --system p5-efa -k "1p3d and 512-256"\n'
        "  accept    pdserve baseline propose --system p5-efa"
    )


LATER = SessionRef(id="20260823T101500-p5-efa", started_at="2026-08-23T10:15:00.000Z")


def test_cells_that_pass_join_when_the_session_ends(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    make_session().judge(make_cell())
    session = make_session(session=LATER)
    session.cells["1p3d", CELL] = cell = make_cell(session=LATER)
    assert session.judge(cell).status == "PASS"
    assert len(cells_of(session)["1p3d"][CELL]["nights"]) == 1
    session.close()
    nights = cells_of(session)["1p3d"][CELL]["nights"]
    assert [night["session"] for night in nights] == [SESSION.id, LATER.id]
    assert session.trouble == []


def test_what_was_postponed_and_never_ran_again_is_judged_when_the_session_ends(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    make_session().judge(make_cell())
    session = make_session(session=LATER)
    session.cells["1p3d", CELL] = make_cell({"mean_itl_ms": 20.0}, session=LATER)
    assert session.defer(("1p3d", CELL)) == "mean_itl_ms +100 %, limit +16 %"
    session.close()
    (miss,) = session.verdicts["1p3d", CELL].misses
    said = "Seen in 1 start; it takes 3 to confirm: the session ended before it could run again. "
    assert said in miss
    assert len(cells_of(session)["1p3d"][CELL]["nights"]) == 1


@pytest.mark.parametrize(
    ("first_runs", "starts", "wants"), [(3, 1, True), (3, 3, False), (1, 1, False)]
)
def test_a_new_cell_runs_on_as_many_starts_as_are_asked(
    first_runs: int,
    starts: int,
    make_session: MakeSession,
    make_record: MakeRecord,
    *,
    wants: bool,
) -> None:
    session = make_session(first_runs=first_runs)
    records = tuple(make_record(start=start) for start in range(starts))
    session.cells["1p3d", CELL] = Cell(records=records, paths=())
    assert session.wants_run(("1p3d", CELL)) is wants


def test_a_new_cell_says_how_many_starts_it_has(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    session = make_session(first_runs=3)
    session.cells["1p3d", CELL] = make_cell()
    key = ("1p3d", CELL)
    assert session.defer(key) == "cells without a reference are measured on 3 starts"
    assert session.defer(key) == ""


def test_reruns_of_new_cells_are_not_bounded(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    session = make_session(first_runs=3)
    session.reruns = 1000
    session.cells["1p3d", CELL] = make_cell()
    assert session.wants_run(("1p3d", CELL))


def test_a_host_keeps_its_own_references(
    make_session: MakeSession, make_cell: MakeCell, tmp_path: Path
) -> None:
    session = make_session(host=True)
    assert session.judge(make_cell()).status == "NEW"
    assert path_of(session) == tmp_path / "state" / "baselines" / "p5-efa" / "here" / "sweep.json"
    assert make_session(host=True).judge(make_cell()).status == "PASS"
    assert make_session(host=True, fingerprint="there").judge(make_cell()).status == "NEW"
    assert not (tmp_path / "baselines").exists()


@pytest.mark.parametrize("host", [False, True], ids=["of the system", "of a host"])
def test_a_baseline_of_other_hardware_is_refused(
    make_session: MakeSession, make_cell: MakeCell, *, host: bool
) -> None:
    first = make_session(host=host)
    first.judge(make_cell())
    other = make_session(host=host, fingerprint="there")
    path_of(other).parent.mkdir(parents=True, exist_ok=True)
    path_of(other).write_text(path_of(first).read_text())
    with pytest.raises(ConfigError, match="was measured on another host or with another system"):
        other.session_judge.check_hardware()


@pytest.mark.parametrize(
    ("shared_host", "places"),
    [(False, [2, 3, 0]), (True, [0, 0, 0])],
    ids=["nodes of their own", "one machine"],
)
def test_nodes_rotate_from_start_to_start(
    places: list[int], make_session: MakeSession, *, shared_host: bool
) -> None:
    session = make_session(shared_host=shared_host)  # 2026-08-22 is day 2 of four
    assert [session.rotation(start) for start in range(3)] == places


def test_nodes_rotate_from_night_to_night(make_session: MakeSession) -> None:
    nights = [make_session(session=each).rotation(0) for each in (SESSION, LATER)]
    simulated = SessionRef(id="a", simulated_night=7)
    assert [*nights, make_session(session=simulated).rotation(0)] == [2, 3, 3]


def test_servers_that_say_their_versions_again_forget_nothing(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    session = make_session()
    session.set_versions({"vllm": "0.15.1"})
    assert session.judge(make_cell()).status == "NEW"
    session.set_versions({"vllm": "0.15.1"})
    assert session.is_new(("1p3d", CELL))
    assert session.provenance.versions == {"vllm": "0.15.1"}


@pytest.mark.parametrize(
    ("runs", "metric", "value"),
    [
        ([{"mean_ttft_ms": ms} for ms in (50.0, 200.0, 90.0)], "mean_ttft_ms", 90.0),
        ([{}, {}], "mean_tpot_ms", None),
    ],
    ids=["median", "lacking"],
)
def test_a_cell_has_one_number_or_none(
    make_record: MakeRecord, runs: list[dict[str, float]], metric: str, value: float | None
) -> None:
    cell = Cell(records=tuple(make_record(metrics) for metrics in runs), paths=())
    assert cell.value(metric) == (value if value is None else pytest.approx(value))


class Nodes(LocalAllocation):
    """What a session asks of nodes before it measures on them."""

    def __init__(self) -> None:
        pass

    def find_versions(self) -> dict[str, str]:
        return {"vllm": "0.15.1", "pytest-pdserve": "0.0.1"}

    def describe_nodes(self) -> dict[str, str]:
        return {"gpu": "H100"}

    def describe(self) -> dict[str, object]:
        return {"kind": "slurm", "job_id": "7"}


def test_a_records_versions_and_hardware_are_those_of_its_nodes(
    make_session: Callable[..., Session],
) -> None:
    session = make_session()
    own = {"pytest-pdserve": "0.1.0", "commit": "abc"}
    session.provenance = replace(session.provenance, versions=own)
    session.set_nodes(Nodes())
    assert session.provenance.versions == {"vllm": "0.15.1", **own}
    assert session.provenance.host == measured_on({"gpu": "H100"}, session.system)
    assert session.provenance.host["gpu"] == "H100"
    assert session.provenance.cluster["job_id"] == "7"
    assert session.provenance.fingerprint == fingerprint({"gpu": "H100"}, session.system)


def test_a_workload_of_another_load_is_another_cell(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    make_session().judge(make_cell())
    rated = Workload(input_len=512, output_len=256, num_prompts=4, request_rate=8.0)
    verdict = make_session().judge(make_cell(workload=rated))
    assert verdict.status == "NEW"
    assert dict(verdict.evidence)["rerun"] == (
        'pytest suites/sweep --topology 1p3d --system p5-efa -k "1p3d and random-512-256-n4-rate8"'
    )
