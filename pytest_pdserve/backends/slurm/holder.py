"""The holder: a process on each node that keeps the job alive, and reports the node's facts.

It ends when the session is over or sends no more heartbeats; then it removes what the session left
on the node. submitit runs it in a job of our own, ``srun`` in a job that already runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pytest_pdserve.backends.hosts.facts import run_quietly
from pytest_pdserve.backends.hosts.runner import Lease
from pytest_pdserve.backends.hosts.runner import group_lives
from pytest_pdserve.backends.hosts.runner import started_at
from pytest_pdserve.backends.slurm.node_facts import node_name
from pytest_pdserve.backends.slurm.node_facts import read_node_facts
from pytest_pdserve.backends.slurm.options import NodeFacts

LEASE = "lease"
NODES = "nodes"
MARKS = "groups"
"""Names inside of the session's folder."""
_POLL_S = 0.5
_LIST_ATTEMPTS = 6
"""How often the container engine is queried for containers that are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderConfig:
    """Settings of a holder; pickled by submitit, or given as JSON."""

    folder: str
    """Folder of the session, on a file system that nodes share."""
    lease_s: float
    """Time without a heartbeat after which the session counts as gone, seconds."""
    interface: str
    """Interface of the node's address; empty is the default route's."""
    devices: Sequence[str]
    """Globs of device files to report."""
    stop_s: float
    """Time between SIGTERM and SIGKILL, seconds."""
    list_containers: Sequence[str] = ()
    """Command that prints the ids of the session's containers; empty without an engine."""
    remove_containers: Sequence[str] = ()
    """Command that removes the containers whose ids are appended."""


def hold(config: HolderConfig) -> None:
    """Report this node, wait until the session is gone, and clean the node up."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    folder = Path(config.folder)
    lease = Lease(folder / LEASE, config.lease_s).watch()
    threading.Thread(target=report, args=[config], daemon=True).start()  # drivers may hang
    try:
        while lease.holds() and not over.wait(_POLL_S):
            pass
    finally:
        remove_containers(config.list_containers, config.remove_containers)
        end_marked(folder / MARKS, node_name(), config.stop_s)


def report(config: HolderConfig) -> None:
    """Write this node's facts to a file in the shared folder, atomically."""
    facts = read_node_facts(node_name(), interface=config.interface, patterns=config.devices)
    path = Path(config.folder) / NODES / f"{facts.node}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(msgspec.json.encode(facts))
    partial.replace(path)


def read_reports(folder: Path, nodes: Sequence[str]) -> dict[str, NodeFacts]:
    """Return the facts that :func:`report` wrote, of those *nodes* that have reported so far."""
    found = {}
    for node in nodes:
        with contextlib.suppress(OSError, ValueError, RecursionError):  # malformed, too
            data = (folder / NODES / f"{node}.json").read_bytes()
            found[node] = msgspec.json.decode(data, type=NodeFacts)
    return found


def end_marked(marks: Path, node: str, stop_s: float) -> None:
    """End the groups on *node* whose runner was killed before it could end them."""
    left = {}
    for mark in marks.glob(f"{node}.*"):
        group = int(mark.suffix[1:])
        with contextlib.suppress(OSError):
            if started_at(group) in (mark.read_text(), None) and group_lives(group):
                left[group] = mark
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in left:
            with contextlib.suppress(OSError):
                os.killpg(group, number)
        waiting = threading.Event()
        for _ in range(int(stop_s / _POLL_S)):
            if not any(map(group_lives, left)):
                return
            waiting.wait(_POLL_S)


def remove_containers(listing: Sequence[str], removing: Sequence[str]) -> None:
    """Remove the containers that the command *listing* prints, until it prints none.

    A busy container engine may fail to answer, so it is queried several times.
    """
    for _ in range(_LIST_ATTEMPTS if listing else 0):
        answer = run_quietly(listing)
        ids = answer.split() if answer is not None else []
        if ids:
            run_quietly([*removing, *ids])
        elif answer is not None:
            return
        threading.Event().wait(_POLL_S)


def holder_argv(action: str, config: HolderConfig) -> list[str]:
    """Return the command that runs :func:`hold` or :func:`report` on a node.

    :param action: ``hold`` or ``report``.
    """
    module = "pytest_pdserve.backends.slurm.holder"
    return [sys.executable, "-m", module, action, json.dumps(asdict(config))]


def main() -> None:
    """Run the action of the first argument with the configuration of the last, given as JSON."""
    config = HolderConfig(**json.loads(sys.argv[-1]))
    if sys.argv[1] == "report":
        report(config)
    else:
        hold(config)


if __name__ == "__main__":
    main()
