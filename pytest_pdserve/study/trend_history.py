"""Dates on which the cells of a history changed, with changes of the same night grouped.

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

from pytest_pdserve.history.served import Served
from pytest_pdserve.history.served import served_on
from pytest_pdserve.study.trend import MIN_DRIFT
from pytest_pdserve.study.trend import NEIGHBOURS
from pytest_pdserve.study.trend import Floats
from pytest_pdserve.study.trend import SeriesAnalysis
from pytest_pdserve.study.trend import analyze_series
from pytest_pdserve.study.trend import correlation_of
from pytest_pdserve.study.trend_stacks import nodes_known
from pytest_pdserve.study.trend_stacks import stack_changes
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.trend import COUNTED_STATUSES
from pytest_pdserve.values.trend import MIN_CHANGE
from pytest_pdserve.values.trend import MIN_NIGHTS
from pytest_pdserve.values.trend import SERIES_COLUMNS
from pytest_pdserve.values.trend import BrokenNight
from pytest_pdserve.values.trend import CellChange
from pytest_pdserve.values.trend import DatedChange
from pytest_pdserve.values.trend import Excluded
from pytest_pdserve.values.trend import Kind
from pytest_pdserve.values.trend import MetricChange
from pytest_pdserve.values.trend import SeriesName
from pytest_pdserve.values.trend import Trend

MAX_DATE_DISTANCE: Mapping[Kind, int] = {"step": 3, "drift": 10}
"""Largest difference, in nights, between the dates of the same change in two series."""
MAX_EVIDENCE = 10.0
"""Standard deviations beyond which a larger change does not date its night better."""
SystemAndClient = tuple[str, str]
"""System and kind of client; only nights with the same are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nights:
    """One series: nights, and the logarithm of each night's median."""

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
    """Return when the metrics of all cells changed, and which versions and nodes changed then.

    :param values: a row for each value of each run (:meth:`.history.store.Store.values`).
    :param sessions: a row for each session (:meth:`.history.store.Store.sessions`).
    :param min_change: smallest change that is reported, as a fraction.
    :param since: oldest night from which changes are reported; all nights are analyzed.
    :raises ConfigError: if ruptures is not installed.
    """
    all_series = list(_series(values))
    long_enough = [series for series in all_series if len(series.nights) >= MIN_NIGHTS]
    analyses = list(zip(long_enough, _analyses(long_enough), strict=True))
    nights = sorted({night for series in long_enough for night in series.nights})
    changes = [
        change
        for series, analysis in analyses
        for change in _cell_changes(series, analysis)
        if abs(change.change) >= min_change
    ]
    grouped = _grouped(changes, long_enough, sessions)
    oldest = since or date.min
    return Trend(
        changes=tuple(sorted((c for c in grouped if c.first >= oldest), key=_by_night)),
        broken=tuple(n for n in _broken(analyses, min_change) if n.night >= oldest),
        excluded=tuple(_excluded(values, sessions)),
        cells=len({(n.system, n.client_kind, n.topology, n.workload) for n in _names(long_enough)}),
        series=len(long_enough),
        short=len(all_series) - len(long_enough),
        nights=len(nights),
        first=nights[0] if nights else None,
        last=nights[-1] if nights else None,
        min_change=min_change,
    )


def _by_night(change: DatedChange) -> tuple[str, str, date, str]:
    return change.system, change.client_kind, change.first, change.kind


def _names(series: Iterable[_Nights]) -> Iterator[SeriesName]:
    return (each.name for each in series)


def _scope_of(name: SeriesName) -> SystemAndClient:
    return name.system, name.client_kind


def _series(values: pd.DataFrame) -> Iterator[_Nights]:
    """Yield the median of each night's values that count, by metric and cell."""
    counts = [name for name, metric in METRICS.items() if metric.better == "equal"]
    kept = values[
        ~values["excluded"].astype(bool)
        & values["status"].isin(COUNTED_STATUSES)
        & values["night"].notna()
        & (values["value"] > 0)
        & (values["value"] < math.inf)
        & ~values["metric"].isin(counts)
    ]
    codes = (
        kept[list(SERIES_COLUMNS)]
        .astype("category")
        .assign(night=kept["night"].dt.date, value=kept["value"])
    )
    nightly = codes.groupby([*SERIES_COLUMNS, "night"], observed=True, sort=True)["value"].median()
    for key, medians in nightly.groupby(level=list(SERIES_COLUMNS), observed=True, sort=True):
        texts = [str(part) for part in cast("tuple[str, ...]", key)]
        name = SeriesName(**dict(zip(SERIES_COLUMNS, texts, strict=True)))
        nights = tuple(medians.index.get_level_values("night"))
        yield _Nights(name=name, nights=nights, logs=np.log(medians.to_numpy(dtype=float)))


def _analyses(series: Sequence[_Nights]) -> Iterator[SeriesAnalysis]:
    """Return the analysis of each series.

    The correlation of nights is estimated per system and metric: one cell alone is too imprecise.
    """
    correlations: dict[tuple[str, str, str], list[float]] = {}
    for one in series:
        correlations.setdefault(_metric_key(one.name), []).append(correlation_of(one.logs))
    medians = {key: float(np.median(values)) for key, values in correlations.items()}
    return (analyze_series(one.logs, correlation=medians[_metric_key(one.name)]) for one in series)


def _metric_key(name: SeriesName) -> tuple[str, str, str]:
    return name.system, name.client_kind, name.metric


def _cell_changes(series: _Nights, analysis: SeriesAnalysis) -> Iterator[CellChange]:
    for change in analysis.changes:
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
    """Yield groups of changes that are dated to the same nights."""
    measured = Counter((n.system, n.client_kind, n.topology, n.metric) for n in _names(series))
    nights: dict[SystemAndClient, set[date]] = {}
    for one in series:
        nights.setdefault(_scope_of(one.name), set()).update(one.nights)
    alike: dict[tuple[SystemAndClient, Kind], list[CellChange]] = {}
    for change in changes:
        alike.setdefault((_scope_of(change.name), change.kind), []).append(change)
    for (scope, kind), left in alike.items():
        served = served_on(sessions, scope[0])
        place = {night: number for number, night in enumerate(sorted(nights[scope]))}
        while left:
            first = _most_evident(left)
            away = {night: abs(number - place[first]) for night, number in place.items()}
            near: dict[SeriesName, CellChange] = {}
            for change in sorted(left, key=lambda c: away[c.first]):
                if away[change.first] <= MAX_DATE_DISTANCE[kind]:
                    near.setdefault(change.name, change)
            left = [change for change in left if near.get(change.name) is not change]
            yield _dated(first, tuple(near.values()), measured, served)


def _most_evident(changes: Sequence[CellChange]) -> date:
    """Return the first night of changes with the most evidence."""
    evidence: dict[date, float] = {}
    for change in changes:
        total = evidence.get(change.first, 0.0)
        evidence[change.first] = total + min(change.strength, MAX_EVIDENCE)
    return max(evidence, key=lambda night: (evidence[night], night))


def _dated(
    first: date,
    changes: tuple[CellChange, ...],
    measured: Mapping[tuple[str, str, str, str], int],
    served: Mapping[date, Served],
) -> DatedChange:
    """Return one change of several cells, with the date of at least one of them."""
    typical = max((c for c in changes if c.first == first), key=lambda c: c.strength)
    system, client = _scope_of(typical.name)
    by_metric: dict[tuple[str, str, bool], list[CellChange]] = {}
    for change in changes:
        key = change.name.topology, change.name.metric, change.change > 0
        by_metric.setdefault(key, []).append(change)
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


def _broken(
    analyses: Iterable[tuple[_Nights, SeriesAnalysis]], min_change: float
) -> Iterator[BrokenNight]:
    broken: Counter[tuple[str, str, date]] = Counter()
    measured: Counter[tuple[str, str, date]] = Counter()
    for series, analysis in analyses:
        scope = _scope_of(series.name)
        measured.update((*scope, night) for night in series.nights)
        broken.update(
            (*scope, series.nights[place])
            for place in analysis.broken
            if abs(math.expm1(_distance_from_median(series.logs, place))) >= min_change
        )
    for key in sorted(broken):
        system, client, night = key
        yield BrokenNight(
            system=system,
            client_kind=client,
            night=night,
            series=broken[key],
            measured=measured[key],
        )


def _distance_from_median(logs: Floats, place: int) -> float:
    """Return the distance of a night from its running median."""
    around = logs[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]
    return float(logs[place] - np.median(around))


def _excluded(values: pd.DataFrame, sessions: pd.DataFrame) -> Iterator[Excluded]:
    """Yield the excluded sessions of the requested systems."""
    requested = set(values["system"].unique())
    out = sessions[sessions["excluded"].astype(bool) & sessions["system"].isin(requested)]
    for system, session, night, reason in zip(
        *(out[name] for name in ("system", "session", "night", "reason")), strict=True
    ):
        yield Excluded(
            system=system,
            session=session,
            night=None if pd.isna(night) else night.date(),
            reason=reason,
        )
