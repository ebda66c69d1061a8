"""Entry points by which other packages extend pdserve."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from pytest_pdserve.values.errors import ConfigError

METRICS_GROUP = "pdserve.metrics"
"""Group of entry points that are a :class:`~pytest_pdserve.values.metrics.Metric` each."""
CHECKS_GROUP = "pdserve.checks"
"""Group of entry points that are a :data:`~pytest_pdserve.judge.sanity.Check` each."""
BACKENDS_GROUP = "pdserve.backends"
"""Group of entry points that are a subclass of :class:`~pytest_pdserve.backends.backend.Backend`
each, named as in ``[cluster] kind`` of a system file."""


def load_extensions(group: str) -> dict[str, Any]:
    """Load every entry point of *group*, and return the objects by name.

    Callers load them once per process, since installed packages do not change meanwhile.

    :raises ConfigError: if one cannot be imported, or two share a name.
    """
    objects: dict[str, Any] = {}
    for point in metadata.entry_points(group=group):
        if point.name in objects:
            raise ConfigError(
                f"entry point {point.name!r} of group {group!r} is defined by two installed "
                "packages; uninstall one of them"
            )
        try:
            objects[point.name] = point.load()
        except Exception as error:
            package = point.dist.name if point.dist else "an installed package"
            raise ConfigError(
                f"entry point {point.name} = {point.value} of {package}, group {group!r}, cannot "
                f"be loaded: {type(error).__name__}: {error}; upgrade or uninstall {package}"
            ) from error
    return objects
