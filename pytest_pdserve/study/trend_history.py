"""When the cells of a history changed: every metric's nights, and changes of one night together.

Pure: takes the tables of :class:`~pytest_pdserve.history.store.Store`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import cast

import numpy as np
import pandas as pd

from pytest_pdserve.study.trend import MIN_DRIFT
from pytest_pdserve.study.trend import NEIGHBOURS
from pytest_pdserve.study.trend import Course
from pytest_pdserve.study.trend import Floats
from pytest_pdserve.study.trend import correlation_of
from pytest_pdserve.study.trend import course_of
from pytest_pdserve.study.trend_stacks import Served
from pytest_pdserve.study.trend_stacks import nodes_known
from pytest_pdserve.study.trend_stacks import served_on
from pytest_pdserve.study.trend_stacks import stack_changes
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.trend import MIN_NIGHTS
from pytest_pdserve.values.trend import BrokenNight
from pytest_pdserve.values.trend import CellChange
from pytest_pdserve.values.trend import DatedChange
from pytest_pdserve.values.trend import Excluded
from pytest_pdserve.values.trend import Kind
from pytest_pdserve.values.trend import MetricChange
from pytest_pdserve.values.trend import SeriesName
from pytest_pdserve.values.trend import Trend

JUDGED = ("valid", "unproven")
"""Status of values that count, as for verdicts."""
MIN_CHANGE = 0.01
"""Least change that is told, as a fraction, unless another is asked for."""
REACH: Mapping[Kind, int] = {"step": 3, "drift": 10}
"""Nights by which the same change may be dated differently in two series."""
MAX_EVIDENCE = 10.0
"""Standard deviations beyond which a larger change tells its night no better."""
Whose = tuple[str, str]
"""System and kind of client: what nights are compared within."""
_KEYS = ["system", "client_kind", "topology", "workload", "metric"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nights:
    """One series: nights and the logarithm of each one's median."""

    name: SeriesName
    nights: tuple[date, ...]
    logs: Floats


def trend_of(
    values: pd.DataFrame,
    sessions: pd.DataFrame,
    *,
    min_change: float = MIN_CHANGE,
    since: date | None = None,
) -> Trend:
    """Return when the metrics of all cells changed, and what else changed then.

    :param values: a row for each value of each run (:meth:`.history.store.Store.values`).
    :param sessions: a row for each session (:meth:`.history.store.Store.sessions`).
    :param min_change: least change that is told, as a fraction.
    :param since: oldest first night that is told; all nights are looked at.
    :raises ConfigError: if ruptures is not installed.
    """
    every = list(_series(values))
    enough = [each for each in every if len(each.nights) >= MIN_NIGHTS]
    courses = list(zip(enough, _courses(enough), strict=True))
    nights = sorted({night for each in enough for night in each.nights})
    found = [
        change
        for each, course in courses
        for change in _cell_changes(each, course)
        if abs(change.change) >= min_change
    ]
    grouped = _grouped(found, enough, sessions)
    oldest = since or date.min
    return Trend(
        changes=tuple(sorted((c for c in grouped if c.first >= oldest), key=_by_night)),
        broken=tuple(n for n in _broken(courses, min_change) if n.night >= oldest),
        excluded=tuple(_excluded(values, sessions)),
        cells=len({(n.system, n.client_kind, n.topology, n.workload) for n in _names(enough)}),
        series=len(enough),
        short=len(every) - len(enough),
        nights=len(nights),
        first=nights[0] if nights else None,
        last=nights[-1] if nights else None,
        min_change=min_change,
    )


def _by_night(change: DatedChange) -> tuple[str, str, date, str]:
    return change.system, change.client_kind, change.first, change.kind


def _names(series: Iterable[_Nights]) -> Iterator[SeriesName]:
    return (each.name for each in series)


def _whose(name: SeriesName) -> Whose:
    return name.system, name.client_kind


def _series(values: pd.DataFrame) -> Iterator[_Nights]:
    """Return the median of each night's values that count, by metric and cell."""
    counts = [name for name, metric in METRICS.items() if metric.better == "equal"]
    kept = values[
        ~values["excluded"].astype(bool)
        & values["status"].isin(JUDGED)
        & values["night"].notna()
        & (values["value"] > 0)
        & (values["value"] < math.inf)
        & ~values["metric"].isin(counts)
    ]
    codes = kept[_KEYS].astype("category").assign(night=kept["night"].dt.date, value=kept["value"])
    nightly = codes.groupby([*_KEYS, "night"], observed=True, sort=True)["value"].median()
    for key, medians in nightly.groupby(level=_KEYS, observed=True, sort=True):
        texts = [str(part) for part in cast("tuple[str, ...]", key)]
        name = SeriesName(**dict(zip(_KEYS, texts, strict=True)))
        nights = tuple(medians.index.get_level_values("night"))
        yield _Nights(name=name, nights=nights, logs=np.log(medians.to_numpy(dtype=float)))


def _courses(series: Sequence[_Nights]) -> Iterator[Course]:
    """Return what is found in each series.

    How nights resemble the next is a trait of system and metric: one cell alone shows it badly.
    """
    correlations: dict[tuple[str, str, str], list[float]] = {}
    for each in series:
        correlations.setdefault(_trait(each.name), []).append(correlation_of(each.logs))
    medians = {trait: float(np.median(found)) for trait, found in correlations.items()}
    return (course_of(each.logs, correlation=medians[_trait(each.name)]) for each in series)


def _trait(name: SeriesName) -> tuple[str, str, str]:
    return name.system, name.client_kind, name.metric


def _cell_changes(series: _Nights, course: Course) -> Iterator[CellChange]:
    for change in course.changes:
        is_step = change.kind == "step"
        since = change.first - 1 if is_step else change.first
        yield CellChange(
            name=series.name,
            kind=change.kind,
            since=series.nights[since],
            first=series.nights[since + 1],
            last=series.nights[change.last],
            goes_on=not is_step and change.last >= len(series.nights) - 1 - MIN_DRIFT,
            before=math.exp(change.before),
            after=math.exp(change.after),
            strength=change.strength,
        )


def _grouped(
    changes: Sequence[CellChange], series: Sequence[_Nights], sessions: pd.DataFrame
) -> Iterator[DatedChange]:
    """Put together what is dated to the same nights."""
    measured = Counter((n.system, n.client_kind, n.topology, n.metric) for n in _names(series))
    nights: dict[Whose, set[date]] = {}
    for each in series:
        nights.setdefault(_whose(each.name), set()).update(each.nights)
    alike: dict[tuple[Whose, Kind], list[CellChange]] = {}
    for change in changes:
        alike.setdefault((_whose(change.name), change.kind), []).append(change)
    for (whose, kind), left in alike.items():
        served = served_on(sessions, whose[0])
        place = {night: number for number, night in enumerate(sorted(nights[whose]))}
        while left:
            first = _most_evident(left)
            away = {night: abs(number - place[first]) for night, number in place.items()}
            near: dict[SeriesName, CellChange] = {}
            for change in sorted(left, key=lambda each: away[each.first]):
                if away[change.first] <= REACH[kind]:
                    near.setdefault(change.name, change)
            left = [change for change in left if near.get(change.name) is not change]
            yield _dated(first, tuple(near.values()), measured, served)


def _most_evident(changes: Sequence[CellChange]) -> date:
    """Return the first night that has most of the evidence."""
    evidence: dict[date, float] = {}
    for each in changes:
        known = evidence.get(each.first, 0.0)
        evidence[each.first] = known + min(each.strength, MAX_EVIDENCE)
    return max(evidence, key=lambda night: (evidence[night], night))


def _dated(
    first: date,
    changes: tuple[CellChange, ...],
    measured: Mapping[tuple[str, str, str, str], int],
    served: Mapping[date, Served],
) -> DatedChange:
    """Return one change of several cells, dated to a night that at least one of them has."""
    typical = max((c for c in changes if c.first == first), key=lambda c: c.strength)
    system, client = _whose(typical.name)
    by_metric: dict[tuple[str, str, bool], list[CellChange]] = {}
    for each in changes:
        key = each.name.topology, each.name.metric, each.change > 0
        by_metric.setdefault(key, []).append(each)
    metrics = [
        MetricChange(
            topology=topology,
            metric=metric,
            cells=tuple(sorted(cells, key=lambda c: -abs(math.log1p(c.change)))),
            measured=measured[system, client, topology, metric],
        )
        for (topology, metric, _), cells in by_metric.items()
    ]
    return DatedChange(
        system=system,
        client_kind=client,
        kind=typical.kind,
        since=typical.since,
        first=first,
        last=typical.last,
        goes_on=typical.goes_on,
        metrics=tuple(sorted(metrics, key=lambda m: (m.topology, -len(m.cells), m.metric))),
        stack=stack_changes(served, (typical.since, first)),
        nodes_known=nodes_known(served, (typical.since, first)),
    )


def _broken(courses: Iterable[tuple[_Nights, Course]], min_change: float) -> Iterator[BrokenNight]:
    far: Counter[tuple[str, str, date]] = Counter()
    there: Counter[tuple[str, str, date]] = Counter()
    for series, course in courses:
        whose = _whose(series.name)
        there.update((*whose, night) for night in series.nights)
        far.update(
            (*whose, series.nights[place])
            for place in course.broken
            if abs(math.expm1(_off(series.logs, place))) >= min_change
        )
    for key in sorted(far):
        system, client, night = key
        yield BrokenNight(
            system=system,
            client_kind=client,
            night=night,
            series=far[key],
            measured=there[key],
        )


def _off(logs: Floats, place: int) -> float:
    """Return how far a night is from the median of those around it."""
    around = logs[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]
    return float(logs[place] - np.median(around))


def _excluded(values: pd.DataFrame, sessions: pd.DataFrame) -> Iterator[Excluded]:
    """Return the sessions that are left out, of the systems that were asked for."""
    asked = set(values["system"].unique())
    out = sessions[sessions["excluded"].astype(bool) & sessions["system"].isin(asked)]
    for system, session, night, reason in zip(
        *(out[name] for name in ("system", "session", "night", "reason")), strict=True
    ):
        yield Excluded(
            system=system,
            session=session,
            night=None if pd.isna(night) else night.date(),
            reason=reason,
        )
