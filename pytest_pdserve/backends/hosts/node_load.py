"""Measures how much CPU time other processes than the session's use on a node.

It imports the standard library only, because the node's own Python runs it, with the runner.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SHOWN = 3
"""Maximum number of processes that are named."""
_MIN_CORES = 0.05
"""A process that uses fewer cores is not named."""
_KERNEL_PARENT = 2


@dataclass(frozen=True)
class Used:
    """The CPU time that one process has used."""

    name: str
    """The kernel's name of the process, at most 15 characters."""
    parent: int
    """Process id of the parent."""
    group: int
    """Process group."""
    started: int
    """Clock ticks from boot to its start; distinguishes it from a later process with its id."""
    ticks: int
    """Clock ticks of CPU time, including children that have ended."""


@dataclass(frozen=True)
class NodeSample:
    """One sample of a node's CPU times."""

    at: float
    """Monotonic time, seconds."""
    busy: int
    """Clock ticks of all cores that were not idle, since boot."""
    steal: int
    """Clock ticks that the hypervisor gave to other guests."""
    total: int
    """Clock ticks of all cores, idle or not."""
    processes: Mapping[int, Used]
    """User processes by id."""


def sample_node(proc: Path = Path("/proc")) -> NodeSample | None:
    """Sample the CPU time of the node and of each process; None if ``/proc`` lacks it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        ticks = [int(field) for field in (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, idle, waiting, irq, soft, steal = ticks
        busy = user + nice + system + irq + soft
        return NodeSample(
            at=time.monotonic(),
            busy=busy,
            steal=steal,
            total=busy + idle + waiting + steal,
            processes={pid: used for pid in _ids(proc) if (used := _used(proc, pid)) is not None},
        )
    return None


def load_between(
    before: NodeSample | None,
    after: NodeSample | None,
    *,
    roots: Collection[int] | None,
    groups: Collection[int] = (),
) -> dict[str, Any] | None:
    """Return the load of a node between two samples, as fields of a ``NodeLoad``.

    :param roots: processes that belong to this session with all their descendants; None if they
        are unknown, as with containers: then the load of other processes is left out.
    :param groups: process groups of this session.
    :returns: None without two samples at different times.
    """
    if before is None or after is None or after.total <= before.total or after.at <= before.at:
        return None
    cores = os.cpu_count() or 1
    per_core = (after.total - before.total) / cores
    busy = (after.busy - before.busy) / per_core
    load: dict[str, Any] = {
        "cores": cores,
        "load_1m": round(os.getloadavg()[0], 2),
        "steal": round((after.steal - before.steal) / (after.total - before.total), 4),
        "busy_cores": round(busy, 2),
    }
    if roots is None:
        return load
    used = _used_by_others(before, after, frozenset(roots), frozenset(groups))
    named = sorted(used.items(), key=lambda each: -each[1])
    return {
        **load,
        "other_cores": round(min(sum(used.values()) / per_core, busy), 2),
        "other_processes": [
            f"{after.processes[pid].name}[{pid}] {ticks / per_core:.2f}"
            for pid, ticks in named[:_SHOWN]
            if ticks / per_core >= _MIN_CORES
        ],
    }


def _used_by_others(
    before: NodeSample, after: NodeSample, roots: frozenset[int], groups: frozenset[int]
) -> dict[int, int]:
    """Return the ticks that each process that is not this session's has used, by id."""
    own = {pid for pid in after.processes if _is_own(pid, after.processes, roots, groups)}
    used = {}
    for pid, now in after.processes.items():
        if pid not in own:
            was = before.processes.get(pid)
            used[pid] = now.ticks - (was.ticks if was and was.started == now.started else 0)
    # A child that ended adds all its CPU time to its parent's, also that before the first sample.
    for pid, was in before.processes.items():
        gone = pid not in after.processes or after.processes[pid].started != was.started
        if gone and was.parent in used:
            used[was.parent] -= was.ticks
    return {pid: ticks for pid, ticks in used.items() if ticks > 0}


def _is_own(
    pid: int, processes: Mapping[int, Used], roots: frozenset[int], groups: frozenset[int]
) -> bool:
    seen: set[int] = set()
    while pid in processes and pid not in seen:
        if pid in roots or processes[pid].group in groups:
            return True
        seen.add(pid)
        pid = processes[pid].parent
    return False


def _ids(proc: Path) -> list[int]:
    return [int(entry.name) for entry in os.scandir(proc) if entry.name.isdigit()]


def _used(proc: Path, pid: int) -> Used | None:
    try:
        head, _, rest = (proc / str(pid) / "stat").read_text().rpartition(")")
        fields = rest.split()
        parent = int(fields[1])
        if _KERNEL_PARENT in (pid, parent):
            return None  # a kernel thread, which may work for any process
        return Used(
            name=head.partition("(")[2],
            parent=parent,
            group=int(fields[2]),
            started=int(fields[19]),
            ticks=sum(map(int, fields[11:15])),
        )
    except (OSError, ValueError, IndexError):
        return None
