"""Check of network interfaces that lost packets during a load."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pdserve.judge.findings import note
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding

_SHOWN = 3
"""Counters that are listed per node, the largest first."""


def check_fabric(run: Observation) -> Iterator[Finding]:
    """Note nodes whose interfaces dropped packets or sent them again."""
    for node in run.fabric:
        if not node.troubles:
            continue
        worst = sorted(node.troubles.items(), key=lambda counter: -counter[1])
        counters = ", ".join(f"{name} +{count:,.0f}" for name, count in worst[:_SHOWN])
        more = f" and {len(worst) - _SHOWN} more" if len(worst) > _SHOWN else ""
        yield note(
            "fabric",
            f"interfaces of {node.node} lost packets or sent them again during the load: "
            f"{counters}{more}",
        )
