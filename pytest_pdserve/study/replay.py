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
from pytest_pdserve.judge.cells import References
from pytest_pdserve.judge.cells import SeenNight
from pytest_pdserve.judge.cells import judge_metrics
from pytest_pdserve.judge.cells import that_passed
from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.judge.limits import reference_of
from pytest_pdserve.judge.limits import signed_log
from pytest_pdserve.judge.nightly import Seen
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
"""Metrics that are shown of one night, the largest changes."""
MONTH = RULE.false_alarm_nights
"""Nights of the first month."""
Cells = Mapping[str, Sequence[Run]]
"""Runs of one night by cell, one of each start."""
Said = tuple[str, MetricVerdict]
"""Cell, and what is said of one of its metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedNight:
    """What was said of one night of a file."""

    night: FileNight
    """The night."""
    judged: int
    """Metrics of all cells that had a reference."""
    said: tuple[Said, ...]
    """What is not a PASS: FAIL first, and the largest change first."""

    @property
    def is_red(self) -> bool:
        """Whether a metric FAILs."""
        return self.count(Status.FAIL) > 0

    def count(self, status: Status) -> int:
        """Return how many metrics have that verdict."""
        return sum(verdict.status is status for _, verdict in self.said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What was said of every night of a file."""

    file: SeriesFile
    """The file."""
    nights: tuple[ReplayedNight, ...]
    """Oldest first."""


def replay(file: SeriesFile, *, accept: bool = False) -> Replay:
    """Judge the nights of a file one after the other; the first of a cell starts its baseline.

    :param accept: whether a person accepts every FAIL the next day, so that the cell's baseline
        starts anew from that night; otherwise a change that lasts FAILs every night.
    """
    state = _State(accept=accept)
    return Replay(file=file, nights=tuple(state.judge(night) for night in file.nights))


class _State:
    """Baselines so far, and the nights that a verdict looks back at."""

    def __init__(self, *, accept: bool) -> None:
        self._accept = accept
        self._baselines: dict[str, list[Run]] = {}
        self._starts: dict[str, int] = {}
        self._past: list[Cells] = []
        self._joined: set[tuple[int, str]] = set()
        """Place of a night among the past ones, and a cell of which it joined the baseline."""

    def judge(self, night: FileNight) -> ReplayedNight:
        """Judge a night; cells that PASS join their baselines."""
        said: list[Said] = []
        new = [cell for cell in night.cells if cell not in self._baselines]
        verdicts = {cell: self._judge(cell, night) for cell in night.cells if cell not in new}
        for cell, metrics in verdicts.items():
            said += [(cell, verdict) for verdict in metrics if verdict.status is not Status.PASS]
            if all(verdict.status is Status.PASS for verdict in metrics):
                self._join(cell, night.cells[cell][0])
            elif self._accept and any(verdict.status is Status.FAIL for verdict in metrics):
                new.append(cell)
        for cell in new:
            self._begin(cell, night.cells[cell])
        self._past.append(night.cells)
        said.sort(key=lambda each: (each[1].status is not Status.FAIL, -each[1].severity))
        return ReplayedNight(
            night=night,
            judged=sum(len(metrics) for metrics in verdicts.values()),
            said=tuple(said),
        )

    def _begin(self, cell: str, runs: Sequence[Run]) -> None:
        names = dict.fromkeys(name for run in runs for name in run)
        values = {name: [run[name] for run in runs if name in run] for name in names}
        self._baselines[cell] = [{name: statistics.median(there) for name, there in values.items()}]
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
        tonight = seen_of(night.cells[cell], references)
        places = [n for n, there in enumerate(self._past) if cell in there]
        return judge_metrics(
            tonight,
            [self._seen(place, cell, references) for place in reversed(places)],
            one_night_is_enough=not any(seen.is_alarm for seen in tonight.values())
            or self._alarms_stay(),
            covers=lambda *_: None,
        )

    def _alarms_stay(self) -> bool:
        references = {cell: self._references(cell) for cell in self._baselines}
        first = max(0, len(self._past) - RULE.false_alarm_nights)
        nights = [
            {
                (cell, name): seen
                for cell in self._past[place]
                for name, seen in self._seen(place, cell, references[cell]).items()
            }
            for place in range(first, len(self._past))
        ]
        return false_alarms(nights) < RULE.false_alarms

    def _seen(self, place: int, cell: str, references: References) -> SeenNight:
        """What a past night showed of a cell."""
        seen = seen_of(self._past[place][cell], references)
        return that_passed(seen) if (place, cell) in self._joined else seen


def seen_of(runs: Sequence[Run], references: References) -> SeenNight:
    """Return what the runs of one night showed of a cell, one of each start."""
    logs = {
        name: [signed_log(run[name], METRICS[name].better) for run in runs if name in run]
        for name in references
    }
    return {
        name: Seen(
            reference=references[name],
            changes=tuple(log - references[name].median for log in there),
        )
        for name, there in logs.items()
        if there
    }


def render(replayed: Replay, accepted: Replay) -> str:
    """Return what was said of the nights that are not all PASS, and the share of red nights.

    :param accepted: the same, but a person accepts every FAIL.
    """
    nights = replayed.nights
    first, last = nights[0].night.name, nights[-1].night.name
    cells = {cell for night in replayed.file.nights for cell in night.cells}
    starts = max(len(runs) for night in replayed.file.nights for runs in night.cells.values())
    said = [
        f"Replay of {replayed.file.source}: {len(nights)} nights from {first} to {last}, "
        f"{len(cells)} cell{'s' * (len(cells) > 1)},",
        f"{starts} start{'s' * (starts > 1)} of a cell a night at most. Nothing can be run again: "
        "a night with fewer than three starts",
        "makes SUSPICIOUS, and a second such night FAIL. Nobody accepts a change here: one that "
        "lasts FAILs every night.",
        "",
    ]
    before: FileNight | None = None
    for night in nights:
        changed = _changed(before, night.night)
        if night.said:
            said += [*_night_lines(night, changed), ""]
        elif changed:
            said += [f"{night.night.name}  all PASS; {changed}", ""]
        before = night.night
    return "\n".join([*said, *_summary(nights, accepted.nights)])


def _changed(before: FileNight | None, night: FileNight) -> str:
    """Which versions came since the night before; empty if none did."""
    if before is None or set(night.versions) <= set(before.versions):
        return ""
    return f"{', '.join(before.versions)} -> {', '.join(night.versions)}"


def _night_lines(night: ReplayedNight, changed: str) -> Iterator[str]:
    counts = ((status, night.count(status)) for status in (Status.FAIL, Status.SUSPICIOUS))
    said = ", ".join(f"{status} {count}" for status, count in counts if count)
    yield f"{night.night.name}  {said} of {night.judged} metrics{changed and f'; {changed}'}"
    width = max(len(cell) for cell, _ in night.said[:SHOWN])
    for cell, verdict in night.said[:SHOWN]:
        yield f"  {verdict.status:<10}  {cell:<{width}}  {_numbers(verdict)}"
    if len(night.said) > SHOWN:
        yield f"  and {len(night.said) - SHOWN} more"


def _numbers(verdict: MetricVerdict) -> str:
    metric, seen = METRICS[verdict.metric], verdict.seen
    median, limit = seen.reference.median, seen.reference.limit
    value = number(as_value(median + seen.change, metric.better))
    reference = number(as_value(median, metric.better))
    change, most = (percent(as_change(log, metric.better)) for log in (seen.change, limit))
    nights = f", {verdict.nights + 1} nights in a row" if verdict.nights else ""
    return (
        f"{metric.name} {value} {metric.unit}, reference {reference} {metric.unit}: {change}, "
        f"limit {most}{nights}"
    )


def _summary(nights: Sequence[ReplayedNight], accepted: Sequence[ReplayedNight]) -> Iterator[str]:
    if not any(night.judged for night in nights):
        yield "No night could be judged: no cell was measured on two nights."
        return
    for name, which in (("first month", slice(0, MONTH)), ("after it", slice(MONTH, None))):
        there, other = ([n for n in each if n.judged][which] for each in (nights, accepted))
        if there:
            suspicious = sum(bool(night.said) and not night.is_red for night in there)
            yield (
                f"{name:<11}  {len(there)} nights judged: {_red(there)} red; {_red(other)} if a "
                f"person accepts each FAIL the next day; {suspicious} with SUSPICIOUS only"
            )


def _red(nights: Sequence[ReplayedNight]) -> str:
    red = sum(night.is_red for night in nights)
    return f"{red} ({red / len(nights):.0%})"
