"""Short names of workloads in one table: what all rows share is printed once, above it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.values.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortNames:
    """Names of the workloads of one table."""

    shared: str
    """What all of them have in common, e.g. ``random, n1024``; empty for a single workload."""
    names: Mapping[str, str]
    """Short name by workload id; no two are the same."""

    def of(self, workload: Workload) -> str:
        """Return the name of one of the workloads."""
        return self.names[workload.id]


def short_names(workloads: Sequence[Workload]) -> ShortNames:
    """Return names that leave out what all of *workloads* share."""
    parts = {workload.id: workload.parts for workload in workloads}
    if len(parts) < 2:
        return ShortNames(shared="", names={name: name for name in parts})
    first, *others = parts.values()
    shared = {
        name: text
        for name, text in first.items()
        if all(other.get(name) == text for other in others)
    }
    names = {
        id_: "-".join(text for name, text in own.items() if name not in shared) or "defaults"
        for id_, own in parts.items()
    }
    if len(set(names.values())) < len(names):
        return ShortNames(shared="", names={name: name for name in parts})
    return ShortNames(shared=", ".join(shared.values()), names=names)
