"""Series of nights with their dated changes, for figures of a history and for a session's page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.history.files import value_paths
from pytest_pdserve.history.store import Store
from pytest_pdserve.report.figures.trend import NightSeries
from pytest_pdserve.report.figures.trend import series_of
from pytest_pdserve.report.page.trends import NightTrends
from pytest_pdserve.report.page.trends import trend_metrics
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.report import Report

if TYPE_CHECKING:
    import pandas as pd


def dated_series(
    values: pd.DataFrame, sessions: pd.DataFrame
) -> tuple[tuple[NightSeries, ...], str]:
    """Return each metric of each cell with its dated changes, and why no change is dated.

    The reason is empty if ruptures is installed.

    :param values: a row for each value of each run (:meth:`.history.store.Store.values`).
    :param sessions: a row for each session (:meth:`.history.store.Store.sessions`).
    """
    from pytest_pdserve.study.trend_history import trend_of

    try:
        trend, why = trend_of(values, sessions), ""
    except ConfigError as error:  # dating changes needs ruptures, figures do not
        trend, why = None, f"no change is dated: {error}"
    return tuple(series_of(values, sessions, trend)), why


def night_trends(report: Report, folder: Path) -> NightTrends | None:
    """Return the stored nights of the metrics whose trend the page of *report* shows.

    None if the page shows no trend (:func:`.trends.trend_metrics`), or *folder* has no night.

    :param folder: folder of the history.

    :raises ConfigError: if there is no such folder.
    """
    wanted = trend_metrics(report)
    store = Store.open(folder)
    if not wanted or not any(True for _ in value_paths(folder)):
        return None
    values = store.values(
        report.system,
        topology=sorted({each.topology for each in wanted}),
        workload=sorted({each.workload for each in wanted}),
        metric=sorted({each.metric for each in wanted}),
    )
    keys = [(each.topology, each.workload, each.metric) for each in wanted]
    values = values[values.set_index(["topology", "workload", "metric"]).index.isin(keys)]
    if report.client:
        values = values[values["client_kind"] == report.client]
    sessions = store.sessions()
    series, why = dated_series(values, sessions)
    own = sessions[sessions["system"] == report.system]
    nights = own["night"].dropna()
    return NightTrends(
        history=folder,
        series=series,
        newest=None if nights.empty else nights.max().date(),
        has_session=report.session is not None and report.session.id in set(own["session"]),
        notes=tuple(dict.fromkeys([*store.unreadable, *([why] if why else [])])),
    )
