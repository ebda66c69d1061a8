"""Read files of claims, and of figures that claims can be judged by."""

from __future__ import annotations

from pathlib import Path

from pytest_pdserve.results.files import load_toml
from pytest_pdserve.results.kinds import CLAIMS
from pytest_pdserve.results.kinds import FIGURES
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.figures import Figures
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology


def load_claims(path: Path) -> tuple[Claim, ...]:
    """Read a file of claims.

    :raises ConfigError: if it is malformed, or two claims share an id.
    """
    entries = CLAIMS.parse(load_toml(path), path).claim
    claims = tuple(Claim.of(entry, source=str(path)) for entry in entries)
    ids = [claim.id for claim in claims]
    for name in ids:
        if ids.count(name) > 1:
            raise ConfigError(f"{path}: claim id {name!r} appears {ids.count(name)} times")
    return claims


def figures_path(system: System) -> Path:
    """Return the file of the figures of a system that consists of figures only."""
    return Path(system.source).parent / (system.figures or "figures.toml")


def load_figures(path: Path) -> Figures:
    """Read a file of figures.

    :raises ConfigError: if the file is missing or malformed, names an unknown metric, or has a
        cell twice.
    """
    figures = FIGURES.parse(load_toml(path), path, source=str(path))
    for index, cell in enumerate(figures.record):
        where = f"{path}: /record/{index}"
        try:
            Topology.parse(cell.topology)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        for name in cell.metrics:
            if name not in METRICS:
                raise ConfigError(f"{where}: unknown metric {name!r}")
    if len(figures.cells) < len(figures.record):
        raise ConfigError(f"{path}: a cell appears twice")
    return figures
