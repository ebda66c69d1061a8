"""The container image: load or pull it on nodes, and read which versions it has."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.allocation import exit_text
from pytest_pdserve.backends.allocation import log_tail
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import Containment
from pytest_pdserve.plan.container import image_command
from pytest_pdserve.plan.host import Host
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.errors import LaunchError

_POLL_S = 0.2
_REPORT_S = 14.0
_VERSIONS_S = 120.0
Start = Callable[[Sequence[Command], Sequence[Path]], Sequence[Process]]
Stop = Callable[[Sequence[Process]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The image as the nodes have it."""

    name: str
    """Name or file from which containers start."""
    digest: str
    """Empty if unknown."""
    id: str = ""
    """Id on the nodes, from which Docker and podman also start; empty if unknown."""


def make_image_present(
    spec: ContainerSpec,
    hosts: Sequence[Host],
    *,
    script: Path,
    folder: Path,
    start: Start,
    stop: Stop,
    check: Callable[[], None],
    progress: Progress,
) -> Image:
    """Load or pull the image on all nodes, at the same time.

    :param script: path of ``image.py`` on the nodes.
    :param folder: for one log per node.
    :param check: raises when a node is lost.
    :raises AllocationError: naming nodes that failed, or that have different images.
    """
    if not spec.prepared:
        return Image(name=spec.image, digest=spec.image.partition("@")[2])
    commands = [
        image_command(
            spec, node=host.name, script=str(script), python=sys.executable, digest=index == 0
        )
        for index, host in enumerate(hosts)
    ]
    processes = start(commands, [folder / f"{command.node}.log" for command in commands])
    try:
        failed = _wait_loaded(processes, progress, check)
    finally:
        stop(processes)
    return _common_image(failed or processes)


def versions_of(
    containment: Containment,
    node: str,
    script: Path,
    python: str,
    *,
    start: Callable[..., Sequence[Process]],
    stop: Stop,
    progress: Progress,
    check: Callable[[], None] | None = None,
) -> dict[str, str]:
    """Return the versions installed where servers of *node* run.

    :param script: path of ``versions.py`` on the node; its log is next to it.
    :param check: raises when a server has ended, and so ends the wait; None without servers.
    :raises LaunchError: if the script fails.
    """
    command = Command(name="versions", node=node, argv=(python, str(script)))
    log = script.with_suffix(".log")
    with Heartbeat(progress, f"reading the versions installed on {node}"):
        (process,) = start(containment.wrap([command]), logs=[log], secrets={})
        try:
            deadline = time.monotonic() + _VERSIONS_S
            while process.poll() is None and time.monotonic() < deadline:
                if check is not None:
                    check()
                time.sleep(_POLL_S)
        finally:
            stop([process])
    installed = last_object(log)
    if process.poll() != 0 or installed is None:
        raise LaunchError(f"{node} reports no versions; {log} ends:\n{log_tail(log)}")
    return {name: str(version) for name, version in installed.items()}


def last_object(log: Path) -> dict[str, Any] | None:
    """Return the JSON object in the last line of a log; None if that line is not one."""
    try:
        found = json.loads(log.read_text().strip().rpartition("\n")[2])
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _wait_loaded(
    processes: Sequence[Process], progress: Progress, check: Callable[[], None]
) -> tuple[Process, ...]:
    """Wait until all processes end, one fails, or a node is lost.

    :returns: the processes that failed.
    """
    reported = time.monotonic()
    while running := [process for process in processes if process.poll() is None]:
        check()
        if failed := tuple(process for process in processes if process.poll()):
            return failed
        if time.monotonic() - reported >= _REPORT_S:
            reported = time.monotonic()
            line = log_tail(running[0].log, 1)
            progress(f"image: {len(processes) - len(running)} of {len(processes)} nodes; {line}")
        time.sleep(_POLL_S)
    return tuple(process for process in processes if process.poll())


def _common_image(processes: Sequence[Process]) -> Image:
    """Return the image that all nodes report; raise if they differ or one reports none."""
    nodes_by_id: dict[str, list[str]] = {}
    name = digest = ""
    for process in processes:
        node, answer, code = process.command.node, last_object(process.log), process.poll()
        if code != 0 or answer is None:
            raise AllocationError(
                f"node {node} has no image: image.py {exit_text(code or 0)}; "
                f"{process.log} ends:\n{log_tail(process.log)}"
            )
        name = answer["image"]
        digest = digest or next(iter(answer["digests"]), "") or answer["id"]
        nodes_by_id.setdefault(answer["id"] or "", []).append(node)
    if len(nodes_by_id) > 1 and all(nodes_by_id):
        which = "; ".join(f"{', '.join(nodes)}: {id}" for id, nodes in nodes_by_id.items())
        raise AllocationError(f"nodes have different images called {name}: {which}")
    return Image(name=name, digest=digest, id=next(iter(nodes_by_id), ""))
