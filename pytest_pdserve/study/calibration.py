"""Calibrations: made of stored sessions of an A/A study."""

from __future__ import annotations

import statistics
from datetime import UTC
from datetime import datetime

from pytest_pdserve.results.calibration import calibration_path
from pytest_pdserve.results.history import starts_of
from pytest_pdserve.results.selection import Selection
from pytest_pdserve.study.variance import Sample
from pytest_pdserve.study.variance import noise_of
from pytest_pdserve.values.calibration import Calibration
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.sources import Sources
from pytest_pdserve.values.system import System

LEAST_NIGHTS = 5
"""Nights without which nothing is said of what they have in common."""


def calibrate(selection: Selection, system: System) -> Calibration:
    """Estimate the noise of *system* from sessions between which nothing changed.

    The first run of each cell and session counts; further runs of it say what belongs to the start.

    :raises ConfigError: if there are fewer than five nights, or no night with two sessions.
    """
    nights = [session.night for session in selection.sessions]
    if len(set(nights)) < LEAST_NIGHTS or len(set(nights)) == len(nights):
        raise ConfigError(
            f"{len(nights)} sessions of {len(set(nights))} nights ({selection.period}) cannot say "
            f"what the runs of a night have in common: at least {LEAST_NIGHTS} nights are needed, "
            "and two sessions in some of them"
        )
    cells = sorted({key for session in selection.sessions for key in session.runs()})
    metrics = {}
    for name in METRICS.times:
        samples = [s for key in cells if (s := _sample(selection, key, name)) is not None]
        if (noise := noise_of(name, samples, Rules())) is not None:
            metrics[name] = noise
    if not metrics:
        raise ConfigError("no cell was run on two nights, and by two sessions of one of them")
    newest = selection.sessions[-1].records[0]
    return Calibration(
        system=system.name,
        source=str(calibration_path(system)),
        provenance=Sources(
            date=datetime.now(UTC).date().isoformat(),
            runs=tuple(each.session for each in selection.sessions),
            fingerprint=newest.fingerprint,
            versions=newest.versions,
        ),
        nights=len(set(nights)),
        sessions=len(nights),
        cells=len(cells),
        icc=statistics.median(noise.icc for noise in metrics.values()),
        metrics=metrics,
    )


def _sample(selection: Selection, key: tuple[str, str], metric: str) -> Sample | None:
    runs = [
        (value, session.night, session.run_id)
        for session in selection.sessions
        for start in starts_of(session.valid().get(key, ()))[:1]  # later ones: suspicious cells'
        for record in start
        if (value := record.value(metric) or 0.0) > 0
    ]
    if not runs:
        return None
    values, nights, starts = zip(*runs, strict=True)
    return Sample(values=values, nights=nights, starts=starts)
