"""What the runs of a session are held against: baselines, past nights, known noise."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.judge.envelope import judge_cell
from pytest_pdserve.judge.outright import outright_worse
from pytest_pdserve.judge.sides import HERE
from pytest_pdserve.judge.sides import Known
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.judge.wording import combined
from pytest_pdserve.judge.wording import of_topology
from pytest_pdserve.results.baselines import baseline_path
from pytest_pdserve.results.baselines import host_baseline_path
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import merge
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.calibration import load_calibration
from pytest_pdserve.results.claims import figures_path
from pytest_pdserve.results.claims import load_figures
from pytest_pdserve.results.history import History
from pytest_pdserve.results.history import one_a_start
from pytest_pdserve.results.history import past_nights
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.calibration import Calibration
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.figures import Figures
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.quantities import DERIVED
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import values_of
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import System

if TYPE_CHECKING:
    from pytest_pdserve.judge.expectation import Expectation

SUITE = "sweep"
"""Suite whose baselines hold cells; claims draw on the same."""
Runs = Mapping[tuple[str, str], Sequence[Record]]
"""Valid runs of one night by cell."""


@dataclass(kw_only=True)
class SessionJudge:
    """Everything that expects something of a session; files are read when first asked for.

    They are read once: a baseline that this session writes is for the next one.
    """

    system: System
    """What was measured."""
    provenance: Provenance
    """Versions, hardware and fingerprint of this session."""
    nodes_known: bool
    """Whether the fingerprint is that of the nodes: not before they are there, and never of an
    endpoint that somebody else runs."""
    session: SessionRef
    """This session."""
    runs: Path
    """Folder of all sessions."""
    state: Path
    """Folder of envelopes of single hosts."""
    most_runs: int
    """Runs of a cell that this session may make."""

    @cached_property
    def shared(self) -> Baseline | None:
        """Baseline beside the system file.

        :raises ConfigError: if it is malformed, or of other hardware than this session's nodes.
        """
        return load_baseline(
            baseline_path(self.system, SUITE),
            fingerprint=self._nodes,
            host=self.provenance.host,
            system=self.system,
            suite=SUITE,
        )

    @property
    def _nodes(self) -> str | None:
        """Fingerprint of the nodes, where they are known."""
        return self.provenance.fingerprint if self.nodes_known else None

    def check_hardware(self) -> None:
        """Refuse what was seen of other hardware, before servers start.

        :raises ConfigError: naming the file.
        """
        _ = self.shared, self.calibration

    @property
    def host_path(self) -> Path:
        """File of what was measured on this host before."""
        return host_baseline_path(self.system, SUITE, self.provenance.fingerprint, self.state)

    @cached_property
    def host(self) -> Baseline | None:
        """What was measured on this host before, where times are kept so.

        :raises ConfigError: if it is malformed or of another host.
        """
        if not self.system.judgement.host_envelopes:
            return None
        return load_baseline(
            self.host_path,
            fingerprint=self.provenance.fingerprint,
            host=self.provenance.host,
            system=self.system,
            suite=SUITE,
        )

    @cached_property
    def baseline(self) -> Baseline | None:
        """Both together."""
        return merge(self.shared, self.host)

    @cached_property
    def calibration(self) -> Calibration | None:
        """How noisy the system was seen to be.

        :raises ConfigError: if it is malformed, or of other hardware than this session's nodes.
        """
        return load_calibration(self.system, fingerprint=self._nodes, host=self.provenance.host)

    @cached_property
    def rules(self) -> Rules:
        """Constants of the judgement, with what is known of this system's noise."""
        icc = None if self.calibration is None else self.calibration.icc
        return Rules(icc=icc, most_runs=self.most_runs)

    @cached_property
    def expectation(self) -> Expectation | None:
        """What nights are judged by; None if no envelope of the baseline has values."""
        if self.baseline is None or not self.baseline.has_values:
            return None
        from pytest_pdserve.judge.expectation import expectation_of

        expected = expectation_of(
            self.baseline,
            floor=lambda name: self.system.judgement.floor(name, METRICS[name].floor),
            rules=self.rules,
        )
        return expected and expected.after(self.history.nights)

    @property
    def nights_judged(self) -> bool:
        """Whether somebody has asked for :attr:`expectation`, and there was one."""
        return vars(self).get("expectation") is not None

    @cached_property
    def history(self) -> History:
        """Nights since the baseline was made, as many of each cell as windows look back at."""
        return past_nights(
            self.runs,
            like=(self.provenance.fingerprint, self.provenance.versions),
            system=self.system.name,
            tonight=self.session,
            baseline=self.baseline.runs if self.baseline else (),
            cells=self.baseline.keys if self.baseline else (),
            each=self.rules.budget.past_nights,
        )

    @cached_property
    def figures(self) -> Figures:
        """Of a system that is nothing else."""
        return load_figures(figures_path(self.system))

    def judge(self, runs: Sequence[Record]) -> Verdict:
        """Hold the runs of one cell against limits and counts, and against nights where it can.

        :param runs: the valid runs of a cell, at least one; limits are for all of them, and nights
            for one of each start.
        """
        key = (runs[0].topology, runs[0].workload.id)
        verdict = judge_cell(runs, self.baseline or self._nothing)
        starts = one_a_start(runs)
        if self.expectation is not None and self.expectation.knows(key):
            verdict = combined(verdict, self.expectation.of_cell({key: starts}, key))
        stored = self.baseline.envelopes(*key) if self.baseline else None
        said = tuple(outright_worse(starts, stored or {}))
        if said and verdict.status is not Status.FAIL:
            return replace(verdict, status=Status.FAIL, misses=(*said, *verdict.misses))
        return verdict

    def is_new(self, key: tuple[str, str]) -> bool:
        """Whether no latency or throughput of a cell has a reference."""
        envelopes = self.baseline.envelopes(*key) if self.baseline else None
        return set(envelopes or {}).isdisjoint(METRICS.measured)

    @property
    def _nothing(self) -> Baseline:
        missing = f"{baseline_path(self.system, SUITE)}, which does not exist"
        return Baseline(
            system=self.system.name, suite=SUITE, source=missing, provenance=None, cells={}
        )

    def judge_topology(self, topology: str, tonight: Runs) -> Verdict | None:
        """Judge each metric over all cells of *topology* together.

        :returns: None if nights judge fewer than two of its cells.
        """
        nightly = self.expectation
        known = [key for key in (nightly.keys if nightly else ()) if key[0] == topology]
        if nightly is None or self.baseline is None or len(known) < 2:
            return None
        runs = {key: tonight[key] for key in known if key in tonight}
        subject = f"{topology} over {len(runs)} of {len(known)} cells, {self.system.name}"
        verdict = of_topology(nightly.of_topology(runs, topology), subject)
        return verdict.beside(("baseline", self.baseline.origin))

    def known(self, claim: Claim, tonight: Runs) -> Known:
        """What sides of *claim* are taken from: of a system of figures, these and nothing else.

        Where nights are judged, a side's runs are the first of tonight and of the newest nights
        before in which all that was measured tonight of the claim has a value: as many as windows
        look back at, however far others made the history reach.

        :param tonight: valid runs of this session.
        """
        if self.system.figures is not None:
            return Known(figures=self.figures)
        if not self.system.judgement.nights:
            return Known(measured=tonight, baseline=self.baseline)
        compared = {p.id for p in self.system.sweep.points() if claim.looks_at(p)}
        needed = {key for key in tonight if key[0] in claim.topologies and key[1] in compared}
        metrics = {m for r in claim.relations for m in _plain(r.metric)}
        before = [
            night
            for night in reversed(self.history.nights)
            if all(_has(night.get(key, ())[:1], metrics) for key in needed)
        ][: self.rules.budget.past_nights]
        # A suspicious cell's further runs have no partner, and were made because the first was odd.
        paired = {
            key: [runs[0], *(night[key][0] for night in before if key in needed)]
            for key, runs in tonight.items()
        }
        here = f"{HERE} and {len(before)} nights before" if before else HERE
        return Known(measured=paired, baseline=self.baseline, nightly=True, here=here)


def _plain(metric: str) -> Collection[str]:
    return DERIVED[metric].needs if metric in DERIVED else (metric,)


def _has(records: Sequence[Record], metrics: Collection[str]) -> bool:
    """Whether there is a run at all, and all have all *metrics*, none of them voided."""
    return bool(records) and all(values_of(records, metric) is not None for metric in metrics)
