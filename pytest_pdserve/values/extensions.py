"""Objects that other packages add to a table of this one, by entry points."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from pytest_pdserve.values.errors import ConfigError

METRICS_GROUP = "pdserve.metrics"
"""Entry points of this group are a :class:`~pytest_pdserve.values.metrics.Metric` each."""
CHECKS_GROUP = "pdserve.checks"
"""Entry points of this group are a :data:`~pytest_pdserve.judge.sanity.Check` each."""
BACKENDS_GROUP = "pdserve.backends"
"""Entry points of this group are a subclass of :class:`~pytest_pdserve.backends.backend.Backend`
each, by the name that ``[cluster] kind`` of a system file gives."""


def load_extensions(group: str) -> dict[str, Any]:
    """Load every entry point of *group*, by its name.

    What is installed does not change while a process runs, so tables read it once.

    :raises ConfigError: if one cannot be imported, or two share a name.
    """
    found: dict[str, Any] = {}
    for point in metadata.entry_points(group=group):
        if point.name in found:
            raise ConfigError(
                f"entry point {point.name!r} of group {group!r} is defined by two installed "
                "packages; uninstall one of them"
            )
        try:
            found[point.name] = point.load()
        except Exception as error:
            package = point.dist.name if point.dist else "an installed package"
            raise ConfigError(
                f"entry point {point.name} = {point.value} of {package}, group {group!r}, cannot "
                f"be loaded: {type(error).__name__}: {error}; upgrade or uninstall {package}"
            ) from error
    return found
