"""Conversion of a session's runs to a night of a baseline."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record


def night_of_runs(runs: Sequence[Record]) -> Night | None:
    """Return the night made of *runs* of one cell; None if no judged metric has a value.

    :param runs: one of each start; each metric is the median of the runs that have it.
    """
    values = {}
    for name in METRICS.kept:
        present = [value for run in runs if (value := run.value(name)) is not None and value > 0]
        if present:
            values[name] = statistics.median(present)
    if not values:
        return None
    return Night(
        session=runs[0].session.id,
        starts=len(runs),
        values=values,
        client=runs[0].client_kind,
    )


def counts_of(run: Record) -> dict[str, float]:
    """Return the counts of a run that later runs must repeat."""
    values = {name: run.value(name) for name in METRICS.counts}
    return {name: value for name, value in values.items() if value is not None}


def source_of(run: Record) -> Source:
    """Return what a baseline keeps of a run's session."""
    return Source(
        id=run.session.id,
        started_at=run.session.started_at,
        simulated_night=run.session.simulated_night,
        versions=run.versions,
        nodes=run.nodes,
    )
