"""The node that all slow runs of a cell, and no other run, used in one role. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pdserve.values.record import Record

RoleOnNode = tuple[str, str]
"""Role of an instance, and its node."""
MIN_RUNS = 2
"""Slow runs, and also other runs, that are needed to name a node."""


def roles_on_nodes(run: Record) -> frozenset[RoleOnNode]:
    """Return role and node of each instance of a run."""
    roles = {served.name: served.role for served in run.served}
    return frozenset(
        (roles[process.name], process.node) for process in run.processes if process.name in roles
    )


def slow_node(runs: Sequence[tuple[Record, bool]]) -> str:
    """Return a sentence about the node that only slow runs used in a role; empty without one.

    :param runs: runs of one cell, and whether each is suspicious.
    """
    slow = [roles_on_nodes(run) for run, is_slow in runs if is_slow]
    others = [roles_on_nodes(run) for run, is_slow in runs if not is_slow]
    if len(slow) < MIN_RUNS or len(others) < MIN_RUNS:
        return ""
    common = frozenset.intersection(*slow) - frozenset().union(*others)
    if len(common) != 1:
        return ""
    role, node = next(iter(common))
    return (
        f"All {len(slow)} slow runs had {node} as {role}, and none of {len(others)} other runs: "
        "suspect the node"
    )
