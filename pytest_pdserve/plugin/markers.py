"""Markers and the validation of their arguments at collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest

if TYPE_CHECKING:
    from pytest_pdserve.values.system import ClusterSpec
    from pytest_pdserve.values.topology import Topology

PANELS = ("prefill", "decode")
"""The article's panels."""
_REQUIREMENTS = ("disaggregated", "nodes", "gpus_per_node")

SIGNATURES = {
    "pdserve_panels": "pdserve_panels(*panels): run the test once for each workload of the "
    "system's sweep that is in the named panels, 'prefill' and 'decode'.",
    "pdserve_requires": "pdserve_requires(disaggregated=None, nodes=None, gpus_per_node=None): "
    "skip the test unless its topology separates prefill and decode (False: does not) and the "
    "system has at least that many nodes and GPUs per node.",
    "pdserve_claims": "pdserve_claims(path): run the test once for each claim of a TOML file, "
    "whose path is relative to the test's folder.",
    "pdserve_last": "pdserve_last: run the test after all others, as it judges their measurements.",
}


def panels_of(mark: pytest.Mark) -> frozenset[str]:
    """Return the panels of a ``pdserve_panels`` marker.

    :raises pytest.UsageError: if it names no panel, or an unknown one.
    """
    if mark.kwargs or not mark.args or not set(mark.args) <= set(PANELS):
        raise _misused(mark)
    return frozenset(mark.args)


def claims_file(mark: pytest.Mark, folder: Path) -> Path:
    """Return the file of a ``pdserve_claims`` marker in *folder*.

    :raises pytest.UsageError: if its argument is not one path.
    """
    if mark.kwargs or len(mark.args) != 1 or not isinstance(mark.args[0], str):
        raise _misused(mark)
    return folder / mark.args[0]


def check_requires(mark: pytest.Mark) -> None:
    """Raise if the arguments of a ``pdserve_requires`` marker are invalid.

    :raises pytest.UsageError: with the marker and its signature.
    """
    numbers = [mark.kwargs.get(name, 1) for name in ("nodes", "gpus_per_node")]
    if (
        mark.args
        or not set(mark.kwargs) <= set(_REQUIREMENTS)
        or not all(type(number) is int for number in numbers)
        or mark.kwargs.get("disaggregated") not in (None, True, False)
    ):
        raise _misused(mark)


def unmet(mark: pytest.Mark, topology: Topology | None, cluster: ClusterSpec) -> str | None:
    """Return which requirement *topology* or *cluster* does not meet; None if they meet all."""
    disaggregated = mark.kwargs.get("disaggregated")
    if disaggregated is not None and topology is not None:
        if topology.disaggregated is not disaggregated:
            kind = "separates" if topology.disaggregated else "does not separate"
            return f"{topology.id} {kind} prefill and decode"
    for name in ("nodes", "gpus_per_node"):
        have: int = getattr(cluster, name)
        if mark.kwargs.get(name, 0) > have:
            return f"needs {name} >= {mark.kwargs[name]}, the system has {have}"
    return None


def _misused(mark: pytest.Mark) -> pytest.UsageError:
    arguments: list[Any] = [*map(repr, mark.args), *(f"{k}={v!r}" for k, v in mark.kwargs.items())]
    called = f"{mark.name}({', '.join(arguments)})"
    return pytest.UsageError(f"{called} does not fit {SIGNATURES[mark.name]}")
