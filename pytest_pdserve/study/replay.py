"""Nights of a file, judged by the nightly rule as if pdserve had measured them.

Nothing can be run again: where a night has one start of a cell, what that start shows is SUSPICIOUS
until a second night. Topologies have no median here, since a file does not name them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.judge.cells import MetricVerdict
from pytest_pdserve.judge.cells import NightMetrics
from pytest_pdserve.judge.cells import References
from pytest_pdserve.judge.cells import judge_metrics
from pytest_pdserve.judge.cells import mark_passed
from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.judge.limits import reference_of
from pytest_pdserve.judge.limits import signed_log
from pytest_pdserve.judge.nightly import MetricNight
from pytest_pdserve.judge.nightly import false_alarms
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.wording import number
from pytest_pdserve.judge.wording import percent
from pytest_pdserve.study.series_file import FileNight
from pytest_pdserve.study.series_file import Run
from pytest_pdserve.study.series_file import SeriesFile
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import RULE

SHOWN = 3
"""Metrics that are shown per night, the largest changes first."""
MONTH = RULE.false_alarm_nights
"""Number of nights of the first month."""
Cells = Mapping[str, Sequence[Run]]
"""Runs of one night by cell, one of each start."""
CellVerdict = tuple[str, MetricVerdict]
"""A cell, and the verdict on one of its metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedNight:
    """The verdicts on one night of a file."""

    night: FileNight
    judged: int
    """Number of metrics of all cells that had a reference."""
    not_passed: tuple[CellVerdict, ...]
    """Verdicts that are not PASS: FAIL first, then the largest change."""

    @property
    def is_red(self) -> bool:
        """True if a metric FAILs."""
        return self.count(Status.FAIL) > 0

    def count(self, status: Status) -> int:
        """Return the number of metrics with this verdict."""
        return sum(verdict.status is status for _, verdict in self.not_passed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The verdicts on all nights of a file."""

    file: SeriesFile
    nights: tuple[ReplayedNight, ...]
    """Oldest first."""


def replay(file: SeriesFile, *, accept: bool = False) -> Replay:
    """Judge the nights of a file in order; the first night of a cell starts its baseline.

    :param accept: whether a person accepts every FAIL the next day, so that the cell's baseline
        starts again from that night; otherwise a change that lasts FAILs every night.
    """
    state = _State(accept=accept)
    return Replay(file=file, nights=tuple(state.judge(night) for night in file.nights))


class _State:
    """Baselines so far, and the past nights that verdicts consider."""

    def __init__(self, *, accept: bool) -> None:
        self._accept = accept
        self._baselines: dict[str, list[Run]] = {}
        self._starts: dict[str, int] = {}
        self._past: list[Cells] = []
        self._joined: set[tuple[int, str]] = set()
        """Index of a past night, and a cell whose baseline it joined."""

    def judge(self, night: FileNight) -> ReplayedNight:
        """Judge a night; cells that PASS join their baselines."""
        not_passed: list[CellVerdict] = []
        new = [cell for cell in night.cells if cell not in self._baselines]
        verdicts = {cell: self._judge(cell, night) for cell in night.cells if cell not in new}
        for cell, metrics in verdicts.items():
            not_passed += [
                (cell, verdict) for verdict in metrics if verdict.status is not Status.PASS
            ]
            if all(verdict.status is Status.PASS for verdict in metrics):
                self._join(cell, night.cells[cell][0])
            elif self._accept and any(verdict.status is Status.FAIL for verdict in metrics):
                new.append(cell)
        for cell in new:
            self._begin(cell, night.cells[cell])
        self._past.append(night.cells)
        not_passed.sort(key=lambda item: (item[1].status is not Status.FAIL, -item[1].severity))
        return ReplayedNight(
            night=night,
            judged=sum(len(metrics) for metrics in verdicts.values()),
            not_passed=tuple(not_passed),
        )

    def _begin(self, cell: str, runs: Sequence[Run]) -> None:
        names = dict.fromkeys(name for run in runs for name in run)
        values = {name: [run[name] for run in runs if name in run] for name in names}
        self._baselines[cell] = [{name: statistics.median(vs) for name, vs in values.items()}]
        self._starts[cell] = len(runs)

    def _join(self, cell: str, run: Run) -> None:
        if len(self._baselines[cell]) < RULE.max_nights:
            self._baselines[cell].append(run)
            self._joined.add((len(self._past), cell))

    def _references(self, cell: str) -> References:
        nights = self._baselines[cell]
        names = dict.fromkeys(name for night in nights for name in night)
        return {
            name: reference_of(
                [signed_log(n[name], METRICS[name].better) for n in nights if name in n],
                METRICS[name].floor,
                starts=self._starts[cell],
            )
            for name in names
        }

    def _judge(self, cell: str, night: FileNight) -> tuple[MetricVerdict, ...]:
        references = self._references(cell)
        tonight = night_metrics(night.cells[cell], references)
        places = [n for n, cells in enumerate(self._past) if cell in cells]
        return judge_metrics(
            tonight,
            [self._night_metrics(place, cell, references) for place in reversed(places)],
            one_night_is_enough=not any(metric.is_alarm for metric in tonight.values())
            or self._alarms_stay(),
            covers=lambda *_: None,
        )

    def _alarms_stay(self) -> bool:
        references = {cell: self._references(cell) for cell in self._baselines}
        first = max(0, len(self._past) - RULE.false_alarm_nights)
        nights = [
            {
                (cell, name): metric_night
                for cell in self._past[place]
                for name, metric_night in self._night_metrics(place, cell, references[cell]).items()
            }
            for place in range(first, len(self._past))
        ]
        return false_alarms(nights) < RULE.false_alarms

    def _night_metrics(self, place: int, cell: str, references: References) -> NightMetrics:
        """Return the metrics of a cell in a past night."""
        metrics = night_metrics(self._past[place][cell], references)
        return mark_passed(metrics) if (place, cell) in self._joined else metrics


def night_metrics(runs: Sequence[Run], references: References) -> NightMetrics:
    """Return the metrics of a cell in one night.

    :param runs: one run of each start.
    """
    logs = {
        name: [signed_log(run[name], METRICS[name].better) for run in runs if name in run]
        for name in references
    }
    return {
        name: MetricNight(
            reference=references[name],
            changes=tuple(log - references[name].median for log in of_metric),
        )
        for name, of_metric in logs.items()
        if of_metric
    }


def render(replayed: Replay, accepted: Replay) -> str:
    """Return the verdicts of nights that are not all PASS, and the share of red nights.

    :param accepted: a replay in which a person accepts every FAIL.
    """
    nights = replayed.nights
    first, last = nights[0].night.name, nights[-1].night.name
    cells = {cell for night in replayed.file.nights for cell in night.cells}
    starts = max(len(runs) for night in replayed.file.nights for runs in night.cells.values())
    lines = [
        f"Replay of {replayed.file.source}: {len(nights)} nights from {first} to {last}, "
        f"{len(cells)} cell{'s' * (len(cells) > 1)},",
        f"{starts} start{'s' * (starts > 1)} of a cell a night at most. Nothing can be run again: "
        "a night with fewer than three starts",
        "makes SUSPICIOUS, and a second such night FAIL. No change is accepted here: one that "
        "lasts FAILs every night.",
        "",
    ]
    before: FileNight | None = None
    for night in nights:
        changed = _changed(before, night.night)
        if night.not_passed:
            lines += [*_night_lines(night, changed), ""]
        elif changed:
            lines += [f"{night.night.name}  all PASS; {changed}", ""]
        before = night.night
    return "\n".join([*lines, *_summary(nights, accepted.nights)])


def _changed(before: FileNight | None, night: FileNight) -> str:
    """Return the versions before and after if a new version ran; empty otherwise."""
    if before is None or set(night.versions) <= set(before.versions):
        return ""
    return f"{', '.join(before.versions)} -> {', '.join(night.versions)}"


def _night_lines(night: ReplayedNight, changed: str) -> Iterator[str]:
    counts = ((status, night.count(status)) for status in (Status.FAIL, Status.SUSPICIOUS))
    totals = ", ".join(f"{status} {count}" for status, count in counts if count)
    yield f"{night.night.name}  {totals} of {night.judged} metrics{changed and f'; {changed}'}"
    width = max(len(cell) for cell, _ in night.not_passed[:SHOWN])
    for cell, verdict in night.not_passed[:SHOWN]:
        yield f"  {verdict.status:<10}  {cell:<{width}}  {_numbers(verdict)}"
    if len(night.not_passed) > SHOWN:
        yield f"  and {len(night.not_passed) - SHOWN} more"


def _numbers(verdict: MetricVerdict) -> str:
    metric, tonight = METRICS[verdict.metric], verdict.tonight
    median = tonight.reference.median
    value = number(as_value(median + tonight.change, metric.better))
    reference = number(as_value(median, metric.better))
    change, limit = (
        percent(as_change(log, metric.better)) for log in (tonight.change, tonight.reference.limit)
    )
    nights = f", {verdict.nights + 1} nights in a row" if verdict.nights else ""
    return (
        f"{metric.name} {value} {metric.unit}, reference {reference} {metric.unit}: {change}, "
        f"limit {limit}{nights}"
    )


def _summary(nights: Sequence[ReplayedNight], accepted: Sequence[ReplayedNight]) -> Iterator[str]:
    if not any(night.judged for night in nights):
        yield "No night could be judged: no cell was measured on two nights."
        return
    for name, which in (("first month", slice(0, MONTH)), ("after it", slice(MONTH, None))):
        judged, other = ([n for n in ns if n.judged][which] for ns in (nights, accepted))
        if judged:
            suspicious = sum(bool(night.not_passed) and not night.is_red for night in judged)
            yield (
                f"{name:<11}  {len(judged)} nights judged: {_red(judged)} red; {_red(other)} if a "
                f"person accepts each FAIL the next day; {suspicious} with SUSPICIOUS only"
            )


def _red(nights: Sequence[ReplayedNight]) -> str:
    red = sum(night.is_red for night in nights)
    return f"{red} ({red / len(nights):.0%})"
