"""Whether slow runs have a node in common that no other run has. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pdserve.values.record import Record

Seat = tuple[str, str]
"""Role of an instance, and its node."""
MIN_RUNS = 2
"""Slow runs, and other runs, without which a node is not named."""


def seats_of(run: Record) -> frozenset[Seat]:
    """Return role and node of every instance of a run."""
    roles = {served.name: served.role for served in run.served}
    return frozenset(
        (roles[process.name], process.node) for process in run.processes if process.name in roles
    )


def slow_node(runs: Sequence[tuple[Record, bool]]) -> str:
    """Say which node every slow run had in a role, and no other run; empty if there is none.

    :param runs: runs of one cell, and whether each is suspicious.
    """
    slow = [seats_of(run) for run, is_slow in runs if is_slow]
    others = [seats_of(run) for run, is_slow in runs if not is_slow]
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
