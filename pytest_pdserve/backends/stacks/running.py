"""Whether servers that run have the versions of their stack, seen in the processes themselves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import log_tail
from pytest_pdserve.backends.images import last_object
from pytest_pdserve.backends.stacks import loaded
from pytest_pdserve.plan.command import Command
from pytest_pdserve.values.errors import InvalidRunError
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.stack import PARTS
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.stack import same_version

_PYTHON = "python3"
_ANSWER_S = 60.0
_POLL_S = 0.1
Versions = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process that serves, and the parts that it must have loaded."""

    name: str
    """Who it is, e.g. ``decode[0]``."""
    process: Process
    """What runs."""
    parts: tuple[str, ...]
    """Distributions, of :data:`~.stack.PARTS`."""


def parts_of(role: str, *, moves_kv: bool) -> tuple[str, ...]:
    """Return the distributions that a process of *role* must have loaded.

    :param moves_kv: whether an instance of that role takes part in KV transfer by NIXL.
    """
    vllm, nixl, router = PARTS
    if role == "router":
        return (router,)
    return (vllm, nixl) if moves_kv else (vllm,)


def running_versions(
    allocation: Allocation, servers: Sequence[Running], folder: Path
) -> Mapping[str, Versions]:
    """Return what each of *servers* has loaded, by its name: version by distribution.

    Each node is asked by a process of its own there, which reads ``/proc``. Of servers in
    containers, the image tells instead: the same for all.

    :param folder: of its own, on a file system that nodes share.
    :raises LaunchError: if a node cannot tell.
    :raises InvalidRunError: if a process has loaded two versions of one distribution.
    """
    if any(each.process.command.pid_argv or each.process.pid is None for each in servers):
        inside = allocation.find_versions()
        return {each.name: inside for each in servers}
    folder.mkdir(parents=True, exist_ok=True)
    script = str(shutil.copy(str(loaded.__file__), folder))
    found: dict[str, Versions] = {}
    for node in dict.fromkeys(each.process.command.node for each in servers):
        there = [each for each in servers if each.process.command.node == node]
        said = _ask(allocation, node, script, [str(each.process.pid) for each in there])
        for each in there:
            loaded_there = _single(each.name, said[str(each.process.pid)])
            found[each.name] = {k: v for k, v in loaded_there.items() if k in each.parts}
    return found


def _single(name: str, said: Mapping[str, Sequence[str]]) -> Versions:
    for distribution, versions in said.items():
        if len(versions) > 1:
            raise InvalidRunError(
                f"{name} has loaded {distribution} {' and '.join(versions)}, expected one version; "
                "see which folders PYTHONPATH, LD_LIBRARY_PATH and [kv_transfer] libraries name"
            )
    return {distribution: versions[0] for distribution, versions in said.items()}


def _ask(
    allocation: Allocation, node: str, script: str, pids: Sequence[str]
) -> Mapping[str, Mapping[str, Sequence[str]]]:
    log = Path(script).parent / f"loaded-{node}.log"
    command = Command(name="versions", node=node, argv=(_PYTHON, script, *pids))
    (process,) = allocation.start([command], logs=[log], secrets={})
    try:
        deadline = time.monotonic() + _ANSWER_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    finally:
        allocation.stop([process])
    said = last_object(log)
    if process.poll() != 0 or said is None:
        raise LaunchError(
            f"node {node} could not tell what its servers have loaded; {log} ends:\n{log_tail(log)}"
        )
    return said


def check_versions(stack: Stack, servers: Sequence[Running], found: Mapping[str, Versions]) -> None:
    """Refuse servers that do not have the versions of their stack.

    Nothing is checked of an image: its stack states no versions.

    :raises InvalidRunError: naming the first that differs.
    """
    for trouble in _differences(stack, servers, found):
        raise InvalidRunError(trouble)


def _differences(
    stack: Stack, servers: Sequence[Running], found: Mapping[str, Versions]
) -> Iterator[str]:
    for server in servers:
        for name in server.parts if stack.pins else ():
            pinned, there = stack.pins.get(name), found[server.name].get(name)
            if there is None:
                yield (
                    f"{server.name} has not loaded {name}, expected {name} {pinned or ''} of stack "
                    f"{stack.text!r}"
                )
            elif pinned is not None and not same_version(pinned, there):
                yield (
                    f"{server.name} has loaded {name} {there}, expected {pinned} of stack "
                    f"{stack.text!r}; see which folders PYTHONPATH, LD_LIBRARY_PATH and "
                    "[kv_transfer] libraries name"
                )
