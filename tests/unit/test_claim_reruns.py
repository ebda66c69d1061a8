"""A violated claim has its cells run again on fresh starts, where claims are enforced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.report.claims import claim_lines
from pytest_pdserve.results.baselines import write_baseline
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import SESSION as SESSION_KIND
from pytest_pdserve.results.store import SESSION_FILE
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.serving.restartable import RestartableDeployment
from pytest_pdserve.session.claims import judge_claim
from pytest_pdserve.session.session import Session
from pytest_pdserve.session.settings import Settings
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.errors import InvalidRunError
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sessions import StoredRef
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload
from tests.support.claims import claim
from tests.support.records import SESSION
from tests.support.sessions import project_in
from tests.support.stored_nights import write_record

MakeRecord = Callable[..., Record]
CELL = "random-512-256-n4"
USUAL = {"1p3d": 9.0, "dp": 10.0, "route4": 9.0}
"""ITL in the nights of the baseline, ms."""
BASELINE = Baseline(
    system="p5-efa",
    suite="sweep",
    source="sweep.json",
    sessions=tuple(Source(id=f"n{night}") for night in range(20)),
    cells={
        topology: {
            CELL: CellBaseline(
                nights=tuple(
                    Night(session=f"n{night}", values={"mean_itl_ms": itl_ms})
                    for night in range(20)
                )
            )
        }
        for topology, itl_ms in USUAL.items()
    },
)
Table = Mapping[str, Sequence[float]]
"""ITL of each start, by topology; the last is that of all further starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableServers:
    """A topology whose runs show what a table says."""

    topology: Topology
    system: System
    itl_ms: Sequence[float]
    make_record: MakeRecord

    @property
    def versions(self) -> Mapping[str, str]:
        return {"vllm": "0.15.1"}

    def measure(
        self,
        workload: Workload,
        *,
        repeat: int,
        start: int | None,
        store: RunStore,
        provenance: Provenance,
    ) -> tuple[Record, Path]:
        place = min(start or 0, len(self.itl_ms) - 1)
        value = self.itl_ms[place]
        record = self.make_record(
            {"mean_itl_ms": abs(value)},
            topology=self.topology.id,
            workload=workload,
            start=start,
            findings=() if value > 0 else (INVALID,),
        )
        return record, store.folder / f"{self.topology.id}.{start}.json"

    def replace_servers(self, other: Any) -> None:
        """Stand for *other*, which has the same table."""


INVALID = Finding(check="completed", severity="invalid", message="3 of 4 requests completed")


@dataclass(kw_only=True)
class SessionNight:
    """A session in which topologies have run, and what became of their servers."""

    session: Session
    log: list[str] = field(default_factory=list)
    """Starts and ends of servers, in their order."""
    said: list[str] = field(default_factory=list)
    """Progress."""

    def judge(self, made: Claim) -> ClaimVerdict:
        return judge_claim(self.session, made)

    @property
    def starts(self) -> dict[str, int]:
        return {name: each.starts for name, each in self.session.deployments.items()}


@pytest.fixture
def make_night(
    tmp_path: Path, p5_efa: System, make_record: MakeRecord
) -> Callable[..., SessionNight]:
    """A factory of sessions on ``p5-efa`` that have measured one cell of each topology."""

    def make(
        table: Table, *, restartable: bool = True, expected: str = "", **judgement: Any
    ) -> SessionNight:
        folder = tmp_path / "baselines" / "p5-efa"
        folder.mkdir(parents=True)
        if expected:
            (folder / "expected.toml").write_text(f"schema_version = 1\n[[expected]]\n{expected}")
        sweep = replace(p5_efa.sweep, num_prompts=4, input_lens=(512,), output_lens=(256,))
        system = replace(
            p5_efa,
            source=str(folder / "system.toml"),
            sweep=sweep,
            judgement=replace(p5_efa.judgement, **judgement),
        )
        write_baseline(folder / "sweep.json", BASELINE)
        topologies = tuple(Topology.parse(name) for name in table)
        night = SessionNight(session=_session(system, topologies, tmp_path))
        night.session.progress = night.said.append
        (workload,) = system.sweep.workloads()
        for topology in topologies:
            servers = TableServers(
                topology=topology,
                system=system,
                itl_ms=table[topology.id],
                make_record=make_record,
            )
            deployed = RestartableDeployment(
                _logged(servers, night.log), topology, restartable=restartable
            )
            night.session.deployments[topology.id] = deployed
            night.session.measure(deployed, workload)
            deployed.stop()
        return night

    return make


def _session(system: System, topologies: tuple[Topology, ...], folder: Path) -> Session:
    settings = Settings(
        topologies=topologies,
        system=system,
        project=project_in(folder),
        repeats=1,
        first_runs=3,
        record=False,
        strict=False,
    )
    return Session(
        settings=settings,
        system=system,
        store=RunStore(folder=folder / "runs" / SESSION.id, session=SESSION),
        provenance=Provenance(versions={}, host={}, fingerprint="here"),
        state=folder / "state",
    )


def _logged(
    servers: TableServers, log: list[str]
) -> Callable[[int], contextlib.AbstractContextManager[TableServers]]:
    @contextlib.contextmanager
    def start(number: int) -> Iterator[TableServers]:
        log.append(f"{servers.topology.id} up")
        yield servers
        log.append(f"{servers.topology.id} down")

    return start


MakeNight = Callable[..., SessionNight]
CLAIM = claim(output_lens=[256])


def test_a_claim_that_holds_runs_nothing_again(make_night: MakeNight) -> None:
    night = make_night({"1p3d": [9.0], "dp": [10.0]})
    assert night.judge(CLAIM).status == "PASS"
    assert night.starts == {"1p3d": 1, "dp": 1}


def test_a_claim_that_is_violated_within_noise_runs_nothing_again(make_night: MakeNight) -> None:
    night = make_night({"1p3d": [10.2], "dp": [10.0]})
    assert night.judge(CLAIM).status == "INCONCLUSIVE"
    assert night.starts == {"1p3d": 1, "dp": 1}


def test_a_violated_claim_fails_after_three_pairs_on_fresh_starts(make_night: MakeNight) -> None:
    night = make_night({"1p3d": [13.0, 14.0, 12.0], "dp": [10.0]})
    verdict = night.judge(CLAIM)
    assert verdict.status == "FAIL"
    assert dict(verdict.evidence)["statistics"] == "3 pairs of runs"
    assert night.starts == {"1p3d": 3, "dp": 3}
    assert night.session.reruns == 4
    assert night.session.claims == [(CLAIM, verdict)]


def test_a_rerun_in_which_the_claim_holds_ends_it(make_night: MakeNight) -> None:
    night = make_night({"1p3d": [13.0, 9.0], "dp": [10.0]})
    verdict = night.judge(CLAIM)
    assert verdict.status == "INCONCLUSIVE"
    assert "violated in 1 of them" in verdict.misses[0]
    assert night.starts == {"1p3d": 2, "dp": 2}


def test_only_one_topology_is_up_at_a_time(make_night: MakeNight) -> None:
    night = make_night({"1p3d": [13.0], "dp": [10.0]})
    night.judge(CLAIM)
    once = ["1p3d up", "1p3d down", "dp up", "dp down"]
    assert night.log == once * 3


def test_reruns_are_said(make_night: MakeNight) -> None:
    night = make_night({"1p3d": [13.0, 9.0], "dp": [10.0]})
    night.judge(CLAIM)
    assert night.said == [f"{CLAIM.subject}: violated; running 2 cells on fresh starts"]


def test_a_side_that_has_run_more_often_waits_for_the_other(make_night: MakeNight) -> None:
    """dp has run three times for another claim, and 1p3d catches up."""
    night = make_night({"route4": [20.0], "1p3d": [13.0], "dp": [10.0]})
    assert night.judge(claim(subject="route4", output_lens=[256])).status == "FAIL"
    assert night.starts == {"route4": 3, "1p3d": 1, "dp": 3}
    assert night.judge(CLAIM).status == "FAIL"
    assert night.starts == {"route4": 3, "1p3d": 3, "dp": 3}


@pytest.mark.parametrize(
    ("given", "status"),
    [
        pytest.param({"claims": "report"}, "REPORTED", id="claims are reported"),
        pytest.param({"restartable": False}, "INCONCLUSIVE", id="servers of somebody else"),
        pytest.param({"max_reruns": 1}, "INCONCLUSIVE", id="reruns are used up"),
    ],
)
def test_a_violated_claim_is_not_settled_where_nothing_may_run_again(
    given: dict[str, Any], status: str, make_night: MakeNight
) -> None:
    night = make_night({"1p3d": [13.0], "dp": [10.0]}, **given)
    assert night.judge(CLAIM).status == status
    assert night.starts == {"1p3d": 1, "dp": 1}


def test_a_claim_says_that_no_more_reruns_are_allowed(make_night: MakeNight) -> None:
    night = make_night({"1p3d": [13.0], "dp": [10.0]}, max_reruns=1)
    evidence = dict(night.judge(CLAIM).evidence)
    assert evidence["not run again"] == "[judgement] max_reruns = 1 allows no more"


def test_what_expected_toml_names_is_not_run_again(make_night: MakeNight) -> None:
    entry = 'claims = ["itl"]\nuntil = 2099-12-31\nowner = "ann"\nreason = "vllm#1"\n'
    night = make_night({"1p3d": [13.0], "dp": [10.0]}, expected=entry)
    assert night.judge(CLAIM).status == "EXPECTED"
    assert night.starts == {"1p3d": 1, "dp": 1}


def test_what_was_violated_last_night_too_fails_without_a_rerun(
    make_night: MakeNight, make_record: MakeRecord, tmp_path: Path
) -> None:
    began = "2026-08-21T10:15:00.000Z"
    before = SessionRef(id="20260821T101500-p5-efa", started_at=began)
    folder = tmp_path / "runs" / before.id
    path = folder / SESSION_FILE
    write_json(path, SESSION_KIND.dump(StoredRef(session=before, system="p5-efa"), path))
    for topology, itl_ms in (("1p3d", 13.0), ("dp", 10.0)):
        run = {"mean_itl_ms": itl_ms}
        record = make_record(run, topology=topology, session=before, fingerprint="here")
        write_record(folder, replace(record, requests=None))
    night = make_night({"1p3d": [13.0], "dp": [10.0]})
    verdict = night.judge(CLAIM)
    assert verdict.status == "FAIL"
    assert "as last night" in verdict.misses[0]
    assert night.starts == {"1p3d": 1, "dp": 1}


def test_an_invalid_rerun_is_trouble_and_no_verdict(make_night: MakeNight) -> None:
    night = make_night({"1p3d": [13.0, -13.0], "dp": [10.0]})
    with pytest.raises(InvalidRunError, match="3 of 4 requests completed"):
        night.judge(CLAIM)
    assert night.session.claims == []
    assert night.log[-1] == "1p3d down"


def test_a_claim_of_a_topology_that_was_not_run_is_not_asked(make_night: MakeNight) -> None:
    night = make_night({"1p3d": [9.0]})
    verdict = night.judge(CLAIM)
    assert verdict.reason == "NOT ASKED: dp was not run; add --topology all"


def test_the_summary_has_a_line_for_each_claim(make_night: MakeNight) -> None:
    night = make_night({"1p3d": [13.0], "dp": [10.0], "route4": [9.0]})
    night.judge(claim(kind="highest", output_lens=[256], others=["dp", "route4"]))
    night.judge(claim(kind="lowest", output_lens=[256], others=["dp", "route4"]))
    first, second, caution = claim_lines(night.session)
    assert first == "claim itl: PASS"
    assert second == (
        f"claim itl: FAIL ({CELL}: mean_itl_ms of 1p3d = 13 ms, claimed < 10 ms (dp 10 ms, 1.3 "
        "times in 3 pairs, 1.3 to 1.3, violated by more than its noise of 4 %, margin 0 %); and 1 "
        "more)"
    )
    assert caution.startswith("caution: itl: ITL of a disaggregated topology by itself")


def test_a_claim_that_is_only_reported_says_so_in_the_summary(make_night: MakeNight) -> None:
    night = make_night({"1p3d": [13.0, 13.0], "dp": [10.0, 10.0]}, claims="report")
    for _ in range(2):
        for (topology, _), cell in list(night.session.cells.items()):
            night.session.measure_again(night.session.deployments[topology], cell)
    night.judge(CLAIM)
    assert claim_lines(night.session)[0].startswith(
        "claim itl: REPORTED: does not hold; not enforced on p5-efa (random-512-256-n4: "
    )
