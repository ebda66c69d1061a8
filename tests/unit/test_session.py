"""How a session judges what it measured: by hand-made records, with no server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.attached import AttachedSpec
from pytest_pdserve.backends.attached import attached_to
from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.local.allocation import LocalAllocation
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.store import RECORD_SUFFIX
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.serving.provenance import measured_on
from pytest_pdserve.session.cell import Cell
from pytest_pdserve.session.session import Session
from pytest_pdserve.session.settings import Settings
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload
from tests.support.claims import claim
from tests.support.records import SESSION

MakeRecord = Callable[..., Record]
RUN = SESSION.id
CELL, LONGER = "random-512-256-n4", "random-1024-256-n4"


@pytest.fixture
def make_session(tmp_path: Path, p5_efa: System) -> Callable[..., Session]:
    """A factory of sessions on ``p5-efa``, whose baselines lie in *tmp_path*."""

    def make(
        *,
        record: bool = False,
        host: bool = False,
        nightly: bool = False,
        fingerprint: str = "here",
    ) -> Session:
        limits = {} if nightly else {name: METRICS[name].floor for name in METRICS.times}
        judgement = replace(p5_efa.judgement, host_envelopes=host, rtol=limits)
        source = str(tmp_path / "baselines" / "p5-efa" / "system.toml")
        sweep = replace(p5_efa.sweep, num_prompts=4)
        system = replace(p5_efa, source=source, judgement=judgement, sweep=sweep)
        settings = Settings(
            topologies=(Topology.parse("1p3d"),),
            system=system,
            folders=(),
            runs=tmp_path / "runs",
            repeats=1,
            record=record,
            strict=False,
            rootdir=tmp_path,
        )
        return Session(
            settings=settings,
            system=system,
            store=RunStore(folder=tmp_path / "runs" / RUN, session=SESSION),
            provenance=Provenance(versions={}, host={}, fingerprint=fingerprint),
            state=tmp_path / "state",
        )

    return make


@pytest.fixture
def make_cell(make_record: MakeRecord, tmp_path: Path) -> Callable[..., Cell]:
    """A factory of cells of one run."""

    def make(metrics: dict[str, float] | None = None, **fields: Any) -> Cell:
        record = make_record(metrics, **fields)
        name = f"{record.workload.id}.0{RECORD_SUFFIX}"
        path = tmp_path / "runs" / RUN / record.topology / name
        return Cell(records=(record,), paths=(path,))

    return make


MakeSession = Callable[..., Session]
MakeCell = Callable[..., Cell]


def times(session: Session) -> Path:
    return session.state / "baselines" / "p5-efa" / "here" / "sweep.json"


def evidence(verdict: Verdict, label: str) -> str:
    return dict(verdict.evidence)[label]


def test_without_a_baseline_a_cell_is_new(
    make_session: MakeSession, make_cell: MakeCell, tmp_path: Path
) -> None:
    session = make_session()
    verdict = session.judge(make_cell())
    missing = f"{tmp_path}/baselines/p5-efa/sweep.json, which does not exist"
    assert (verdict.status, verdict.misses, verdict.recorded) == ("NEW", (), None)
    assert evidence(verdict, "baseline") == missing
    assert session.verdicts == {("1p3d", CELL): verdict}
    assert not (tmp_path / "baselines").exists()


def test_recording_writes_a_candidate_and_judges_nothing(
    make_session: MakeSession, make_cell: MakeCell, tmp_path: Path
) -> None:
    make_session(record=True).judge(make_cell())
    verdict = make_session(record=True).judge(make_cell({"mean_ttft_ms": 9999.0}))
    path = tmp_path / "baselines" / "p5-efa" / "sweep.json"
    assert verdict.status == "NEW"
    assert evidence(verdict, "candidate") == str(path)
    written = json.loads(path.read_text())["cells"]["1p3d"][CELL]
    assert written["mean_ttft_ms"]["ref"] == pytest.approx(9999.0)
    assert written["failed"]["ref"] == 0.0
    assert not (tmp_path / "state").exists()


def test_a_regression_is_told_as_the_design_shows_it(
    make_session: MakeSession, make_cell: MakeCell, tmp_path: Path
) -> None:
    make_session(record=True).judge(make_cell())
    verdict = make_session().judge(make_cell({"p99_ttft_ms": 412.7}))
    path = tmp_path / "baselines" / "p5-efa" / "sweep.json"
    date = json.loads(path.read_text())["provenance"]["date"]
    assert verdict.status == "FAIL"
    assert verdict.message == (
        "p99_ttft_ms = 412.7 ms, envelope <= 198 ms (ref 180 ms, 1 run): "
        f"1p3d, {CELL}, p5-efa\n"
        f"  baseline  {path} (vLLM 0.15.1, NIXL 0.10.1, {date})\n"
        f"  record    {tmp_path}/runs/{RUN}/1p3d/{CELL}.0.record.json\n"
        '  accept    pytest suites/sweep -k "1p3d and 512-256" --pdserve-record '
        "--topology 1p3d --system p5-efa"
    )


def test_a_run_like_the_baseline_passes(make_session: MakeSession, make_cell: MakeCell) -> None:
    make_session(record=True).judge(make_cell())
    assert make_session().judge(make_cell()).status == "PASS"


@pytest.fixture
def counted(make_session: MakeSession, make_cell: MakeCell) -> None:
    """A shared baseline of counts alone, as ``--pdserve-record`` writes it on such a system."""
    session = make_session(record=True, host=True)
    session.judge(make_cell())
    times(session).unlink()


@pytest.mark.usefixtures("counted")
def test_a_hosts_times_are_recorded_first_and_judged_later(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    session = make_session(host=True)
    first = session.judge(make_cell())
    assert (first.status, first.recorded) == ("NEW", times(session))
    assert evidence(first, "reference") == str(times(session))
    assert make_session(host=True).judge(make_cell()).status == "PASS"
    slower = make_session(host=True).judge(make_cell({"mean_ttft_ms": 104.0}))
    assert slower.misses == ("mean_ttft_ms = 104 ms, envelope <= 103 ms (ref 100 ms, 1 run)",)
    assert f"+ {times(session)}" in evidence(slower, "baseline")


@pytest.mark.usefixtures("counted")
def test_shared_counts_are_judged_before_a_host_is_recorded(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    session = make_session(host=True)
    verdict = session.judge(make_cell({"failed": 1.0}))
    assert verdict.misses == (
        "failed = 1 requests, envelope == 0 requests (ref 0 requests, 1 run)",
    )
    assert not times(session).exists()


@pytest.mark.usefixtures("counted")
def test_the_repository_gets_counts_and_the_host_gets_times(
    make_session: MakeSession, make_cell: MakeCell, tmp_path: Path
) -> None:
    session = make_session(host=True)
    session.judge(make_cell())
    shared = json.loads((tmp_path / "baselines" / "p5-efa" / "sweep.json").read_text())
    own = json.loads(times(session).read_text())
    assert set(shared["cells"]["1p3d"][CELL]) == {"completed", "failed"}
    assert "mean_ttft_ms" in own["cells"]["1p3d"][CELL]
    assert (shared["provenance"]["fingerprint"], own["provenance"]["fingerprint"]) == (None, "here")


@pytest.mark.usefixtures("counted")
def test_times_of_another_host_are_refused(make_session: MakeSession, make_cell: MakeCell) -> None:
    session = make_session(host=True)
    session.judge(make_cell())
    moved = session.state / "baselines" / "p5-efa" / "there" / "sweep.json"
    moved.parent.mkdir()
    moved.write_text(times(session).read_text())
    with pytest.raises(ConfigError, match=r"another host or system file \(fingerprint here, here"):
        make_session(host=True, fingerprint="there").judge(make_cell())


def test_an_unknown_cell_is_new_where_times_are_kept_per_host(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    session = make_session(host=True)
    verdict = session.judge(make_cell())
    assert (verdict.status, verdict.recorded) == ("NEW", times(session))
    assert times(session).exists()


CLAIM = claim(output_lens=[256])


@pytest.fixture
def halved(make_session: MakeSession, make_cell: MakeCell) -> Session:
    """A session whose baseline holds both sides of :data:`CLAIM`, and has it hold."""
    make_session(record=True).judge(make_cell())
    make_session(record=True).judge(make_cell({"mean_itl_ms": 20.0}, topology="dp"))
    return make_session()


@pytest.mark.parametrize(
    ("invalid", "said"),
    [
        (False, "claim not judged: 1p3d ended in an ERROR in this session"),
        (True, f"claim not judged: the run of {CELL} on 1p3d is invalid in this session"),
    ],
    ids=["broken", "invalid"],
)
def test_a_side_that_was_lost_tonight_is_trouble(
    invalid: bool, said: str, halved: Session, make_cell: MakeCell
) -> None:
    if invalid:
        halved.invalid["1p3d", CELL] = make_cell()
    else:
        halved.broken.add("1p3d")
    halved.cells["dp", CELL] = make_cell(topology="dp")
    for metric in ("mean_itl_ms", "decoding_requests"):
        made = replace(CLAIM, relations=(replace(CLAIM.relations[0], metric=metric),))
        with pytest.raises(PdserveError) as raised:
            halved.judge_claim(made)
        assert str(raised.value) == said


def test_an_invalid_cell_loses_no_other_cell_of_its_topology(
    halved: Session, make_cell: MakeCell
) -> None:
    halved.invalid["1p3d", LONGER] = make_cell()
    halved.cells["dp", CELL] = make_cell(topology="dp")
    verdict = halved.judge_claim(CLAIM)
    assert (verdict.status, verdict.missing) == ("NOT JUDGED", True)
    assert verdict.misses == (f"{CELL}: mean_itl_ms of 1p3d was not measured",)


def test_what_was_measured_before_its_topology_broke_is_a_side(
    halved: Session, make_cell: MakeCell
) -> None:
    halved.broken.update(("1p3d", "2p2d"))
    halved.invalid["1p3d", LONGER] = make_cell()
    halved.cells["1p3d", CELL] = make_cell({"mean_itl_ms": 30.0})
    halved.cells["dp", CELL] = make_cell({"mean_itl_ms": 20.0}, topology="dp")
    assert halved.judge_claim(CLAIM).status == "FAIL"


def test_a_claim_of_which_one_topology_was_not_run_is_not_asked(
    halved: Session, make_cell: MakeCell
) -> None:
    halved.broken.add("2p2d")
    assert halved.judge_claim(CLAIM).misses == ("1p3d, dp were not run; add --topology all",)
    halved.cells["1p3d", CELL] = make_cell({"mean_itl_ms": 30.0})
    verdict = halved.judge_claim(CLAIM)
    assert verdict.status == "NOT ASKED"
    assert verdict.misses == ("dp was not run; add --topology all",)
    assert [said.status for _, said in halved.claims] == ["NOT ASKED", "NOT ASKED"]


def test_a_side_that_was_not_measured_leaves_the_claim_not_judged(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    session = make_session()
    session.cells["1p3d", CELL] = make_cell()
    session.cells["dp", LONGER] = make_cell(topology="dp")
    verdict = session.judge_claim(CLAIM)
    assert verdict.status == "NOT JUDGED"
    assert verdict.misses == (f"{CELL}: mean_itl_ms of dp was not measured",)


def test_a_voided_metric_is_no_side(make_session: MakeSession, make_cell: MakeCell) -> None:
    note = Finding(check="chunks", severity="note", message="", voids=("mean_itl_ms",))
    session = make_session()
    session.cells["1p3d", CELL] = make_cell(findings=(note,))
    session.cells["dp", CELL] = make_cell(topology="dp")
    assert session.judge_claim(CLAIM).misses == (
        f"{CELL}: mean_itl_ms of 1p3d must not be judged in this cell, as sanity says",
    )


@pytest.mark.parametrize(
    ("runs", "metric", "value"),
    [
        ([{"mean_ttft_ms": 50.0}, {"mean_ttft_ms": 200.0}], "mean_ttft_ms", 100.0),
        ([{}, {}], "mean_tpot_ms", None),
        ([{"mean_ttft_ms": 0.0}], "mean_ttft_ms", None),
        ([{"failed": 0.0}, {"failed": 1.0}], "failed", None),
    ],
    ids=["geometric mean", "lacking", "a time of 0", "counts that differ"],
)
def test_a_cell_has_one_number_or_none(
    make_record: MakeRecord, runs: list[dict[str, float]], metric: str, value: float | None
) -> None:
    cell = Cell(records=tuple(make_record(metrics) for metrics in runs), paths=())
    assert cell.value(metric) == (value if value is None else pytest.approx(value))


def test_an_endpoint_that_is_not_named_is_asked_for(p5_efa: System, tmp_path: Path) -> None:
    attached = replace(p5_efa, cluster=replace(p5_efa.cluster, kind="attached"), tables={})
    backend = backend_of(attached)
    said = (
        "system 'p5-efa' is of kind 'attached' and names no endpoint; give --pdserve-base-url, or "
        "[attached] base_url in the system file"
    )
    with pytest.raises(ConfigError) as checked:
        backend.check(attached)
    request = Request(folder=tmp_path / "run" / "attached", progress=lambda _: None)
    with pytest.raises(ConfigError) as asked, backend.acquire(attached, request):
        pass
    assert str(checked.value) == str(asked.value) == said


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


def test_an_endpoint_takes_the_place_of_a_systems_own_servers(p5_efa: System) -> None:
    attached = attached_to(p5_efa, "http://n:1")
    backend = backend_of(attached)
    backend.check(attached)
    assert (attached.cluster.kind, attached.tables) == (
        "attached",
        {"attached": AttachedSpec(base_url="http://n:1")},
    )
    assert (attached.model, attached.sweep) == (p5_efa.model, p5_efa.sweep)
    assert not backend.starts_servers
    assert backend.describe_hardware(attached) == {"endpoint": "http://n:1"}


def test_a_workload_of_another_load_is_another_cell(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    make_session(record=True).judge(make_cell())
    rated = Workload(input_len=512, output_len=256, num_prompts=4, request_rate=8.0)
    verdict = make_session().judge(make_cell(workload=rated))
    assert verdict.status == "NEW"
    assert '"1p3d and random-512-256-n4-rate8"' in evidence(verdict, "accept")
