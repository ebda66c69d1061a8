"""Calibrations: made of stored sessions of an A/A study, written and read beside the baseline."""

from __future__ import annotations

import statistics
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.results.files import check_schema
from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.history import by_start
from pytest_pdserve.results.imported import UNKNOWN
from pytest_pdserve.results.selection import Selection
from pytest_pdserve.values.calibration import Calibration
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.metrics import TIMES
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.system import System

if TYPE_CHECKING:
    from pytest_pdserve.judge.calibration import Sample

LEAST_NIGHTS = 5
"""Nights without which nothing is said of what they have in common."""


def calibration_path(system: System) -> Path:
    """File of the calibration, beside the system file."""
    return Path(system.source).parent / "calibration.json"


def load_calibration(system: System, *, fingerprint: str | None = None) -> Calibration | None:
    """Read the calibration of *system*; None if there is none.

    :param fingerprint: of the hardware whose noise is asked for; None where it is not known.
    :raises ConfigError: if it is malformed, of another system or hardware, or names an unknown
        metric.
    """
    path = calibration_path(system)
    if not path.exists():
        return None
    data = load_json(path)
    check_schema(data, "calibration", path)
    if data["system"] != system.name:
        raise ConfigError(f"{path}: /system: is of {data['system']!r}, not of {system.name!r}")
    for name in data["metrics"]:
        if name not in METRICS or METRICS[name].better == "equal":
            raise ConfigError(f"{path}: /metrics/{name}: unknown metric {name!r}")
    theirs = data["provenance"]["fingerprint"]
    if len({theirs, fingerprint} - {None, UNKNOWN}) > 1:
        raise ConfigError(
            f"{path} was made on another host or system file (fingerprint {theirs}, here "
            f"{fingerprint}); move it away, and study this with pdserve calibrate"
        )
    return Calibration.from_json(data, source=str(path))


def write_calibration(calibration: Calibration) -> Path:
    """Write it where :func:`load_calibration` looks.

    :raises StoreError: if it cannot be written.
    """
    path, data = Path(calibration.source), calibration.to_json()
    check_schema(data, "calibration", path)
    write_json(path, data)
    return path


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
    from pytest_pdserve.judge.calibration import noise_of  # noqa: PLC0415 - scipy

    cells = sorted({key for session in selection.sessions for key in session.runs()})
    metrics = {}
    for name in TIMES:
        samples = [s for key in cells if (s := _sample(selection, key, name)) is not None]
        if (noise := noise_of(name, samples, Rules())) is not None:
            metrics[name] = noise
    if not metrics:
        raise ConfigError("no cell was run on two nights, and by two sessions of one of them")
    newest = selection.sessions[-1].records[0]
    return Calibration(
        system=system.name,
        source=str(calibration_path(system)),
        provenance={
            "date": datetime.now(UTC).date().isoformat(),
            "runs": [session.run_id for session in selection.sessions],
            "fingerprint": newest.fingerprint,
            "versions": dict(newest.versions),
        },
        nights=len(set(nights)),
        sessions=len(nights),
        cells=len(cells),
        icc=statistics.median(noise.icc for noise in metrics.values()),
        metrics=metrics,
    )


def _sample(selection: Selection, key: tuple[str, str], metric: str) -> Sample | None:
    from pytest_pdserve.judge.calibration import Sample  # noqa: PLC0415 - scipy

    runs = [
        (value, session.night, session.run_id)
        for session in selection.sessions
        for start in by_start(session.valid().get(key, ()))[:1]  # later ones: suspicious cells'
        for record in start
        if (value := dict(record.metrics).get(metric, 0.0)) > 0 and metric not in record.voided
    ]
    if not runs:
        return None
    values, nights, starts = zip(*runs, strict=True)
    return Sample(values=values, nights=nights, starts=starts)
