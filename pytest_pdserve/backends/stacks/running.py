"""Checks that running server processes have loaded the versions of their stack."""

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
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.stack import PARTS
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.stack import same_version
from pytest_pdserve.values.system import KvTransfer

_PYTHON = "python3"
_ANSWER_S = 60.0
_POLL_S = 0.1
Versions = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server process, and the distributions that it must have loaded."""

    name: str
    """E.g. ``decode[0]``."""
    process: Process
    parts: tuple[str, ...]
    """Distributions, of :data:`~.stack.PARTS`."""


def parts_of(role: str, transfer: KvTransfer) -> tuple[str, ...]:
    """Return the distributions that a process of *role* must have loaded.

    :param role: of an instance, or ``router``.
    :param transfer: KV transfer of the system.
    """
    vllm, nixl, router = PARTS
    if role == "router":
        return (router,)
    return (vllm, nixl) if ROLES[role].kv_role and transfer.uses_nixl else (vllm,)


def running_versions(
    allocation: Allocation, servers: Sequence[Running], folder: Path
) -> Mapping[str, Versions]:
    """Return the versions that each of *servers* has loaded, by its name and distribution.

    On each node, a separate process reads ``/proc``. For servers in containers, the versions are
    those of the image, the same for all.

    :param folder: for the script and its logs, on a file system that nodes share.
    :raises LaunchError: if a node reports no versions.
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
        answer = _ask(allocation, node, script, [str(each.process.pid) for each in there])
        for each in there:
            versions = _one_version_each(each.name, answer[str(each.process.pid)])
            found[each.name] = {k: v for k, v in versions.items() if k in each.parts}
    return found


def _one_version_each(name: str, loaded_versions: Mapping[str, Sequence[str]]) -> Versions:
    for distribution, versions in loaded_versions.items():
        if len(versions) > 1:
            raise InvalidRunError(
                f"{name} has loaded {distribution} {' and '.join(versions)}, expected one version; "
                "see which folders PYTHONPATH, LD_LIBRARY_PATH and [kv_transfer] libraries name"
            )
    return {distribution: versions[0] for distribution, versions in loaded_versions.items()}


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
    answer = last_object(log)
    if process.poll() != 0 or answer is None:
        raise LaunchError(
            f"node {node} could not read which versions its servers have loaded; {log} ends:\n"
            f"{log_tail(log)}"
        )
    return answer


def check_versions(stack: Stack, servers: Sequence[Running], found: Mapping[str, Versions]) -> None:
    """Raise if servers have loaded other versions than those of their stack.

    The stack of an image has no versions, so it is not checked.

    :raises InvalidRunError: naming the first difference.
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
