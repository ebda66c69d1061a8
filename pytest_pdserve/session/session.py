"""One session: what was measured so far, and how it is judged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.hosts.versions import find_versions
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.judge.claims import sides_of
from pytest_pdserve.judge.sides import Look
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.plan.placement import size_on
from pytest_pdserve.results.baselines import baseline_path
from pytest_pdserve.results.baselines import record_envelopes
from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.store import create_run
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.serving.provenance import git_commit
from pytest_pdserve.serving.provenance import measured_on
from pytest_pdserve.serving.restartable import RestartableDeployment
from pytest_pdserve.session.cell import Cell
from pytest_pdserve.session.session_judge import SUITE
from pytest_pdserve.session.session_judge import SessionJudge
from pytest_pdserve.session.settings import Settings
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.errors import InvalidRunError
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import voided_in
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Size
from pytest_pdserve.values.workload import Workload

_SELECTABLE = re.compile(r"[\w.+:/-]+")
"""What an expression of pytest's ``-k`` may hold as a name."""


@dataclass(slots=True, kw_only=True)
class Session:
    """State that fixtures and summary share."""

    settings: Settings
    """What was asked."""
    system: System
    """System with its model path resolved."""
    store: RunStore
    """Where records go."""
    provenance: Provenance
    """Versions and host."""
    state: Path
    """Folder of envelopes of single hosts."""
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    """Valid cells by topology and workload."""
    invalid: dict[tuple[str, str], Cell] = field(default_factory=dict)
    """Cells of which a run is invalid."""
    broken: set[str] = field(default_factory=set)
    """Topologies that ended in an ERROR."""
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    """Verdict of each judged cell."""
    wholes: dict[str, Verdict] = field(default_factory=dict)
    """Verdict of each topology over all its cells."""
    confirmations: int = 0
    """Runs on fresh starts so far."""
    unconfirmed: list[tuple[str, str]] = field(default_factory=list)
    """Cells that looked odd when no such run was left."""
    progress: Progress = print
    """Where to say that a cell is run again."""
    claims: list[tuple[Claim, ClaimVerdict]] = field(default_factory=list)
    """Verdict of each claim."""
    _judge_made: SessionJudge | None = None

    @classmethod
    def start(cls, settings: Settings) -> Session:
        """Make the run folder and look at host and versions.

        :raises StoreError: if the folder cannot be made.
        """
        system = with_model_path(settings.system)
        hardware = {} if system.figures else backend_of(system).describe_hardware(system)
        versions = {k: v for k, v in find_versions().items() if k == "pytest-pdserve"}
        commit = git_commit(settings.rootdir)
        if commit is not None:
            versions["commit"] = commit
        return cls(
            settings=settings,
            system=system,
            store=_store(settings.runs, system),
            provenance=Provenance(
                versions=versions,
                host=measured_on(hardware, system),
                fingerprint=fingerprint(hardware, system),
            ),
            state=state_folder(),
        )

    def set_versions(self, versions: Mapping[str, str]) -> None:
        """Add what servers that run already say of their versions."""
        if versions:
            self.provenance = replace(
                self.provenance, versions={**versions, **self.provenance.versions}
            )
            self._judge_made = None

    def set_nodes(self, allocation: Allocation) -> None:
        """Say of records where they come from: the nodes, not the machine that pytest runs on."""
        hardware = allocation.describe_nodes()
        self.provenance = replace(
            self.provenance,
            versions={**allocation.find_versions(), **self.provenance.versions},
            host=measured_on(hardware, self.system),
            fingerprint=fingerprint(hardware, self.system),
            cluster=allocation.describe(),
        )
        self._judge_made = None

    @property
    def _nodes_known(self) -> bool:
        return bool(self.provenance.cluster) and backend_of(self.system).starts_servers

    @property
    def session_judge(self) -> SessionJudge:
        """What runs are held against, as far as the nodes and versions are known by now."""
        if self._judge_made is None:
            repeats = self.settings.repeats or Rules().most_runs
            again = self.system.figures is not None or backend_of(self.system).starts_servers
            most = min(repeats, Rules().most_runs) if again else 1
            self._judge_made = SessionJudge(
                system=self.system,
                provenance=self.provenance,
                nodes_known=self._nodes_known,
                session=self.store.session,
                runs=self.store.folder.parent,
                state=self.state,
                most_runs=most,
            )
        return self._judge_made

    def measure(self, deployed: RestartableDeployment, workload: Workload) -> Cell:
        """Run *workload*, and keep the records.

        Where limits decide, as often as asked on the servers that are up; where nights are judged
        once, and then on fresh starts until the cell is no longer suspicious or the runs are spent,
        the cell's or the session's.

        :raises InvalidRunError: if a run is invalid; its record is written all the same.
        """
        key = (deployed.deployment.topology.id, workload.id)
        if key in self.cells:
            return self.cells[key]
        try:
            cell = self.cells[key] = self._measured(deployed, workload)
        except BaseException:
            self.cells.pop(key, None)
            raise
        return cell

    def _measured(self, deployed: RestartableDeployment, workload: Workload) -> Cell:
        key = (deployed.deployment.topology.id, workload.id)
        nightly = self.session_judge.expectation
        if nightly is None or not nightly.knows(key) or self.settings.record:
            return self._runs(deployed, workload, self.settings.repeats or 1)
        cell, most = self._runs(deployed, workload, 1), nightly.rules.most_runs
        while (
            deployed.restartable
            and len(cell.records) < most
            and (odd := nightly.suspicious({key: cell.records}, key))
        ):
            if self.confirmations >= nightly.rules.most_confirmations:
                self.unconfirmed.append(key)
                break
            self.confirmations += 1
            self.progress(
                f"{', '.join(odd)} of {workload.id} looks odd; run {len(cell.records) + 1} of at "
                f"most {most}, on a fresh start"
            )
            deployed.restart()
            cell = self._runs(deployed, workload, 1, before=cell)
        return cell

    def _runs(
        self,
        deployed: RestartableDeployment,
        workload: Workload,
        runs: int,
        *,
        before: Cell | None = None,
    ) -> Cell:
        """*before* and so many runs more; none of their records is written over another's."""
        written = [*zip(before.records, before.paths, strict=True)] if before else []
        first = self.store.next_repeat(deployed.deployment.topology.id, workload)
        for repeat in range(first, first + runs):
            written.append(self._run(deployed, workload, repeat))
        cell = Cell(
            records=tuple(record for record, _ in written), paths=tuple(p for _, p in written)
        )
        said = [line for record, path in written for line in self._invalidity(record, path)]
        if said:
            self.invalid[cell.topology, workload.id] = cell
            raise InvalidRunError(
                "\n".join([f"the run of {cell.records[0].cell} is invalid:", *said])
            )
        return cell

    def _invalidity(self, record: Record, path: Path) -> list[str]:
        """Why *record* is invalid, a line each, and then its file."""
        said = [f"  {finding.check}: {finding.message}" for finding in record.invalid]
        return [*said, f"  record  {path}"] if said else []

    def _run(
        self,
        deployed: RestartableDeployment,
        workload: Workload,
        repeat: int,
    ) -> tuple[Record, Path]:
        return deployed.deployment.measure(
            workload,
            repeat=repeat,
            start=deployed.starts - 1,
            store=self.store,
            provenance=self.provenance,
        )

    def judge(self, cell: Cell) -> Verdict:
        """Hold a cell against its envelopes, or make it the reference where that was asked.

        :raises ConfigError: if a baseline cannot be used.
        """
        if self.settings.record:
            verdict = self._record(cell)
        else:
            verdict = self._judge(cell)
        self.verdicts[cell.topology, cell.workload.id] = verdict
        return verdict

    def _judge(self, cell: Cell) -> Verdict:
        verdict = self.session_judge.judge(cell.records)
        key = (cell.topology, cell.workload.id)
        if verdict.status is not Status.NOT_JUDGED or not self.session_judge.is_new(key):
            return verdict.beside(*self._pointers(cell))
        if voided_in(cell.records).issuperset(METRICS.latencies):
            why = "every latency is void, so this run cannot become the reference"
            return replace(verdict, misses=(why,)).beside(*self._pointers(cell))
        verdict = replace(verdict, status=Status.NEW, misses=())
        if self.system.judgement.host_envelopes:
            written = self._record_host(cell)
            verdict = replace(verdict, recorded=written).beside(("reference", str(written)))
        return verdict.beside(*self._pointers(cell))

    def judge_topology(self, topology: str) -> Verdict:
        """Judge each metric over all cells of *topology*: what is spread too thin for one.

        :returns: NOT JUDGED if nights judge fewer than two of its cells; INCONCLUSIVE if fewer
            than two of those were measured.
        """
        tonight = {key: cell.records for key, cell in self.cells.items()}
        verdict = self.session_judge.judge_topology(topology, tonight)
        if verdict is None or self.settings.record:
            why = "fewer than two of its cells have several nights in the baseline"
            if self.settings.record:
                why = "its cells are being recorded (--pdserve-record)"
            misses = (f"{topology} as a whole: {why}",)
            return Verdict(status=Status.NOT_JUDGED, subject=topology, misses=misses)
        self.wholes[topology] = verdict.beside(("records", str(self.store.folder)))
        return self.wholes[topology]

    def _pointers(self, cell: Cell) -> tuple[tuple[str, str], ...]:
        notes = {f.message for record in cell.records for f in record.findings if f.is_note}
        where = [("note", note) for note in sorted(notes)]
        where += [("record", str(path)) for path in cell.paths]
        if self.system.judgement.nights:
            return (*where, ("accept", f"pdserve baseline propose --system {self.system.name}"))
        known = {point.id: point.test_id for point in self.system.sweep.points()}
        short = known.get(cell.workload.id, cell.workload.id)
        only = f' -k "{cell.topology} and {short}"' if _SELECTABLE.fullmatch(short) else ""
        accept = f"pytest suites/{SUITE}{only} --pdserve-record"
        return (
            *where,
            ("accept", f"{accept} --topology {cell.topology} --system {self.system.name}"),
        )

    def _record(self, cell: Cell) -> Verdict:
        own = self.system.judgement.host_envelopes
        path = record_envelopes(
            cell.records,
            self.system,
            path=baseline_path(self.system, SUITE),
            suite=SUITE,
            names=METRICS.counts if own else (*METRICS.times, *METRICS.counts),
            fingerprint=self.provenance.fingerprint if self._nodes_known and not own else None,
        )
        evidence = [("candidate", str(path))]
        times = self._record_host(cell) if own else None
        if times is not None:
            evidence.append(("times", str(times)))
        return Verdict(
            status=Status.NEW,
            recorded=times,
            subject=cell.records[0].cell,
            misses=("recorded as a candidate baseline, not judged; read it, then commit it",),
            evidence=(*evidence, *(("record", str(path)) for path in cell.paths)),
        )

    def _record_host(self, cell: Cell) -> Path:
        return record_envelopes(
            cell.records,
            self.system,
            path=self.session_judge.host_path,
            suite=SUITE,
            names=METRICS.times,
            fingerprint=self.provenance.fingerprint,
        )

    def judge_claim(self, claim: Claim) -> ClaimVerdict:
        """Compare topologies by this session's cells.

        NOT ASKED if one of them was not run; REPORTED if the claim does not hold, and is not
        enforced on this system.

        :raises PdserveError: if a topology or a cell that it needs ended in an ERROR.
        """
        verdict = self._not_asked(claim) or self._judged(claim)
        self.claims.append((claim, verdict))
        return verdict

    def _not_asked(self, claim: Claim) -> ClaimVerdict | None:
        run = self.broken.union(topology for topology, _ in (*self.cells, *self.invalid))
        absent = [topology for topology in claim.topologies if topology not in run]
        if self.system.figures is not None or not absent:
            return None
        was = "was" if len(absent) == 1 else "were"
        why = f"{', '.join(absent)} {was} not run; add --topology all"
        return ClaimVerdict(status=Status.NOT_ASKED, subject=claim.subject, misses=(why,))

    def _judged(self, claim: Claim) -> ClaimVerdict:
        look, points = self.look_for(claim), self.system.sweep.points()
        sides = sides_of(claim, points, look)
        if troubles := sorted({side.trouble for side in sides if side.trouble}):
            raise PdserveError(f"claim not judged: {'; '.join(troubles)}")
        verdict = judge_claim(claim, points, look, system=self.system.name)
        if verdict.status is Status.FAIL and self.system.judgement.claims == "report":
            return replace(verdict, status=Status.REPORTED)
        return verdict

    def look_for(self, claim: Claim) -> Look:
        """What finds the sides of *claim*."""
        measured = {key: cell.records for key, cell in self.cells.items()}
        known = self.session_judge.known(claim, measured)
        sizes = {name: size for name in claim.topologies if (size := self._size(name)) is not None}
        return replace(
            known,
            broken=self.broken,
            invalid=self.invalid.keys(),
            sizes=sizes,
            per_gpu=claim.per == "gpu",
        ).look

    def _size(self, topology: str) -> Size | None:
        """Nodes and GPUs of *topology*; None of servers that somebody else runs."""
        system = self.system
        known = system.figures is not None or backend_of(system).starts_servers
        return size_on(system, topology) if known else None


def _store(runs: Path, system: System) -> RunStore:
    """A new run folder; of figures nothing is ever written, so that none is made."""
    if system.figures is not None:
        return RunStore(folder=runs, session=SessionRef(id=system.name))
    return create_run(runs, system.name, simulated_night=backend_of(system).night(system))
