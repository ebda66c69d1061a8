"""Whether network interfaces lost packets while a load ran."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pdserve.judge.findings import note
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding

_SHOWN = 3
"""Counters that are named of a node, the largest first."""


def check_fabric(seen: Observation) -> Iterator[Finding]:
    """Name nodes whose interfaces dropped packets or sent them again."""
    for node in seen.fabric:
        if not node.troubles:
            continue
        worst = sorted(node.troubles.items(), key=lambda each: -each[1])
        said = ", ".join(f"{name} +{count:,.0f}" for name, count in worst[:_SHOWN])
        more = f" and {len(worst) - _SHOWN} more" if len(worst) > _SHOWN else ""
        yield note(
            "fabric",
            f"interfaces of {node.node} lost packets or sent them again during the load: "
            f"{said}{more}",
        )
