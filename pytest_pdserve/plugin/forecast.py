"""Report the forecast of a session before it acquires nodes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.plugin.ordering import topology_of
from pytest_pdserve.plugin.ordering import workloads_on
from pytest_pdserve.values.errors import ConfigError

if TYPE_CHECKING:
    from pytest_pdserve.session.session import Session


def sends_requests(item: pytest.Item) -> bool:
    """Tell whether a test sends its own requests to the servers of a topology."""
    return "pdserve_deployment" in getattr(item, "fixturenames", ())


def report_forecast(
    session: Session, items: Sequence[pytest.Item], progress: Callable[[str], None]
) -> None:
    """Report how long the tests *items* will take, and store it with the measured times."""
    from pytest_pdserve.report.phases import forecast_line
    from pytest_pdserve.session.forecasting import PlannedSession
    from pytest_pdserve.session.forecasting import forecast_session

    topologies = {t.id: t for item in items if (t := topology_of(item)) is not None}
    cells = {name: workloads_on(topology, items) for name, topology in topologies.items()}
    asking = {t.id for item in items if sends_requests(item) and (t := topology_of(item))}
    settings = session.settings
    planned = PlannedSession(
        cells=cells, other_tests=asking, repeats=settings.repeats, first_runs=settings.first_runs
    )
    try:
        with_reference = {
            (t, w.id) for t, each in cells.items() for w in each if not session.is_new((t, w.id))
        }
        forecast = forecast_session(
            session.system, planned, runs=settings.project.runs, with_reference=with_reference
        )
    except ConfigError:  # of a baseline; reported when a cell is judged
        return
    if forecast is not None and forecast.starts + forecast.runs:
        session.phases.forecast_s = forecast.total_s
        progress(f"the session will take {forecast_line(forecast)}")
