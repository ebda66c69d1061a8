"""The metrics of cells and topologies in one night, and the verdicts on them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.judge.expected import Covers
from pytest_pdserve.judge.limits import Reference
from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.limits import reference_of
from pytest_pdserve.judge.limits import signed_log
from pytest_pdserve.judge.nightly import MetricNight
from pytest_pdserve.judge.nightly import is_better
from pytest_pdserve.judge.nightly import judge
from pytest_pdserve.judge.nightly import median_change
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.expected import ExpectedChange
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import voided_in
from pytest_pdserve.values.report import Since
from pytest_pdserve.values.rules import RULE

References = Mapping[str, Reference]
"""Reference by metric."""
NightMetrics = Mapping[str, MetricNight]
"""One night of a cell or a topology, by metric."""


def references_of(cell: CellBaseline, floors: Mapping[str, float]) -> dict[str, Reference]:
    """Return the reference of every judged metric that the cell's nights have.

    :param floors: smallest limit by metric, as a fraction.
    """
    return {
        name: reference_of(
            [signed_log(value, METRICS[name].better) for value in values],
            floors[name],
            starts=cell.starts(name),
        )
        for name in METRICS.times
        if (values := cell.values(name))
    }


def changes_of(run: Record, references: References) -> dict[str, float]:
    """Return the distance of a run from its references by metric, signed log.

    A metric that the run does not have is absent.
    """
    changes = {}
    for name, reference in references.items():
        value = run.value(name)
        if value is not None and 0 < value < math.inf:
            changes[name] = signed_log(value, METRICS[name].better) - reference.median
    return changes


def night_metrics(runs: Sequence[Record], references: References) -> dict[str, MetricNight]:
    """Return the metrics of a cell in one night.

    :param runs: one run of each start, in the order of the starts.
    """
    return _metric_nights([changes_of(run, references) for run in runs], references)


def _metric_nights(
    changes: Sequence[Mapping[str, float]], references: References
) -> dict[str, MetricNight]:
    return {
        name: MetricNight(reference=reference, changes=of_metric)
        for name, reference in references.items()
        if (of_metric := tuple(run[name] for run in changes if name in run))
    }


def mark_passed(night: NightMetrics) -> NightMetrics:
    """Return a night that joined the baseline: none of its metrics is suspicious."""
    return {name: replace(metric_night, passed=True) for name, metric_night in night.items()}


def topology_references(
    baseline: Baseline,
    cells: Mapping[Key, References],
    floors: Mapping[str, float],
) -> dict[str, Reference]:
    """Return the references of a topology's median, by metric.

    :param cells: the references of its cells.
    :param floors: of cells, as fractions; a topology's are half of them.
    """
    by_metric = {}
    for name in METRICS.times:
        medians = list(_past_medians(baseline, cells, name))
        if medians:
            having = [baseline.cell(key) for key, references in cells.items() if name in references]
            by_metric[name] = reference_of(
                medians,
                RULE.topology_share * floors[name],
                starts=min(cell.starts(name) for cell in having if cell is not None),
                fail_floor=floors[name],
            )
    return by_metric


def _past_medians(
    baseline: Baseline, cells: Mapping[Key, References], metric: str
) -> Iterator[float]:
    """Yield the median change over the cells of each session that has at least two of them."""
    better = METRICS[metric].better
    by_session: dict[str, dict[Key, float]] = {source.id: {} for source in baseline.sessions}
    for key, references in cells.items():
        cell = baseline.cell(key)
        for night in cell.nights if cell and metric in references else ():
            if metric in night.values:
                log = signed_log(night.values[metric], better)
                by_session[night.session][key] = log - references[metric].median
    for changes in by_session.values():
        if (median := median_change(changes)) is not None:
            yield median


def topology_night_metrics(
    tonight: Mapping[Key, Sequence[Record]],
    cells: Mapping[Key, References],
    references: References,
) -> dict[str, MetricNight]:
    """Return the metrics of a topology's median in one night.

    The first run of the topology consists of the first run of every cell; each later run is a start
    on which all of these cells ran.

    :param tonight: runs of its cells, one of each start.
    """
    measured = [key for key in cells if tonight.get(key)]
    runs = [{key: tonight[key][0] for key in measured}]
    later: dict[int | None, dict[Key, Record]] = {}
    for key in measured:
        for run in tonight[key][1:]:
            later.setdefault(run.start, {})[key] = run
    runs += [run for start, run in later.items() if start is not None and len(run) == len(measured)]
    changes = []
    for started in runs:
        of_cells = {key: changes_of(record, cells[key]) for key, record in started.items()}
        changes.append(dict(_medians(of_cells, references)))
    return _metric_nights(changes, references)


def _medians(
    cells: Mapping[Key, Mapping[str, float]], references: References
) -> Iterator[tuple[str, float]]:
    for name, reference in references.items():
        of_metric = {key: changes[name] for key, changes in cells.items() if name in changes}
        if (median := median_change(of_metric)) is not None:
            yield name, median - reference.median


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricVerdict:
    """The verdict on one metric of a cell or a topology."""

    metric: str
    status: Status
    """PASS, SUSPICIOUS, EXPECTED or FAIL."""
    tonight: MetricNight
    nights: int
    """Nights in a row directly before tonight on which it was suspicious."""
    since: int | None = None
    """Index of the oldest of these among the earlier nights, newest first; None without any."""
    is_better: bool = False
    """True if it has been better than its reference for :attr:`Rule.better_nights` nights."""
    expected: ExpectedChange | None = None
    """The entry of expected.toml that covers it; None if none does."""
    worse_since: Since | None = None
    """First night on which it was worse, and what changed then; None if it is not worse, or this
    is not determined yet."""

    @property
    def severity(self) -> float:
        """Change in units of the limit: 1 is a change as large as the limit."""
        return self.tonight.change / self.tonight.reference.limit


def judge_metrics(
    tonight: NightMetrics,
    before: Sequence[NightMetrics],
    *,
    one_night_is_enough: bool,
    covers: Covers,
) -> tuple[MetricVerdict, ...]:
    """Judge every metric of a cell or a topology, the largest change first.

    :param before: earlier nights of it, newest first.
    :param one_night_is_enough: as for :func:`~pytest_pdserve.judge.nightly.judge`.
    :param covers: returns the entry of expected.toml that covers a change of a metric.
    """
    verdicts = []
    for name, metric_night in tonight.items():
        places = [place for place, night in enumerate(before) if name in night]
        past = [before[place][name] for place in places]
        last, nights = past[0] if past else None, _suspicious_before(past)
        status = judge(metric_night, last, one_night_is_enough=one_night_is_enough)
        entry = None
        if status is not Status.PASS:
            entry = covers(name, abs(as_change(-metric_night.change, "higher")))
        verdicts.append(
            MetricVerdict(
                metric=name,
                status=Status.EXPECTED if entry else status,
                tonight=metric_night,
                nights=nights,
                since=places[nights - 1] if nights else None,
                is_better=is_better([metric_night, *past]),
                expected=entry,
            )
        )
    return tuple(sorted(verdicts, key=lambda verdict: -verdict.severity))


def _suspicious_before(past: Sequence[MetricNight]) -> int:
    """Return the number of nights in a row before tonight on which a metric was suspicious."""
    return next((n for n, night in enumerate(past) if not night.is_suspicious), len(past))


def wrong_counts(runs: Sequence[Record], cell: CellBaseline) -> Iterator[str]:
    """Yield a sentence for each count of the runs that differs from the baseline's."""
    for name, wanted in sorted(cell.counts.items()):
        values = {run.value(name) for run in runs if name not in run.voided}
        for value in sorted(values - {wanted}, key=str):
            shown = "missing" if value is None else f"{value:g}"
            yield (
                f"{name} is {shown}, expected {wanted:g} {METRICS[name].unit} as in the baseline: "
                "the load or the servers differ"
            )


def missing_metrics(runs: Sequence[Record], references: References) -> Iterator[str]:
    """Yield a sentence for each metric with a reference that runs have no value of.

    Metrics that a sanity finding voids are left out.
    """
    voided = voided_in(runs)
    for name in references:
        lacking = [run for run in runs if name not in changes_of(run, references)]
        if name not in voided and lacking:
            yield f"{name} has a reference, but {len(lacking)} of {len(runs)} runs have no value"
