"""One session: what was measured so far, and how it is judged."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Literal

from pytest_pdserve.cluster.facts import describe_hardware
from pytest_pdserve.cluster.local import LocalAllocation
from pytest_pdserve.cluster.process import Allocation
from pytest_pdserve.cluster.process import Progress
from pytest_pdserve.cluster.versions import find_versions
from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.judge.envelope import judge_cell
from pytest_pdserve.judge.ratios import PairSpread
from pytest_pdserve.judge.sides import HERE
from pytest_pdserve.judge.sides import Known
from pytest_pdserve.judge.spreads import pair_spread
from pytest_pdserve.judge.stats import location
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.judge.wording import combined
from pytest_pdserve.judge.wording import of_topology
from pytest_pdserve.options import Settings
from pytest_pdserve.results.baselines import baseline_path
from pytest_pdserve.results.baselines import host_baseline_path
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import merge
from pytest_pdserve.results.baselines import record_envelopes
from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.results.calibration import load_calibration
from pytest_pdserve.results.claims import figures_path
from pytest_pdserve.results.claims import load_figures
from pytest_pdserve.results.history import History
from pytest_pdserve.results.history import past_nights
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.store import create_run
from pytest_pdserve.serving.deployment import Deployment
from pytest_pdserve.serving.measure import Provenance
from pytest_pdserve.serving.measure import measure
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.serving.provenance import endpoint_versions
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.serving.provenance import git_commit
from pytest_pdserve.serving.simulated import SimulatedDeployment
from pytest_pdserve.serving.simulated import measure_simulated
from pytest_pdserve.serving.standing import Standing
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.calibration import Calibration
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import InsaneRunError
from pytest_pdserve.values.figures import Figures
from pytest_pdserve.values.metrics import COUNTS
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.metrics import TIMES
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import night_of_run
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import Workload

if TYPE_CHECKING:
    from pytest_pdserve.judge.expectation import Expectation

SUITE = "sweep"
"""Suite whose baselines hold cells; claims draw on the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """All runs of one workload on one topology in this session."""

    records: tuple[Record, ...]
    """At least one."""
    paths: tuple[Path, ...]
    """Their files."""

    @property
    def topology(self) -> str:
        """Topology id."""
        return self.records[0].topology

    @property
    def workload(self) -> Workload:
        """What was asked."""
        return self.records[0].workload

    def value(self, metric: str) -> float | None:
        """One number for all runs; None if one lacks the metric, or sanity voids it."""
        values = [dict(record.metrics).get(metric) for record in self.records]
        present = [value for value in values if value is not None]
        if len(present) < len(values) or any(metric in r.voided for r in self.records):
            return None
        try:
            return location(present, METRICS[metric].better)
        except ValueError:
            return None


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
    """Sane cells by topology and workload."""
    insane: dict[tuple[str, str], Cell] = field(default_factory=dict)
    """Cells whose numbers mean nothing."""
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    """Verdict of each judged cell."""
    wholes: dict[str, Verdict] = field(default_factory=dict)
    """Verdict of each topology over all its cells."""
    nightly: Expectation | Literal[False] | None = False
    """What nights are judged by; False until it was looked for."""
    history: History | None = None
    """Past nights that windows look back at; None until they were looked for."""
    calibration: Calibration | None = None
    """How noisy the system was seen to be, once nights are judged."""
    progress: Progress = print
    """Where to say that a cell is run again."""
    figures: Figures | None = None
    """Of a system that is nothing else, once a claim asked for them."""
    claims: list[tuple[Claim, ClaimVerdict]] = field(default_factory=list)
    """Verdict of each claim."""

    @classmethod
    def start(cls, settings: Settings) -> Session:
        """Make the run folder and look at host and versions.

        :raises StoreError: if the folder cannot be made.
        """
        system = with_model_path(settings.system)
        host = host_of(settings)
        versions = {k: v for k, v in find_versions().items() if k == "pytest-pdserve"}
        commit = git_commit(settings.rootdir)
        if commit is not None:
            versions["commit"] = commit
        return cls(
            settings=settings,
            system=system,
            store=_store(settings.runs, system),
            provenance=Provenance(
                versions=versions, host=host, fingerprint=fingerprint(host, system)
            ),
            state=state_folder(),
        )

    def learn_versions(self, deployment: Deployment) -> None:
        """Ask an endpoint that somebody else runs for its version."""
        said = endpoint_versions(deployment.client, deployment.url)
        self.provenance = replace(self.provenance, versions={**said, **self.provenance.versions})

    def learn_nodes(self, allocation: Allocation) -> None:
        """Say of records where they come from: the nodes, not the machine that pytest runs on."""
        host = dict(allocation.describe_nodes())
        self.provenance = replace(
            self.provenance,
            versions={**allocation.find_versions(), **self.provenance.versions},
            host=host,
            fingerprint=fingerprint(host, self.system),
            cluster=allocation.describe(),
        )

    def measure(self, standing: Standing, allocation: Allocation, workload: Workload) -> Cell:
        """Run *workload*, and keep the records.

        Where limits decide, as often as asked on the servers that are up; where nights are judged
        once, and then on fresh starts until the cell is no longer suspicious or the runs are spent.

        :raises InsaneRunError: if a run means nothing; its record is written all the same.
        """
        key = (standing.deployment.topology.id, workload.id)
        nightly = self.expectation()
        if nightly is None or not nightly.knows(key) or self.settings.record:
            return self._measured(standing, allocation, workload, self.settings.repeats or 1)
        cell = self._measured(standing, allocation, workload, 1)
        most = min(self.settings.repeats or nightly.rules.most_runs, nightly.rules.most_runs)
        while (
            standing.restartable
            and len(cell.records) < most
            and (odd := nightly.suspicious({key: cell.records}, key))
        ):
            self.progress(
                f"{', '.join(odd)} of {workload.id} looks odd; run {len(cell.records) + 1} of at "
                f"most {most}, on a fresh start"
            )
            standing.restart()
            cell = self._measured(standing, allocation, workload, 1, before=cell)
        return cell

    def _measured(
        self,
        standing: Standing,
        allocation: Allocation,
        workload: Workload,
        runs: int,
        *,
        before: Cell | None = None,
    ) -> Cell:
        made = len(before.records) if before else 0
        written = [*zip(before.records, before.paths, strict=True)] if before else []
        for repeat in range(made, made + runs):
            written.append(self._run(standing.deployment, allocation, workload, repeat))
        cell = Cell(
            records=tuple(record for record, _ in written), paths=tuple(p for _, p in written)
        )
        key = (cell.topology, workload.id)
        findings = [finding for record in cell.records for finding in record.insane]
        unproven = [f for r in cell.records for f in r.findings if f.severity == "unproven"]
        if self.settings.strict:
            findings += unproven
        if findings:
            self.cells.pop(key, None)
            self.insane[key] = cell
            said = "\n".join(f"  {finding.check}: {finding.message}" for finding in findings)
            raise InsaneRunError(
                f"the run of {cell.records[0].cell} means nothing:\n{said}\n"
                f"  record  {cell.paths[0]}"
            )
        self.cells[key] = cell
        return cell

    def _run(
        self,
        deployment: Deployment | SimulatedDeployment,
        allocation: Allocation,
        workload: Workload,
        repeat: int,
    ) -> tuple[Record, Path]:
        store, provenance = self.store, self.provenance
        if isinstance(deployment, SimulatedDeployment):
            return measure_simulated(
                deployment, workload, repeat=repeat, store=store, provenance=provenance
            )
        return measure(
            deployment, allocation, workload, repeat=repeat, store=store, provenance=provenance
        )

    def baseline(self, suite: str = SUITE) -> Baseline | None:
        """What the repository and, where it counts, this host expect.

        :raises ConfigError: if a file is malformed or of another host.
        """
        return merge(self._shared_baseline(suite), self._host_baseline(suite))

    def judge(self, cell: Cell, suite: str = SUITE) -> Verdict:
        """Hold a cell against its envelopes, or make it the reference where that was asked.

        :raises ConfigError: if a baseline cannot be used.
        """
        if self.settings.record:
            verdict = self._record(cell, suite)
        else:
            verdict = self._judge(cell, suite)
        self.verdicts[cell.topology, cell.workload.id] = verdict
        return verdict

    def _judge(self, cell: Cell, suite: str) -> Verdict:
        path = baseline_path(self.system, suite)
        shared, host = self._shared_baseline(suite), self._host_baseline(suite)
        expected = merge(shared, host) or _empty(self.system, suite, path)
        verdict = judge_cell(cell.records, expected)
        nightly = self.expectation()
        key = (cell.topology, cell.workload.id)
        if nightly is not None and nightly.knows(key):
            verdict = combined(verdict, nightly.of_cell({key: cell.records}, key))
        fresh = self.system.judgement.host_envelopes and (
            host is None or host.envelopes(cell.topology, cell.workload.id) is None
        )
        if fresh and verdict.status is Status.PASS:
            written = self._record_host(cell, suite)
            verdict = replace(verdict, status=Status.RECORDED)
            verdict = _with_evidence(verdict, ("times", f"{written} (recorded, not judged)"))
        return _with_evidence(verdict, *self._pointers(cell, suite))

    def judge_topology(self, topology: str) -> Verdict | None:
        """Judge each metric over all cells of *topology*: what is spread too thin for one.

        :returns: None if fewer than two of its cells were measured, or none is judged by nights.
        """
        nightly = self.expectation()
        if nightly is None or self.settings.record:
            return None
        tonight = {key: cell.records for key, cell in self.cells.items()}
        tests = nightly.of_topology(tonight, topology)
        if not tests:
            return None
        verdict = of_topology(tests, f"{topology} over all cells, {self.system.name}")
        origin = "nowhere" if (expected := self.baseline()) is None else expected.origin
        verdict = _with_evidence(verdict, ("baseline", origin), ("records", str(self.store.folder)))
        self.wholes[topology] = verdict
        return verdict

    def expectation(self) -> Expectation | None:
        """What the baseline leads to expect of nights; None if none of its envelopes has values.

        Read once: a baseline that this session writes is for the next one.
        """
        if self.nightly is False:
            self.nightly = self._expectation()
        return self.nightly

    def _expectation(self) -> Expectation | None:
        baseline = self.baseline()
        if baseline is None or not baseline.has_values:
            return None
        from pytest_pdserve.judge.expectation import expectation_of  # noqa: PLC0415 - scipy

        expected = expectation_of(
            baseline,
            floor=lambda name: self.system.judgement.floor(name, METRICS[name].floor),
            rules=self._rules(),
        )
        if expected is None:
            return None
        return expected.after(self._history().nights)

    def _rules(self) -> Rules:
        """The rules, with what is known of this system's noise."""
        self.calibration = load_calibration(self.system)
        return Rules() if self.calibration is None else Rules(icc=self.calibration.icc)

    def _history(self) -> History:
        """Nights since the baseline was made, as many as windows look back at; read once."""
        if self.history is None:
            baseline = self.baseline()
            self.history = past_nights(
                self.store.folder.parent,
                like=(self.provenance.fingerprint, self.provenance.versions),
                system=self.system.name,
                tonight=night_of_run(self.store.run_id, self.provenance.cluster),
                baseline=baseline.runs if baseline else (),
                most=Rules().budget.past_nights,
            )
        return self.history

    def _pointers(self, cell: Cell, suite: str) -> tuple[tuple[str, str], ...]:
        lengths = cell.workload.lengths
        where = [("record", str(path)) for path in cell.paths]
        if self.system.judgement.nights:
            return (*where, ("accept", f"pdserve baseline propose --system {self.system.name}"))
        accept = f'pytest suites/{suite} -k "{cell.topology} and {lengths}" --pdserve-record'
        return (
            *where,
            ("accept", f"{accept} --topology {cell.topology} --system {self.system.name}"),
        )

    def _record(self, cell: Cell, suite: str) -> Verdict:
        own = self.system.judgement.host_envelopes
        path = record_envelopes(
            cell.records,
            self.system,
            path=baseline_path(self.system, suite),
            suite=suite,
            names=COUNTS if own else (*TIMES, *COUNTS),
        )
        evidence = [("candidate", str(path))]
        if own:
            evidence.append(("times", str(self._record_host(cell, suite))))
        return Verdict(
            status=Status.RECORDED,
            subject=cell.records[0].cell,
            misses=("recorded as a candidate baseline, not judged; read it, then commit it",),
            evidence=(*evidence, *(("record", str(path)) for path in cell.paths)),
        )

    def _record_host(self, cell: Cell, suite: str) -> Path:
        return record_envelopes(
            cell.records,
            self.system,
            path=self._host_path(suite),
            suite=suite,
            names=TIMES,
            fingerprint=self.provenance.fingerprint,
        )

    def _host_path(self, suite: str) -> Path:
        return host_baseline_path(self.system, suite, self.provenance.fingerprint, self.state)

    def _shared_baseline(self, suite: str) -> Baseline | None:
        learned = bool(self.provenance.cluster)  # else the fingerprint is not that of the nodes
        return load_baseline(
            baseline_path(self.system, suite),
            fingerprint=self.provenance.fingerprint if learned else None,
            system=self.system.name,
            suite=suite,
        )

    def _host_baseline(self, suite: str) -> Baseline | None:
        if not self.system.judgement.host_envelopes:
            return None
        return load_baseline(
            self._host_path(suite),
            fingerprint=self.provenance.fingerprint,
            system=self.system.name,
            suite=suite,
        )

    def judge_claim(self, claim: Claim) -> ClaimVerdict:
        """Compare topologies by this session's cells; sides it lacks come from the baseline."""
        look = self.known().look
        verdict = judge_claim(
            claim,
            self.system.sweep.workloads(),
            look,
            system=self.system.name,
            spread=self._spread(claim),
        )
        self.claims.append((claim, verdict))
        return verdict

    def known(self) -> Known:
        """What sides of claims are taken from: of a system of figures, these and nothing else."""
        if self.system.cluster.kind == "figures":
            self.figures = self.figures or load_figures(figures_path(self.system))
            return Known(figures=self.figures)
        measured = {key: cell.records for key, cell in self.cells.items()}
        if not self._pairs_nights():
            return Known(measured=measured, baseline=self.baseline())
        # A suspicious cell's further runs have no partner, and were made because the first was odd.
        nights = [
            {key: records[:1] for key, records in measured.items()},
            *(night for night in reversed(self._history().nights) if set(measured) <= set(night)),
        ]
        paired = {key: [night[key][0] for night in nights] for key in measured}
        here = f"{HERE} and {len(nights) - 1} nights before" if len(nights) > 1 else HERE
        return Known(measured=paired, baseline=self.baseline(), here=here)

    def _spread(self, claim: Claim) -> PairSpread | None:
        if not self._pairs_nights():
            return None
        return pair_spread(self.baseline(), {relation.metric for relation in claim.relations})

    def _pairs_nights(self) -> bool:
        return self.system.judgement.nights and self.system.cluster.kind != "figures"


def _store(runs: Path, system: System) -> RunStore:
    """A new run folder; of figures nothing is ever written, so that none is made."""
    if system.cluster.kind == "figures":
        return RunStore(folder=runs)
    return create_run(runs, system.name)


def host_of(settings: Settings) -> dict[str, str]:
    """What decides how fast servers answer: this machine, or an endpoint of somebody else's."""
    return {"endpoint": settings.base_url} if settings.base_url else describe_hardware()


def _empty(system: System, suite: str, path: Path) -> Baseline:
    return Baseline(
        system=system.name,
        suite=suite,
        source=f"{path}, which does not exist",
        provenance={},
        cells={},
    )


def _with_evidence(verdict: Verdict, *evidence: tuple[str, str]) -> Verdict:
    return replace(verdict, evidence=(*verdict.evidence, *evidence))


def check_acquirable(system: System) -> None:
    """Make sure that this version can acquire nodes of *system*.

    :raises ConfigError: if it can only plan for them, or what acquires them is not installed.
    """
    kind = system.cluster.kind
    if kind == "slurm" and importlib.util.find_spec("submitit") is None:
        raise ConfigError(
            f"system {system.name!r} needs submitit, which is not installed; "
            "install pytest-pdserve[slurm]"
        )
    if kind == "simulated" and importlib.util.find_spec("simpy") is None:
        raise ConfigError(
            f"system {system.name!r} needs simpy, which is not installed; "
            "install pytest-pdserve[simulate]"
        )
    if kind == "figures":
        raise ConfigError(
            f"system {system.name!r} is figures without a machine, so nothing can be measured on "
            f"it; run pytest suites/claims --system {system.name}"
        )
    if kind == "attached":
        raise ConfigError(
            f"system {system.name!r} is of kind {kind!r}: this version plans for it, but does not "
            "acquire its nodes; give --pdserve-base-url for an endpoint that is up"
        )


@contextlib.contextmanager
def acquire(
    system: System,
    *,
    folder: Path,
    progress: Progress,
    job_id: str | None = None,
) -> Iterator[Allocation]:
    """Nodes of *system*, given back on leaving, whatever happens.

    :param folder: the session's own; on a cluster, on a file system that nodes share.
    :param job_id: a running Slurm job whose nodes are used; None to submit one.
    :raises ConfigError: if this kind of cluster cannot be had.
    :raises AllocationError: if its nodes cannot be had.
    """
    check_acquirable(system)
    if system.cluster.kind == "slurm":
        from pytest_pdserve.cluster.slurm import acquired  # noqa: PLC0415 - knows submitit

        with acquired(system, folder=folder, job=job_id, progress=progress) as nodes:
            yield nodes
        return
    allocation: Allocation
    if system.cluster.kind == "simulated":
        from pytest_pdserve.cluster.simulated import SimulatedAllocation  # noqa: PLC0415

        allocation = SimulatedAllocation(system)
    else:
        allocation = LocalAllocation(system)
    try:
        yield allocation
    finally:
        allocation.release()


def client_only(system: System) -> System:
    """*system* reduced to one slot of this machine, for the client of somebody else's endpoint."""
    return replace(system, cluster=replace(system.cluster, kind="local", nodes=1))
