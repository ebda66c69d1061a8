"""State of a session: measured cells, verdicts, reruns."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.history import one_per_start
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.store import create_run
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.serving.provenance import measured_on
from pytest_pdserve.serving.restartable import RestartableDeployment
from pytest_pdserve.serving.shared import SharedEngines
from pytest_pdserve.session.cell import Cell
from pytest_pdserve.session.deadline import Deadline
from pytest_pdserve.session.joining import join_nights
from pytest_pdserve.session.joining import judge_new
from pytest_pdserve.session.phases import SessionPhases
from pytest_pdserve.session.pointers import pointers
from pytest_pdserve.session.provenance import provenance_before
from pytest_pdserve.session.session_judge import SessionJudge
from pytest_pdserve.session.session_judge import brief
from pytest_pdserve.session.settings import Settings
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.errors import InvalidRunError
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import System
from pytest_pdserve.values.transfer import CheckedPairs
from pytest_pdserve.values.workload import Workload

_LOST = "it could not run again, since the topology ended in an ERROR"
_ENDED = "the session ended before it could run again"
NEW_SUSPICION = RULE.suspicious_share / 2
"""Suspicion of a cell without a reference: lower than of suspicious cells, which run first."""


@dataclass(slots=True, kw_only=True)
class Session:
    """State of a session that fixtures and the summary share."""

    settings: Settings
    """Settings from options and ini keys."""
    system: System
    """System, with its model path resolved."""
    store: RunStore
    """Run folder, where records are written."""
    provenance: Provenance
    """Versions and host."""
    state: Path
    """Folder of the references of single hosts."""
    cells: dict[Key, Cell] = field(default_factory=dict)
    """Measured cells whose runs are valid, by topology and workload id."""
    invalid: dict[Key, Cell] = field(default_factory=dict)
    """Cells with an invalid run, likewise."""
    checked_pairs: CheckedPairs = field(default_factory=dict)
    """Pairs of nodes that the preflight has checked."""
    broken: set[str] = field(default_factory=set)
    """Topologies that ended in an ERROR."""
    verdicts: dict[Key, Verdict] = field(default_factory=dict)
    """Verdict of each judged cell."""
    topology_verdicts: dict[str, Verdict] = field(default_factory=dict)
    """Verdict of each topology's median."""
    reruns: int = 0
    """Runs of suspicious cells on fresh starts so far."""
    waiting: set[Key] = field(default_factory=set)
    """Deferred cells that have not been judged since."""
    deployments: dict[str, RestartableDeployment] = field(default_factory=dict)
    """Every topology that has been used, by its id."""
    shared: dict[str, SharedEngines] = field(default_factory=dict)
    """Instances that topologies share, by topology id."""
    trouble: list[str] = field(default_factory=list)
    """Errors that occurred after the tests, for the summary."""
    progress: Progress = print
    """Receives progress messages."""
    claims: list[tuple[Claim, ClaimVerdict]] = field(default_factory=list)
    """Claims that were judged, with their verdicts."""
    smoke: dict[str, tuple[str, Verdict]] = field(default_factory=dict)
    """Topology and verdict of each smoke test, by its node id."""
    phases: SessionPhases = field(default_factory=SessionPhases)
    """Times by phase."""
    deadline: Deadline = field(default_factory=Deadline)
    """Time at which it must have ended."""
    _cached_judge: SessionJudge | None = None

    @classmethod
    def start(cls, settings: Settings) -> Session:
        """Create the run folder, and collect versions and hardware of this host.

        :raises ConfigError: if the client's offsets cannot be read.
        :raises StoreError: if the folder cannot be created.
        """
        system = with_model_path(settings.system)
        return cls(
            settings=settings,
            system=system,
            store=(store := _store(settings.project.runs, system)),
            phases=SessionPhases(None if system.simulated or system.figures else store),
            provenance=provenance_before(system, settings.project.rootdir),
            state=state_folder(),
            deadline=Deadline.at(settings.until),
        )

    def set_versions(self, versions: Mapping[str, str]) -> None:
        """Add *versions* that servers report to the provenance, unless they are already known."""
        if versions.keys() - self.provenance.versions.keys():  # keeps the cached judge otherwise
            self.provenance = replace(
                self.provenance, versions={**versions, **self.provenance.versions}
            )
            self._cached_judge = None

    def set_nodes(self, allocation: Allocation) -> None:
        """Replace the hardware in the provenance by that of the nodes, and add their versions."""
        hardware = allocation.describe_nodes()
        self.provenance = replace(
            self.provenance,
            versions={**allocation.find_versions(), **self.provenance.versions},
            host=measured_on(hardware, self.system),
            fingerprint=fingerprint(hardware, self.system),
            cluster=allocation.describe(),
        )
        self._cached_judge = None

    @property
    def _nodes_known(self) -> bool:
        return bool(self.provenance.cluster) and backend_of(self.system).starts_servers

    @property
    def session_judge(self) -> SessionJudge:
        """Judge of this session, for the nodes and versions that are known so far."""
        if self._cached_judge is None:
            self._cached_judge = SessionJudge(
                system=self.system,
                provenance=self.provenance,
                nodes_known=self._nodes_known,
                session=self.store.session,
                runs=self.store.folder.parent,
                state=self.state,
                rootdir=self.settings.project.rootdir,
                history_folder=self.settings.project.history,
            )
        return self._cached_judge

    def measure(
        self, deployed: RestartableDeployment, workload: Workload, *, again: bool = False
    ) -> Cell:
        """Run *workload* and return its cell; a cell that was already measured is not run again.

        :param again: whether to run a measured cell once more on a fresh start if it
            :meth:`wants_run`.
        :raises InvalidRunError: if a run is invalid; its record is written nevertheless.
        """
        key = (deployed.topology.id, workload.id)
        before = self.cells.get(key)
        if before is None:
            return self._measured(deployed, workload, None)
        return self.measure_again(deployed, before) if again and self.wants_run(key) else before

    def measure_again(self, deployed: RestartableDeployment, before: Cell) -> Cell:
        """Run a cell once more, on a start of the servers on which it has not run yet.

        :raises InvalidRunError: as :meth:`measure`.
        """
        used = {record.start for record in before.records}
        new = self.is_new((before.topology, before.workload.id))
        with contextlib.nullcontext() if new else self.phases.rerunning():
            if deployed.restartable and deployed.starts and deployed.starts - 1 in used:
                deployed.restart()
            cell = self._measured(deployed, before.workload, before)
        if not new:
            self.reruns += 1
        return cell

    def _measured(
        self, deployed: RestartableDeployment, workload: Workload, before: Cell | None
    ) -> Cell:
        key = (deployed.topology.id, workload.id)
        try:
            with self.deadline.timing():
                self.cells[key] = self._runs(deployed, workload, before)
        except InvalidRunError:
            self.cells.pop(key, None)
            raise
        return self.cells[key]

    def rotation(self, start: int) -> int:
        """Return the positions by which nodes are rotated at a start of a topology.

        Instances use other nodes on each night and each start, so that a slow node can be told from
        a slow stack. Nodes that are one machine are not rotated.
        """
        if self.system.cluster.shared_host:
            return 0
        night, began = self.store.session.simulated_night, self.store.session.began
        if night is None:
            night = began.date().toordinal() if began else 0
        return (night + start) % self.system.cluster.nodes

    def is_new(self, key: Key) -> bool:
        """Return whether a cell has no reference yet."""
        return self.session_judge.is_new(key)

    def wants_run(self, key: Key) -> bool:
        """Return whether one more run of a measured cell on a fresh start is needed and allowed."""
        return self.suspicion(key) > 0 and not self.reruns_exhausted(1, key)

    def suspicion(self, key: Key) -> float:
        """Return how urgently a cell needs one more run: its worst change in limits; 0 if not."""
        cell = self.cells[key]
        if self.is_new(key):
            return NEW_SUSPICION if self._starts(cell) < self._first_starts else 0.0
        return self.session_judge.suspicion(key, cell.records)

    def defer(self, key: Key) -> str:
        """Mark a cell as waiting for one more run, and return the reason.

        :returns: empty for a cell without a reference, except for the first of its topology.
        """
        cell, waiting = self.cells[key], {topology for topology, _ in self.waiting}
        self.waiting.add(key)
        if self.is_new(key):
            why = f"cells without a reference are measured on {self._first_starts} starts"
            return why if key[0] not in waiting else ""
        worst = self.session_judge.worst_suspicion(key, cell.records)
        return brief(worst) if worst is not None else ""

    def _starts(self, cell: Cell) -> int:
        return len(one_per_start(cell.records))

    @property
    def _first_starts(self) -> int:
        """Number of starts on which a cell without a reference is measured."""
        return self.settings.first_runs if backend_of(self.system).starts_servers else 1

    def reruns_exhausted(self, runs: int, key: Key) -> bool:
        """Return whether *runs* more reruns are too many; store why in ``why_unconfirmed``."""
        if not self.deadline.has_time_for(runs):
            self.session_judge.why_unconfirmed[key] = f"no time is left before {self.deadline}"
            return True
        if key in self.cells and self.is_new(key):
            return False
        max_reruns = self.system.judgement.max_reruns
        if self.reruns + runs <= max_reruns:
            return False
        why = f"[judgement] max_reruns = {max_reruns} allows no more"
        self.session_judge.why_unconfirmed[key] = why
        return True

    def _runs(
        self, deployed: RestartableDeployment, workload: Workload, before: Cell | None
    ) -> Cell:
        """Run *workload* on the present start, and return the cell with the runs of *before*."""
        written = [*zip(before.records, before.paths, strict=True)] if before else []
        first = self.store.next_repeat(deployed.topology.id, workload)
        for repeat in range(first, first + self.settings.repeats):
            written.append(self._run(deployed, workload, repeat))
        cell = Cell(
            records=tuple(record for record, _ in written), paths=tuple(p for _, p in written)
        )
        reasons = [line for record, path in written for line in self._invalidity(record, path)]
        if reasons:
            self.invalid[cell.topology, workload.id] = cell
            raise InvalidRunError(
                "\n".join([f"the run of {cell.records[0].cell} is invalid:", *reasons])
            )
        return cell

    def _invalidity(self, record: Record, path: Path) -> list[str]:
        """Return why *record* is invalid, one reason a line, and its file; empty if it is valid."""
        reasons = [f"  {finding.check}: {finding.message}" for finding in record.invalid]
        return [*reasons, f"  record  {path}"] if reasons else []

    def _run(
        self,
        deployed: RestartableDeployment,
        workload: Workload,
        repeat: int,
    ) -> tuple[Record, Path]:
        record, path = self.phases.measured(
            lambda: deployed.deployment.measure(
                workload,
                repeat=repeat,
                start=deployed.starts - 1 if deployed.restartable else None,
                store=self.store,
                provenance=self.provenance,
            )
        )
        self.set_versions(record.versions)
        return record, path

    def judge(self, cell: Cell) -> Verdict:
        """Judge a cell by its baseline; without one it is NEW, and its runs become the baseline.

        :raises ConfigError: if the baseline cannot be used.
        :raises StoreError: if it cannot be written.
        """
        key = (cell.topology, cell.workload.id)
        if self.is_new(key):
            verdict = judge_new(self, cell)
        else:
            verdict = self.session_judge.judge(key, cell.records)
        verdict = verdict.with_evidence(*pointers(self, cell))
        self.waiting.discard(key)
        self.verdicts[key] = verdict
        return verdict

    def judge_topology(self, deployed: RestartableDeployment) -> Verdict:
        """Judge a topology by the median of each metric over its cells.

        If it is suspicious, all of its cells are run again on fresh starts first.

        :returns: NOT JUDGED if fewer than two of its cells have a reference and were measured; NOT
            ASKED if the sweep has only one cell, which is judged by itself.
        """
        topology = deployed.topology.id
        while self._rerun_topology(deployed):
            pass
        verdict = self.session_judge.judge_topology(topology, self.tonight())
        if verdict is None:
            status, why = Status.NOT_JUDGED, "fewer than two of its cells have a reference and ran"
            if len(self.system.sweep.points()) < 2:
                status, why = Status.NOT_ASKED, "the sweep has one cell, which is judged by itself"
            misses = (f"{topology} as a whole: {why}",)
            return Verdict(status=status, subject=topology, misses=misses)
        verdict = verdict.with_evidence(("records", str(self.store.folder)))
        self.topology_verdicts[topology] = verdict
        return verdict

    def _rerun_topology(self, deployed: RestartableDeployment) -> bool:
        """Run all cells of a suspicious topology on a fresh start; return whether that was done."""
        topology = deployed.topology.id
        worst = self.session_judge.worst_of_topology(topology, self.tonight())
        if worst is None:
            return False
        cells = [cell for key, cell in self.cells.items() if key[0] == topology]
        cells = [c for c in cells if not self.is_new((topology, c.workload.id))]
        if self.reruns_exhausted(len(cells), (topology, "")):
            return False
        over = f"{brief(worst)}, over {len(cells)} cells"
        self.progress(f"{over}: all of them run again on {deployed.rerun_target}")
        with self.phases.rerunning():
            if deployed.restartable and deployed.starts:
                deployed.restart()
            for cell in cells:
                self.measure_again(deployed, cell)
        return True

    def close(self) -> None:
        """Judge cells that still wait for a run, and add PASS cells to the baseline.

        Errors are added to :attr:`trouble`, for the summary.
        """
        if self._cached_judge is None:
            return
        try:
            self._judge_waiting()
            join_nights(self)
        except PdserveError as error:
            self.trouble.append(f"tonight's PASS cells did not join the baseline: {error}")

    def _judge_waiting(self) -> None:
        """Judge suspicious cells and topologies that could not run again by the runs they have."""
        judge = self.session_judge
        for key in sorted(self.waiting & self.cells.keys()):
            if not self.is_new(key):
                judge.why_unconfirmed.setdefault(key, _LOST if key[0] in self.broken else _ENDED)
                self.judge(self.cells[key])
        for topology in sorted(self.broken - self.topology_verdicts.keys()):
            judge.why_unconfirmed.setdefault((topology, ""), _LOST)
            verdict = judge.judge_topology(topology, self.tonight())
            if verdict is not None and verdict.status is not Status.PASS:
                self.topology_verdicts[topology] = verdict

    def tonight(self) -> dict[Key, tuple[Record, ...]]:
        """Return the valid runs of this session by cell."""
        return {key: cell.records for key, cell in self.cells.items()}


def _store(runs: Path, system: System) -> RunStore:
    """Create a run folder and return its store; for figures, a store that is never written to."""
    if system.figures is not None:
        return RunStore(folder=runs, session=SessionRef(id=system.name))
    return create_run(runs, system.name, simulated_night=backend_of(system).night(system))
