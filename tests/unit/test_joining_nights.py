"""Nights that join a baseline: which may, what they are made of, and that none is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pytest_pdserve.results import folders
from pytest_pdserve.results.baselines import baseline_path
from pytest_pdserve.results.baselines import host_baseline_path
from pytest_pdserve.results.baselines import join_night
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.nights import counts_of
from pytest_pdserve.results.nights import night_of_runs
from pytest_pdserve.results.nights import source_of
from pytest_pdserve.session.session_judge import SessionJudge
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import System
from tests.support.stored_nights import Shelf
from tests.support.stored_nights import typical_baseline

MakeRecord = Callable[..., Record]
WORKLOAD = "random-512-256-n4"
DP: Key = ("dp", WORKLOAD)
COUNTS = {"completed": 4.0}
EMPTY = Baseline(system="p5-efa", suite="sweep", source="new.json", fingerprint="0123456789ab")


def night(session: str = "tonight", itl: float = 10.0) -> Night:
    return Night(session=session, values={"mean_itl_ms": itl})


def test_a_night_is_the_newest_of_its_cell() -> None:
    before = typical_baseline(3)
    after = before.with_night(DP, night(), {"completed": 5.0}, Source(id="tonight"))
    old, new = before.cells["dp"][WORKLOAD], after.cells["dp"][WORKLOAD]
    assert new.nights == (*old.nights, night())
    assert new.counts == old.counts
    assert after.sessions == (*before.sessions, Source(id="tonight"))
    assert after.cells["1p3d"] == before.cells["1p3d"]


def test_the_first_night_of_a_cell_brings_its_counts() -> None:
    after = EMPTY.with_night(DP, night(), COUNTS, Source(id="tonight"))
    assert after.cells["dp"][WORKLOAD].counts == COUNTS
    assert after.cells["dp"][WORKLOAD].nights == (night(),)


def test_cells_of_one_session_share_its_entry() -> None:
    source = Source(id="tonight")
    one = EMPTY.with_night(DP, night(), COUNTS, source)
    assert one.with_night(("1p3d", WORKLOAD), night(), COUNTS, source).sessions == (source,)


@pytest.mark.parametrize(("nights", "joins"), [(19, True), (20, False), (25, False)])
def test_nights_join_until_there_are_twenty(nights: int, *, joins: bool) -> None:
    before = typical_baseline(nights)
    after = before.with_night(DP, night(), COUNTS, Source(id="tonight"))
    assert (after is not before) is joins


def test_a_session_joins_a_cell_once() -> None:
    once = EMPTY.with_night(DP, night(), COUNTS, Source(id="tonight"))
    assert once.with_night(DP, night(itl=11.0), COUNTS, Source(id="tonight")) is once


def join(
    path: Path, system: System, key: Key = DP, name: str = "tonight", **given: Any
) -> Baseline:
    empty = given.pop("empty", EMPTY)
    joining = {key: (night(name), COUNTS)}
    return join_night(path, empty, joining, source=Source(id=name), system=system)


def stored(path: Path, system: System) -> Baseline:
    found = load_baseline(path, system=system)
    assert found is not None
    return found


def test_the_first_night_makes_the_file(tmp_path: Path, p5_efa: System) -> None:
    path = tmp_path / "baselines" / "p5-efa" / "sweep.json"
    joined = join(path, p5_efa)
    assert stored(path, p5_efa) == replace(joined, source=str(path))
    assert joined.cells["dp"][WORKLOAD].nights == (night(),)


def test_a_night_keeps_what_the_file_says_otherwise(tmp_path: Path, p5_efa: System) -> None:
    path = tmp_path / "sweep.json"
    accepted = replace(EMPTY, approver="Ada", accepted_on="2026-08-15", note="by hand")
    join(path, p5_efa, ("1p3d", WORKLOAD), "before", empty=accepted)
    join(path, p5_efa)
    found = stored(path, p5_efa)
    assert (found.approver, found.note) == ("Ada", "by hand")
    assert found.keys == (("1p3d", WORKLOAD), DP)


def test_a_night_that_changes_nothing_does_not_touch_the_file(
    tmp_path: Path, p5_efa: System
) -> None:
    path = tmp_path / "sweep.json"
    join(path, p5_efa)
    path.write_text(path.read_text() + "\n")
    before = path.read_text()
    join(path, p5_efa)
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not valid JSON"),
        ('{"schema_version": 3, "system": "h200-ib", "suite": "sweep"}', "/system: 'h200-ib'"),
        (
            '{"schema_version": 3, "system": "p5-efa", "suite": "sweep", "fingerprint": "f"}',
            "was measured on another host or with another system file",
        ),
    ],
    ids=["torn", "of another system", "of other hardware"],
)
def test_nothing_joins_a_file_that_cannot_be_used(
    content: str, said: str, tmp_path: Path, p5_efa: System
) -> None:
    path = tmp_path / "sweep.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=said):
        join(path, p5_efa)
    assert path.read_text() == content


def test_sessions_that_join_at_once_lose_no_night(tmp_path: Path, p5_efa: System) -> None:
    path = tmp_path / "sweep.json"
    sessions, topologies = 8, ("1p3d", "2p2d", "dp")
    begin = threading.Barrier(sessions)

    def one_session(number: int) -> None:
        begin.wait()
        for topology in topologies:
            join(path, p5_efa, (topology, WORKLOAD), f"session-{number}")

    threads = [threading.Thread(target=one_session, args=(n,)) for n in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cells = stored(path, p5_efa).cells
    assert {t: sorted(n.session for n in cells[t][WORKLOAD].nights) for t in cells} == {
        topology: [f"session-{number}" for number in range(sessions)] for topology in topologies
    }


def test_a_file_that_stays_locked_is_one_sentence(
    tmp_path: Path, p5_efa: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_pdserve.results.baselines._LOCK_S", 0.01)
    path = tmp_path / "sweep.json"
    with FileLock(path.with_name(".sweep.json.lock")), pytest.raises(StoreError) as refused:
        join(path, p5_efa)
    assert str(refused.value) == (
        f"{path} has been locked by another session for 0.01 s; wait for that session, or end it"
    )


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, p5_efa: System) -> None:
    (tmp_path / "baselines").write_text("")
    path = tmp_path / "baselines" / "sweep.json"
    with pytest.raises(StoreError) as refused:
        join(path, p5_efa)
    assert str(refused.value) == (
        f"{path} cannot be locked: File exists; make {path.parent} writable"
    )


def test_a_night_of_several_starts_is_their_median(make_record: MakeRecord) -> None:
    runs = [make_record({"mean_itl_ms": itl}, start=n) for n, itl in enumerate((9.0, 13.0, 10.0))]
    made = night_of_runs(runs)
    assert made is not None
    assert (made.session, made.starts) == (runs[0].session.id, 3)
    assert (made.values["mean_itl_ms"], made.values["mean_ttft_ms"]) == (10.0, 100.0)


def test_a_night_keeps_judged_metrics_and_throughputs(make_record: MakeRecord) -> None:
    shown = {"p50_itl_ms": 10.0, "request_throughput": 2.0, "total_token_throughput": 900.0}
    made = night_of_runs([make_record(shown)])
    assert made is not None
    assert set(made.values) == {
        *("mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "output_throughput"),
        *("request_throughput", "total_token_throughput"),
    }


VOID = Finding(check="chunks", severity="note", message="m", voids=("mean_itl_ms",))


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [
        ({}, {"findings": (VOID,)}, 10.0),
        ({"findings": (VOID,)}, {"findings": (VOID,)}, None),
        ({}, {"metrics": {"mean_itl_ms": 0.0}}, 10.0),
    ],
    ids=["one start voids it", "both void it", "one is 0"],
)
def test_a_value_is_the_median_of_the_starts_that_have_one(
    first: dict[str, Any], second: dict[str, Any], value: float | None, make_record: MakeRecord
) -> None:
    made = night_of_runs([make_record(**first), make_record(**second)])
    assert made is not None
    assert made.values.get("mean_itl_ms") == value


def test_runs_without_a_judged_metric_are_no_night(make_record: MakeRecord) -> None:
    run = replace(make_record(), metrics={"completed": 4.0, "p50_itl_ms": 10.0})
    assert night_of_runs([run]) is None


def test_counts_that_sanity_voids_are_not_kept(make_record: MakeRecord) -> None:
    void = Finding(check="counters", severity="note", message="m", voids=("kv_transfers",))
    run = make_record({"kv_transfers": 4.0}, findings=(void,))
    assert counts_of(run) == {"completed": 4.0, "failed": 0.0}


def test_a_baseline_keeps_where_a_session_ran(make_record: MakeRecord) -> None:
    session = SessionRef(id="a", started_at="2026-08-22T10:15:00.000Z", simulated_night=3)
    assert source_of(make_record(session=session)) == Source(
        id="a",
        started_at="2026-08-22T10:15:00.000Z",
        simulated_night=3,
        versions={"vllm": "0.15.1", "nixl": "0.10.1"},
        nodes=("node0", "node1"),
    )


@pytest.fixture
def shelf(tmp_path: Path, make_record: MakeRecord) -> Shelf:
    return Shelf(folder=tmp_path, make_record=make_record)


def judge_of(shelf: Shelf, session: SessionRef, system: System | None = None) -> SessionJudge:
    return SessionJudge(
        system=system or shelf.system,
        provenance=Provenance(versions={}, host={}, fingerprint="0123456789ab"),
        nodes_known=True,
        session=session,
        runs=shelf.runs,
        state=shelf.folder / "state",
        rootdir=shelf.folder,
    )


def began(moment: str | None, simulated_night: int | None = None) -> SessionRef:
    return SessionRef(id="tonight", started_at=moment, simulated_night=simulated_night)


@pytest.mark.parametrize(
    ("session", "joins"),
    [
        (began("2026-10-06T22:00:00Z"), True),
        (began("2026-10-06T10:30:00Z"), True),
        (began("2026-10-06T09:30:00Z"), False),
        (began("2026-10-05T23:30:00Z"), False),
        (began("2026-10-05T12:00:00Z"), False),
        (began("2026-10-03T22:00:00Z"), False),
        (began(None), True),
        (began("2026-10-05T22:00:00Z", 6), True),
    ],
    ids=[
        *("the next night", "a little early", "half a day later", "an hour later"),
        *("hours before", "a night of long ago", "unknown", "simulated"),
    ],
)
def test_one_session_of_a_night_joins(session: SessionRef, shelf: Shelf, *, joins: bool) -> None:
    shelf.baseline(5)
    assert judge_of(shelf, session).may_join(DP) is joins


@pytest.mark.parametrize(("night", "joins"), [(7, False), (8, True)])
def test_a_simulated_night_joins_once(night: int, shelf: Shelf, *, joins: bool) -> None:
    before = typical_baseline(1)
    shelf.baseline(1, sessions=(replace(before.sessions[0], simulated_night=7),))
    assert judge_of(shelf, began("2026-12-01T00:00:00Z", night)).may_join(DP) is joins


TONIGHT = began("2026-11-20T22:00:00Z")


@pytest.mark.parametrize(
    ("baseline", "joins"),
    [
        ({"count": 19}, True),
        ({"count": 20}, False),
        ({"cells": ("1p3d",)}, False),
        (None, False),
    ],
    ids=["room for one", "full", "no such cell", "no baseline"],
)
def test_a_night_joins_a_cell_that_has_room(
    baseline: Mapping[str, Any] | None, shelf: Shelf, *, joins: bool
) -> None:
    if baseline is not None:
        shelf.baseline(**baseline)
    assert judge_of(shelf, TONIGHT).may_join(DP) is joins


def test_what_is_kept_of_a_host_lies_in_the_users_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "pytest-pdserve"


def test_a_hosts_baseline_lies_under_its_fingerprint(tmp_path: Path, p5_efa: System) -> None:
    path = host_baseline_path(p5_efa, "0123", tmp_path)
    assert path == tmp_path / "baselines" / "p5-efa" / "0123" / "sweep.json"


@pytest.mark.parametrize(
    ("host_references", "nodes_known", "path"),
    [
        (False, True, "baselines/p5-efa/sweep.json"),
        (True, True, "state/baselines/p5-efa/0123456789ab/sweep.json"),
        (False, False, "state/baselines/p5-efa/0123456789ab/sweep.json"),
    ],
    ids=["of the system", "of this host", "of an endpoint"],
)
def test_nights_join_the_file_that_they_are_held_against(
    path: str, shelf: Shelf, *, host_references: bool, nodes_known: bool
) -> None:
    judgement = replace(shelf.system.judgement, host_references=host_references)
    judge = judge_of(shelf, TONIGHT, replace(shelf.system, judgement=judgement))
    judge.nodes_known = nodes_known
    assert judge.path == shelf.folder / path


@pytest.mark.parametrize(
    ("nodes_known", "baseline", "keeps"),
    [(True, True, True), (False, False, True), (False, True, False)],
    ids=["of the system", "of an endpoint alone", "of an endpoint held against the system's"],
)
def test_runs_of_an_endpoint_join_no_nights_but_their_own(
    shelf: Shelf, *, nodes_known: bool, baseline: bool, keeps: bool
) -> None:
    if baseline:
        shelf.baseline()
    judge = replace(judge_of(shelf, TONIGHT), nodes_known=nodes_known)
    assert judge.keeps_nights is keeps


@pytest.fixture
def shipped(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> System:
    """A system whose file lies in the installed package, with a baseline of one night beside it."""
    shelf.baseline(1)
    monkeypatch.setattr(folders, "SHIPPED", (shelf.folder / "baselines",))
    return shelf.system


def test_a_shipped_baseline_is_read_while_the_project_has_none(
    shipped: System, shelf: Shelf
) -> None:
    project = shelf.folder / "project"
    judge = replace(judge_of(shelf, TONIGHT, shipped), rootdir=project)
    assert judge.shared is not None
    assert judge.shared.source == str(Path(shipped.source).with_name("sweep.json"))
    own = baseline_path(shipped, project)
    assert own == project / "baselines" / "p5-efa" / "sweep.json"
    join(own, shipped)
    again = replace(judge_of(shelf, TONIGHT, shipped), rootdir=project)
    assert again.shared is not None
    assert again.shared.source == str(own)


def test_a_night_after_a_shipped_baseline_joins_a_copy_of_the_projects_own(
    shipped: System, shelf: Shelf
) -> None:
    before = Path(shipped.source).with_name("sweep.json").read_text()
    judge = replace(judge_of(shelf, TONIGHT, shipped), rootdir=shelf.folder / "project")
    join(judge.path, shipped, empty=judge.shared)
    assert Path(shipped.source).with_name("sweep.json").read_text() == before
    own = json.loads((shelf.folder / "project/baselines/p5-efa/sweep.json").read_text())
    nights = own["cells"]["dp"][WORKLOAD]["nights"]
    assert [each["session"] for each in nights] == ["20261001T220000-p5-efa", "tonight"]
