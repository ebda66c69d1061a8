"""Judge the runs of a session: cells, topologies and claims."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property

from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.judge.cells import MetricVerdict
from pytest_pdserve.judge.cells import NightMetrics
from pytest_pdserve.judge.cells import References
from pytest_pdserve.judge.cells import judge_metrics
from pytest_pdserve.judge.cells import mark_passed
from pytest_pdserve.judge.cells import missing_metrics
from pytest_pdserve.judge.cells import night_metrics
from pytest_pdserve.judge.cells import topology_night_metrics
from pytest_pdserve.judge.cells import topology_references
from pytest_pdserve.judge.cells import wrong_counts
from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.judge.expected import Covers
from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.nightly import MetricNight
from pytest_pdserve.judge.nightly import false_alarms
from pytest_pdserve.judge.placements import slow_node
from pytest_pdserve.judge.sides import Lookup
from pytest_pdserve.judge.sides import SideSources
from pytest_pdserve.judge.since import NightRuns
from pytest_pdserve.judge.since import since_text
from pytest_pdserve.judge.since import since_when
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.judge.wording import MessageFacts
from pytest_pdserve.judge.wording import describe
from pytest_pdserve.judge.wording import percent
from pytest_pdserve.plan.placement import size_on
from pytest_pdserve.results.history import History
from pytest_pdserve.results.history import PastNight
from pytest_pdserve.results.history import one_per_start
from pytest_pdserve.session.evidence import Evidence
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import voided_in
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.sessions import night_of
from pytest_pdserve.values.topology import Size

Runs = Mapping[Key, Sequence[Record]]
"""Valid runs of one night by cell."""
Judged = tuple[tuple[MetricVerdict, ...], list[PastNight]]
"""Verdict on each metric, and the past nights that it used, newest first."""


@dataclass(kw_only=True)
class SessionJudge(Evidence):
    """Judges cells, topologies and claims by the evidence of a session."""

    why_unconfirmed: dict[Key, str] = field(default_factory=dict)
    """Why a suspicious cell was not run again; for a topology, the key is its id and ``""``."""

    def seen(self, key: Key, runs: Sequence[Record]) -> NightMetrics:
        """Return what *runs* of one night showed of a cell."""
        return night_metrics(one_per_start(runs), self.references.get(key, {}))

    def _past(self, key: Key, runs: Sequence[Record]) -> NightMetrics:
        """Return the metrics of a cell on an earlier night."""
        seen = self.seen(key, runs)
        return mark_passed(seen) if self.joined(key, runs) else seen

    def suspicion(self, key: Key, runs: Sequence[Record]) -> float:
        """Return the worst change of a cell that needs one more run, in limits; 0 if none does."""
        worst = self.worst_suspicion(key, runs)
        return worst.severity if worst is not None else 0.0

    def worst_suspicion(self, key: Key, runs: Sequence[Record]) -> MetricVerdict | None:
        """Return the metric that most needs one more run of a cell on a fresh start, if any.

        Metrics that an expected change covers need none.
        """
        return _worst(self._metrics(key, self.seen(key, runs))[0])

    def _metrics(self, key: Key, tonight: NightMetrics) -> Judged:
        """Return the verdict on each metric of a cell, and the past nights used."""
        return self._judged(
            tonight,
            lambda night: self._past(key, night.runs[key]) if key in night.runs else None,
            self.expected.covers_for_cell(key[0], self._cell_names(key[1])),
        )

    def _judged(
        self,
        tonight: NightMetrics,
        past: Callable[[PastNight], NightMetrics | None],
        covers: Covers,
    ) -> Judged:
        """Judge every metric; read more nights if a suspicion is as old as those already read.

        :param past: returns the metrics of an earlier night; None if it did not measure this.
        """
        enough = self._one_night_is_enough(tonight)
        reads: tuple[Callable[[], History], ...] = (
            lambda: self.history,
            lambda: self.alarm_history,
        )
        for read in reads:
            found = [(night, seen) for night in read().nights if (seen := past(night)) is not None]
            nights, before = [night for night, _ in found], [seen for _, seen in found]
            metrics = judge_metrics(tonight, before, one_night_is_enough=enough, covers=covers)
            worse = [metric for metric in metrics if metric.status is not Status.PASS]
            is_older = any(metric.since == len(nights) - 1 for metric in worse)
            if not is_older or len(nights) < RULE.better_nights:
                break
        return metrics, nights

    def _cell_names(self, workload: str) -> tuple[str, ...]:
        points = [point for point in self.system.sweep.points() if point.workload.id == workload]
        return (workload, *(point.name for point in points))

    def _one_night_is_enough(self, tonight: NightMetrics) -> bool:
        """Return whether an alarm of tonight may FAIL; read past nights only if there is one."""
        return not any(seen.is_alarm for seen in tonight.values()) or self.alarms_stay

    @cached_property
    def alarms_stay(self) -> bool:
        """True if alarms of this system are reliable: fewer than two were gone the next night."""
        nights = [dict(self._seen_metrics(night)) for night in reversed(self.alarm_history.nights)]
        return false_alarms(nights) < RULE.false_alarms

    @property
    def alarms_went_away(self) -> bool:
        """True if :attr:`alarms_stay` was evaluated (only for an alarm) and is False."""
        return "alarms_stay" in vars(self) and not self.alarms_stay

    def _seen_metrics(self, night: PastNight) -> Iterator[tuple[tuple[str, ...], MetricNight]]:
        for key in self.references:
            for name, seen in self._past(key, night.runs.get(key, ())).items():
                yield (*key, name), seen
        for topology in self.topologies:
            for name, seen in self._topology_past(topology, night.runs).items():
                yield (topology, name), seen

    def judge(self, key: Key, runs: Sequence[Record]) -> Verdict:
        """Judge the runs of one cell by its baseline.

        :param runs: the valid runs of tonight, at least one.
        """
        references = self.references.get(key, {})
        cell = self.baseline.cell(key) if self.baseline else None
        starts = one_per_start(runs)
        faults = [*(wrong_counts(runs, cell) if cell else ()), *missing_metrics(starts, references)]
        metrics, nights = self._metrics(key, night_metrics(starts, references))
        metrics = _with_worse_since(metrics, self._night(runs), [(n, n.runs[key]) for n in nights])
        facts = self._facts(key, metrics, starts, [night.name for night in nights])
        verdict = _verdict(runs[0].cell, metrics, faults, facts)
        if verdict.status is Status.PASS and (why := unjudged(references, runs)):
            verdict = Verdict(status=Status.NOT_JUDGED, subject=verdict.subject, misses=(why,))
        return verdict.with_evidence(("baseline", self.origin), *_since(verdict))

    def _night(self, runs: Sequence[Record]) -> NightRuns:
        return NightRuns(name=night_of(self.session, self.session), runs=runs)

    def _facts(
        self, key: Key, metrics: Sequence[MetricVerdict], runs: Sequence[Record], nights: list[str]
    ) -> MessageFacts:
        worse = any(metric.status is not Status.PASS for metric in metrics)
        return MessageFacts(
            nights=nights,
            differences=self.differences if worse else "",
            node=self._slow_node(key, metrics, runs) if worse else "",
            run=_kind_of(runs),
            one_night_is_enough=not self.alarms_went_away,
            why_unconfirmed=self.why_unconfirmed.get(key, ""),
        )

    def _slow_node(self, key: Key, metrics: Sequence[MetricVerdict], runs: Sequence[Record]) -> str:
        """Return the node that slow runs of a cell have in common, tonight and earlier."""
        references, worst = self.references[key], metrics[0].metric
        earlier = [run for night in self.history.nights for run in night.runs.get(key, ())]
        seen = [
            (run, sight[worst].is_suspicious)
            for run in (*runs, *earlier)
            if worst in (sight := night_metrics([run], references))
        ]
        return slow_node(seen)

    def lookup_for(
        self,
        claim: Claim,
        tonight: Runs,
        *,
        broken: Collection[str],
        invalid: Collection[Key],
    ) -> Lookup:
        """Return a function that finds the sides of a claim.

        For a system of figures, the sides are figures only.

        :param tonight: valid runs of this session.
        :param broken: topologies that ended in an ERROR.
        :param invalid: cells with an invalid run.
        """
        sizes = {name: size for name in claim.topologies if (size := self._size(name)) is not None}
        if self.system.figures is not None:
            sources = SideSources(figures=self.figures, per_gpu=claim.per == "gpu", sizes=sizes)
            return sources.side
        started = {key: one_per_start(runs) for key, runs in tonight.items() if runs}
        named = set(claim.topologies)
        nights = (night.runs for night in self.history.nights)
        last = next((runs for runs in nights if named <= {topology for topology, _ in runs}), {})
        return SideSources(
            measured=started,
            last_night=last,
            baseline=self.baseline,
            floors=self.system.judgement.all_floors,
            broken=broken,
            invalid=invalid,
            sizes=sizes,
            per_gpu=claim.per == "gpu",
        ).side

    def _size(self, topology: str) -> Size | None:
        """Return nodes and GPUs of *topology*; None for an attached endpoint."""
        has_nodes = self.system.figures is not None or backend_of(self.system).starts_servers
        return size_on(self.system, topology) if has_nodes else None

    def judge_claim(self, claim: Claim, lookup: Lookup) -> ClaimVerdict:
        """Judge a claim by the sides that *lookup* finds.

        The verdict is EXPECTED if an expected change covers it, and REPORTED if the claim is
        violated but not enforced on this system.
        """
        verdict = judge_claim(
            claim,
            self.system.sweep.points(),
            lookup,
            covers=lambda *cells: self.expected.entry_for_claim(claim.id, *cells),
        )
        violated = verdict.status is Status.FAIL or verdict.wants_pair
        if violated and self.system.judgement.claims == "report":
            return replace(verdict, status=Status.REPORTED, wants_pair=())
        return verdict

    @property
    def topologies(self) -> tuple[str, ...]:
        """Topologies with references for at least two cells."""
        names = [topology for topology, _ in self.references]
        return tuple(name for name in dict.fromkeys(names) if names.count(name) > 1)

    def _of_topology(self, topology: str) -> dict[Key, References]:
        return {key: there for key, there in self.references.items() if key[0] == topology}

    @cached_property
    def _topology_references(self) -> Mapping[str, References]:
        floors, baseline = self.system.judgement.all_floors, self.baseline
        return {
            name: topology_references(baseline, self._of_topology(name), floors)
            for name in self.topologies
            if baseline is not None
        }

    def _topology_seen(self, topology: str, runs: Runs) -> NightMetrics:
        started = {key: one_per_start(there) for key, there in runs.items() if there}
        cells, references = self._of_topology(topology), self._topology_references[topology]
        return topology_night_metrics(started, cells, references)

    def _topology_past(self, topology: str, runs: Runs) -> NightMetrics:
        """Return the metrics of a topology on an earlier night.

        The night is marked as passed if all of its cells joined the baseline.
        """
        seen, cells = self._topology_seen(topology, runs), self._of_topology(topology)
        joined = all(self.joined(key, runs[key]) for key in cells if runs.get(key))
        return mark_passed(seen) if joined else seen

    def worst_of_topology(self, topology: str, tonight: Runs) -> MetricVerdict | None:
        """Return the metric that most needs another run of all cells of a topology, if any."""
        if topology not in self.topologies:
            return None
        return _worst(self._topology_metrics(topology, tonight)[0])

    def _topology_metrics(self, topology: str, tonight: Runs) -> Judged:
        """Return the verdict on each metric of a topology, and the past nights used."""

        def past(night: PastNight) -> NightMetrics | None:
            measured = any(key[0] == topology for key in night.runs)
            return self._topology_past(topology, night.runs) if measured else None

        covers = self.expected.covers_for_cell(topology, ())
        return self._judged(self._topology_seen(topology, tonight), past, covers)

    def judge_topology(self, topology: str, tonight: Runs) -> Verdict | None:
        """Judge *topology* by the median of each metric over its cells.

        :returns: None if fewer than two of its cells have references, or were measured.
        """
        if topology not in self.topologies:
            return None
        metrics, nights = self._topology_metrics(topology, tonight)
        if not metrics:
            return None
        keys = self._of_topology(topology)
        of_night = [(n, [r for key in keys for r in n.runs.get(key, ())]) for n in nights]
        runs = [run for key in keys for run in tonight.get(key, ())]
        metrics = _with_worse_since(metrics, self._night(runs), of_night)
        cells = len([key for key in keys if tonight.get(key)])
        subject = f"{topology} over {cells} of {len(keys)} cells, {self.system.name}"
        facts = MessageFacts(
            cells=cells,
            nights=[night.name for night in nights],
            differences=self.differences,
            run=_kind_of(runs),
            one_night_is_enough=not self.alarms_went_away,
            why_unconfirmed=self.why_unconfirmed.get((topology, ""), ""),
        )
        verdict = _verdict(subject, metrics, (), facts)
        return verdict.with_evidence(("baseline", self.origin), *_since(verdict))


def _with_worse_since(
    metrics: Sequence[MetricVerdict],
    tonight: NightRuns,
    before: Sequence[tuple[PastNight, Sequence[Record]]],
) -> tuple[MetricVerdict, ...]:
    """Return *metrics*, with ``worse_since`` set for those that did not PASS."""
    nights = [NightRuns(name=night.name, runs=runs) for night, runs in before]
    return tuple(
        metric
        if metric.status is Status.PASS
        else replace(metric, worse_since=since_when(metric, tonight, nights))
        for metric in metrics
    )


def _since(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Yield the evidence line on since when the worst metric is worse, if there are past nights."""
    since = verdict.worse[0].worse_since if verdict.worse else None
    if since is not None and (since.before or since.nights > 1):
        yield "since", since_text(since)


def _kind_of(runs: Sequence[Record]) -> str:
    """Return the unit of evidence: a ``start``, or a ``run`` on servers that were already up."""
    return "run" if any(run.start is None for run in runs) else "start"


def brief(verdict: MetricVerdict) -> str:
    """Return a metric's change and limit, e.g. ``mean_itl_ms +10.6 %, limit +5 %``."""
    better, seen = METRICS[verdict.metric].better, verdict.tonight
    change, limit = (as_change(log, better) for log in (seen.change, seen.reference.limit))
    return f"{verdict.metric} {percent(change)}, limit {percent(limit)}"


def _worst(verdicts: Sequence[MetricVerdict]) -> MetricVerdict | None:
    """Return the most suspicious metric that needs one more run."""
    wanting = (v for v in verdicts if v.tonight.wants_run and v.status is not Status.EXPECTED)
    return max(wanting, key=lambda verdict: verdict.severity, default=None)


def _verdict(
    subject: str, metrics: Sequence[MetricVerdict], faults: Collection[str], facts: MessageFacts
) -> Verdict:
    """Return the verdict of a cell or topology: the worst of its metrics, FAIL if it has faults."""
    verdict = Verdict(status=Status.PASS, subject=subject, metrics=tuple(metrics))
    status = verdict.worse[0].status if verdict.worse else Status.PASS
    return replace(
        verdict,
        status=Status.FAIL if faults else status,
        misses=(*faults, *(describe(metric, facts) for metric in verdict.worse)),
        faults=tuple(faults),
    )


def unjudged(references: References, runs: Sequence[Record]) -> str:
    """Return why a PASS would not be a judgement of speed; empty if it is one."""
    if not references:
        return "no latency or throughput of this cell has a reference"
    voided, latencies = voided_in(runs), set(references).intersection(METRICS.latencies)
    if latencies and not latencies - voided:
        return "every latency that has a reference is void"
    return "" if set(references) - voided else "every value that has a reference is void"
