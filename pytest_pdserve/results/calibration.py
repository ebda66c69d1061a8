"""Calibrations: made of stored sessions of an A/A study, written and read beside the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import CALIBRATION
from pytest_pdserve.values.calibration import Calibration
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.sources import unlike
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import UNKNOWN


def calibration_path(system: System) -> Path:
    """File of the calibration, beside the system file."""
    return Path(system.source).parent / "calibration.json"


def load_calibration(
    system: System,
    *,
    fingerprint: str | None = None,
    host: Mapping[str, str] = MappingProxyType({}),
) -> Calibration | None:
    """Read the calibration of *system*; None if there is none.

    :param fingerprint: of the hardware whose noise is asked for; None where it is not known.
    :param host: what the fingerprint was made of, to say what differs.
    :raises ConfigError: if it is malformed, of another system or hardware, or names an unknown
        metric.
    """
    path = calibration_path(system)
    if not path.exists():
        return None
    found = CALIBRATION.parse(load_json(path), path, source=str(path))
    if found.system != system.name:
        raise ConfigError(f"{path}: /system: is of {found.system!r}, not of {system.name!r}")
    for name in found.metrics:
        if name not in METRICS.measured:
            raise ConfigError(f"{path}: /metrics/{name}: unknown metric {name!r}")
    known = fingerprint not in (None, UNKNOWN)
    if fingerprint and known and found.provenance.fingerprint not in (None, UNKNOWN, fingerprint):
        raise ConfigError(
            f"{path} was made on another host or system file "
            f"({unlike(found.provenance, fingerprint, host)}); move it away, and study this with "
            "pdserve calibrate"
        )
    return found


def write_calibration(calibration: Calibration) -> Path:
    """Write it where :func:`load_calibration` looks.

    :raises StoreError: if it cannot be written.
    """
    path = Path(calibration.source)
    write_json(path, CALIBRATION.dump(calibration, path))
    return path
