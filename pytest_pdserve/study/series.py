"""Simulated nights of one system, judged in order by the nightly rule.

Every verdict is made by :mod:`pytest_pdserve.judge.limits` and :mod:`pytest_pdserve.judge.nightly`.
Arrays are only used to skip metrics whose first run of the night is not suspicious.
``tests/unit/test_series.py`` judges the same nights as records, metric by metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pytest_pdserve.judge.limits import NORMAL_MAD
from pytest_pdserve.judge.limits import Reference
from pytest_pdserve.judge.limits import reference_of
from pytest_pdserve.judge.nightly import MetricNight
from pytest_pdserve.judge.nightly import false_alarms
from pytest_pdserve.judge.nightly import is_better
from pytest_pdserve.judge.nightly import judge
from pytest_pdserve.judge.nightly import median_change
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.study.noise import SIMULATED
from pytest_pdserve.study.noise import Floats
from pytest_pdserve.study.noise import Layout
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.system import Judgement

FLOORS = tuple(METRICS[name].floor for name in SIMULATED)
"""Floor of each simulated metric of a cell."""
ROUNDING = 1e-9
"""Distance from a limit below which arrays do not decide, because of rounding errors."""
MetricKey = tuple[str, int, int]
"""``cell`` or ``topology``, its index, and the index of the metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRuns:
    """The runs of one night, signed logs."""

    first: Floats
    """Run of every cell on the first start, shape ``(cells, metrics)``."""
    later: Mapping[int, Mapping[int, Floats]]
    """Later runs by cell and start, shape ``(metrics,)``."""
    joined: frozenset[int] = frozenset()
    """Cells whose baseline the night joined."""

    def runs(self, cell: int) -> tuple[Floats, ...]:
        """Return the runs of a cell, oldest first."""
        return (self.first[cell], *self.later.get(cell, {}).values())

    def shared_starts(self, cells: range) -> Iterator[Mapping[int, Floats]]:
        """Yield the runs of each start on which all of *cells* ran, by cell."""
        yield {cell: self.first[cell] for cell in cells}
        for start in self.later.get(cells[0], {}):
            if all(start in self.later.get(cell, {}) for cell in cells):
                yield {cell: self.later[cell][start] for cell in cells}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedNight:
    """The verdicts on one night; cells and topologies that are absent are PASS."""

    runs: NightRuns
    cells: Mapping[int, Status]
    """FAIL or SUSPICIOUS by cell."""
    topologies: Mapping[int, Status]
    """FAIL or SUSPICIOUS by topology."""
    reruns: int
    """Number of reruns of suspicious cells."""
    topology_reruns: int
    """Number of reruns of cells for their topology's median."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """References as arrays, shape ``(cells or topologies, metrics)``."""

    median: Floats
    """This and the next field: as in :class:`~pytest_pdserve.judge.limits.Reference`."""
    limit: Floats

    @property
    def suspicious_from(self) -> Floats:
        """Distance beyond which a run may be suspicious."""
        return RULE.suspicious_share * self.limit - ROUNDING


class References:
    """References of all cells and topologies, from the nights of a baseline."""

    def __init__(self, layout: Layout, nights: Floats, *, starts: int) -> None:
        self.layout = layout
        self.nights = nights
        """Shape ``(nights, cells, metrics)``; NaN where a cell's night did not join."""
        self.starts = starts
        """Number of fresh starts whose median is the first night's value."""
        self._cached: dict[MetricKey, Reference] = {}

    @cached_property
    def joined(self) -> npt.NDArray[np.int64]:
        """Number of nights of each cell."""
        joined: npt.NDArray[np.int64] = np.sum(~np.isnan(self.nights[:, :, 0]), axis=0)
        return joined

    @cached_property
    def cells(self) -> Limits:
        """Limits of cells."""
        return limits_of(self.nights, np.array(FLOORS), starts=self.starts)

    @cached_property
    def topologies(self) -> Limits:
        """Limits of topologies."""
        layout, changes = self.layout, self.nights - self.cells.median
        shape = (len(changes), layout.topologies, layout.cells_each, len(SIMULATED))
        grouped = changes.reshape(shape).swapaxes(0, 2)
        medians = _median(grouped).swapaxes(0, 1)
        medians[np.sum(~np.isnan(grouped), axis=0).swapaxes(0, 1) < 2] = np.nan
        return limits_of(medians, RULE.topology_share * np.array(FLOORS), starts=self.starts)

    def of_cell(self, cell: int, metric: int) -> Reference:
        """Return the reference of a metric of a cell."""
        key = ("cell", cell, metric)
        if key not in self._cached:
            logs = [float(log) for log in self.nights[:, cell, metric] if log == log]
            self._cached[key] = reference_of(logs, FLOORS[metric], starts=self.starts)
        return self._cached[key]

    def of_topology(self, topology: int, metric: int) -> Reference:
        """Return the reference of a metric of a topology's median."""
        key = ("topology", topology, metric)
        if key not in self._cached:
            self._cached[key] = reference_of(
                list(self._past_medians(topology, metric)),
                RULE.topology_share * FLOORS[metric],
                starts=self.starts,
                fail_floor=FLOORS[metric],
            )
        return self._cached[key]

    def _past_medians(self, topology: int, metric: int) -> Iterator[float]:
        medians = {
            cell: self.of_cell(cell, metric).median for cell in self.layout.cells_of(topology)
        }
        for night in self.nights:
            joined = {c: float(night[c, metric]) - median for c, median in medians.items()}
            median = median_change({c: change for c, change in joined.items() if change == change})
            if median is not None:
                yield median

    def metric_night(self, key: MetricKey, night: NightRuns) -> MetricNight:
        """Return one metric of a cell or a topology in a night."""
        scope, number, metric = key
        cells = [number] if scope == "cell" else self.layout.cells_of(number)
        if scope == "cell":
            reference = self.of_cell(number, metric)
            values = [float(run[metric]) for run in night.runs(number)]
        else:
            reference = self.of_topology(number, metric)
            starts = night.shared_starts(self.layout.cells_of(number))
            values = [self._topology_change(run, metric) for run in starts]
        changes = tuple(value - reference.median for value in values)
        joined = night.joined.issuperset(cells)
        return MetricNight(reference=reference, changes=changes, passed=joined)

    def _topology_change(self, runs: Mapping[int, Floats], metric: int) -> float:
        changes = {
            cell: float(run[metric]) - self.of_cell(cell, metric).median
            for cell, run in runs.items()
        }
        median = median_change(changes)
        assert median is not None
        return median

    def changes(self, first: Floats) -> tuple[Floats, Floats]:
        """Return the change of the first run of every cell, and of every topology."""
        layout, cells = self.layout, first - self.cells.median
        grouped = cells.reshape(layout.topologies, layout.cells_each, len(SIMULATED))
        return cells, np.median(grouped, axis=1) - self.topologies.median


def limits_of(nights: Floats, floors: Floats, *, starts: int) -> Limits:
    """Return the results of :func:`~pytest_pdserve.judge.limits.reference_of` as arrays.

    :param nights: shape ``(nights, cells or topologies, metrics)``; NaN where there is no value.
    """
    median = _median(nights)
    spread = NORMAL_MAD * _median(np.abs(nights - median))
    count = np.sum(~np.isnan(nights), axis=0)
    one_start = (count < RULE.single_start_nights) & (starts < RULE.first_starts)
    young = np.where(count < RULE.full_nights, RULE.young_floors, 1.0)
    factors = np.where(one_start, RULE.single_start_floors, young)
    limit = np.maximum(RULE.spreads * spread, np.log1p(factors * floors))
    return Limits(median=median, limit=limit)


def _median(values: Floats) -> Floats:
    """Return the median along the first axis, without NaN."""
    ordered = np.sort(values, axis=0)
    count = np.sum(~np.isnan(values), axis=0)[None]
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(values) - 1)
    middle = np.take_along_axis(ordered, low, 0) + np.take_along_axis(ordered, high, 0)
    halved: Floats = middle[0] / 2
    return halved


class System:
    """One simulated system: its baseline, and the earlier nights that verdicts consider."""

    def __init__(self, references: References, history: tuple[NightRuns, ...] = ()) -> None:
        self.references = references
        self.history = history
        """Oldest first."""

    @classmethod
    def new(cls, layout: Layout, draws: Floats, *, starts: int) -> System:
        """Return a system after its first night, measured on a number of fresh starts.

        :param draws: shape ``(starts, cells, metrics)``.
        """
        first = np.median(draws[:starts], axis=0)[None]
        later = {
            cell: {start: draws[start, cell] for start in range(1, starts)}
            for cell in range(layout.cells)
        }
        night = NightRuns(first=draws[0], later=later)
        return cls(References(layout, first, starts=starts), (night,))

    @classmethod
    def with_baseline(cls, layout: Layout, nights: Floats) -> System:
        """Return a system with a baseline of these nights, and no earlier night to consider.

        :param nights: shape ``(nights, cells, metrics)``.
        """
        return cls(References(layout, nights, starts=RULE.first_starts))

    def after(self, night: JudgedNight) -> System:
        """Return the system after a night, with the cells that PASS added to its baseline."""
        old, layout = self.references, self.references.layout
        joins = old.joined < RULE.max_nights
        joins[[cell for cell in night.cells]] = False
        for topology in night.topologies:
            joins[layout.cells_of(topology)] = False
        runs = replace(night.runs, joined=frozenset(map(int, np.flatnonzero(joins))))
        history = (*self.history, runs)[-RULE.false_alarm_nights :]
        if not joins.any():
            return System(old, history)
        tonight = np.where(joins[:, None], night.runs.first, np.nan)
        nights = np.concatenate([old.nights, tonight[None]])
        return System(References(layout, nights, starts=old.starts), history)

    def judge(self, draws: Floats) -> JudgedNight:
        """Judge one night.

        :param draws: every run that may be needed, shape ``(starts, cells, metrics)``.
        """
        tonight = _Tonight(self, draws)
        tonight.rerun_cells()
        cells = dict(tonight.verdicts("cell", tonight.cells))
        tonight.rerun_topologies()
        return JudgedNight(
            runs=tonight.runs,
            cells=cells,
            topologies=dict(tonight.verdicts("topology", tonight.topologies)),
            reruns=tonight.reruns - tonight.topology_reruns,
            topology_reruns=tonight.topology_reruns,
        )

    @cached_property
    def alarms_stay(self) -> bool:
        """True if a single night may FAIL, like ``SessionJudge.alarms_stay``."""
        return false_alarms(list(self._alarms())) < RULE.false_alarms

    def _alarms(self) -> Iterator[Mapping[MetricKey, MetricNight]]:
        """Yield the metrics of each night that have an alarm on it or on the night before."""
        before: list[MetricKey] = []
        for night in self.history:
            metrics = [key for key in self._confirmed(night) if self._night(key, night).is_alarm]
            yield {key: self._night(key, night) for key in (*metrics, *before)}
            before = metrics

    def _confirmed(self, night: NightRuns) -> Iterator[MetricKey]:
        """Yield metrics that ran often enough for an alarm, and are suspicious in the first run."""
        cells, topologies = self.references.changes(night.first)
        often = {c for c, runs in night.later.items() if len(runs) + 1 >= RULE.max_runs}
        for cell, metric in np.argwhere(cells > self.references.cells.suspicious_from):
            if cell in often:
                yield "cell", int(cell), int(metric)
        for number, metric in np.argwhere(topologies > self.references.topologies.suspicious_from):
            if often.issuperset(self.references.layout.cells_of(int(number))):
                yield "topology", int(number), int(metric)

    def _night(self, key: MetricKey, night: NightRuns) -> MetricNight:
        return self.references.metric_night(key, night)

    def better(self, tonight: NightRuns) -> set[MetricKey]:
        """Return the metrics that have been better than their reference for some nights."""
        nights = [tonight, *reversed(self.history)][: RULE.better_nights]
        if len(nights) < RULE.better_nights:
            return set()
        changes = [self.references.changes(night.first) for night in nights]
        limits = (self.references.cells.limit, self.references.topologies.limit)
        better = set()
        for scope, limit, of_scope in zip(
            ("cell", "topology"), limits, zip(*changes, strict=True), strict=True
        ):
            near = np.median(of_scope, axis=0) < -limit + ROUNDING
            for number, metric in np.argwhere(near):
                key = (scope, int(number), int(metric))
                if is_better([self._night(key, night) for night in nights]):
                    better.add(key)
        return better


class _Tonight:
    """A night that is being measured and judged."""

    def __init__(self, system: System, draws: Floats) -> None:
        self._system, self._references, self._draws = system, system.references, draws
        self._later: dict[int, dict[int, Floats]] = {}
        self.runs = NightRuns(first=draws[0], later=self._later)
        self.reruns = self.topology_reruns = 0
        cells, topologies = self._references.changes(draws[0])
        self.cells = _beyond(cells, self._references.cells)
        self.topologies = _beyond(topologies, self._references.topologies)

    def _spent(self, runs: int) -> bool:
        return self.reruns + runs > Judgement().max_reruns

    def rerun_cells(self) -> None:
        """Run suspicious cells again, the worst topology first; its cells share a start."""
        worst: dict[int, float] = {}
        for cell in self.cells:
            topology = cell // self._references.layout.cells_each
            worst[topology] = max(worst.get(topology, 0.0), self._suspicion(cell))
        for topology in sorted(worst, key=lambda number: -worst[number]):
            cells = [c for c in self.cells if c in self._references.layout.cells_of(topology)]
            for start in range(1, RULE.max_runs):
                wanted = {cell: self._suspicion(cell) for cell in cells}
                for cell in sorted(cells, key=lambda number: -wanted[number]):
                    if wanted[cell] > 0 and not self._spent(1):
                        self._run(cell, start)

    def _run(self, cell: int, start: int) -> None:
        self._later.setdefault(cell, {})[start] = self._draws[start, cell]
        self.reruns += 1

    def _suspicion(self, cell: int) -> float:
        """Return the worst change, in limits, of a metric that wants one more run; 0 if none."""
        nights = [self._night(("cell", cell, metric)) for metric in self.cells[cell]]
        wanting = (night for night in nights if night.wants_run)
        return max((night.change / night.reference.limit for night in wanting), default=0.0)

    def _night(self, key: MetricKey) -> MetricNight:
        return self._references.metric_night(key, self.runs)

    def rerun_topologies(self) -> None:
        """Run all cells of each topology again whose median is suspicious."""
        for topology, suspicious in self.topologies.items():
            cells = self._references.layout.cells_of(topology)
            while (
                any(self._night(("topology", topology, m)).wants_run for m in suspicious)
            ) and not self._spent(len(cells)):
                starts = (start for cell in cells for start in self._later.get(cell, {}))
                start = 1 + max(starts, default=0)
                for cell in cells:
                    self._run(cell, start)
                self.topology_reruns += len(cells)

    def verdicts(
        self, scope: str, suspicious: Mapping[int, list[int]]
    ) -> Iterator[tuple[int, Status]]:
        """Yield the verdicts that are not PASS, each with the index of its cell or topology."""
        for number, places in suspicious.items():
            statuses = {self._verdict((scope, number, metric)) for metric in places}
            for status in (Status.FAIL, Status.SUSPICIOUS):
                if status in statuses:
                    yield number, status
                    break

    def _verdict(self, key: MetricKey) -> Status:
        tonight, history = self._night(key), self._system.history
        last = history[-1] if history and tonight.is_suspicious else None
        before = None if last is None else self._references.metric_night(key, last)
        enough = not tonight.is_alarm or self._system.alarms_stay
        return judge(tonight, before, one_night_is_enough=enough)


def _beyond(changes: Floats, limits: Limits) -> dict[int, list[int]]:
    """Return the metrics whose first run may be suspicious, by cell or topology."""
    suspicious: dict[int, list[int]] = {}
    for number, metric in np.argwhere(changes > limits.suspicious_from):
        suspicious.setdefault(int(number), []).append(int(metric))
    return suspicious
