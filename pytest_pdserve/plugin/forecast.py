"""What a session will take, said before it acquires nodes."""

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


def asks_servers(item: pytest.Item) -> bool:
    """Whether a test sends requests of its own to the servers of a topology."""
    return "pdserve_deployment" in getattr(item, "fixturenames", ())


def tell_forecast(
    session: Session, items: Sequence[pytest.Item], progress: Callable[[str], None]
) -> None:
    """Say what the tests *items* will take, and keep it beside what they then take."""
    from pytest_pdserve.report.phases import forecast_line
    from pytest_pdserve.session.forecasting import Asked
    from pytest_pdserve.session.forecasting import forecast_session

    topologies = {t.id: t for item in items if (t := topology_of(item)) is not None}
    cells = {name: workloads_on(topology, items) for name, topology in topologies.items()}
    asking = {t.id for item in items if asks_servers(item) and (t := topology_of(item))}
    settings = session.settings
    asked = Asked(
        cells=cells, other_tests=asking, repeats=settings.repeats, first_runs=settings.first_runs
    )
    try:
        known = {
            (t, w.id) for t, each in cells.items() for w in each if not session.is_new((t, w.id))
        }
        made = forecast_session(session.system, asked, runs=settings.project.runs, known=known)
    except ConfigError:  # of a baseline, and said where it is judged by
        return
    if made is not None and made.starts + made.runs:
        session.phases.forecast_s = made.total_s
        progress(f"the session will take {forecast_line(made)}")
