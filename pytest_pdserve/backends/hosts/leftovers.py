"""Finds what a killed session left on this host, and proves what of it belongs to that session.

Process ids are reused, so a group is the session's only if its leader runs and has the start time
in the inventory. The kernel gives no new process the id of a group that still has members.
Therefore, if the leader is gone, one member that is proven to be the session's proves the whole
group: a member that writes into the run's folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from enum import auto
from pathlib import Path
from typing import Literal

import psutil

from pytest_pdserve.backends.hosts.image import login_prefix
from pytest_pdserve.backends.hosts.inventory import HostId
from pytest_pdserve.backends.hosts.inventory import Inventory
from pytest_pdserve.backends.hosts.inventory import LossCommand
from pytest_pdserve.backends.hosts.inventory import ProcessId
from pytest_pdserve.backends.hosts.inventory import StartedGroup

FileKind = Literal["lock", "login folder", "socket", "shared memory"]
_SHARED = re.compile(r"/dev/shm/psm_[0-9a-f]{8}")  # noqa: S108 - a pattern, made by others
"""Shared memory as Python's multiprocessing names it."""


class SessionState(Enum):
    """The state of an inventory's session, seen from this host."""

    IN_USE = auto()
    KILLED = auto()
    EARLIER_BOOT = auto()
    OTHER_HOST = auto()
    OTHER_NAMESPACE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenProcess:
    """A process of this host."""

    pid: int
    group: int
    started: int
    """Clock ticks from boot to its start."""
    uid: int
    runs: bool
    """False for a zombie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LivingGroup:
    """A process group with the id of an inventory's group, and with members that run."""

    group: StartedGroup
    pids: tuple[int, ...]
    """Members."""
    proven: bool
    """True if it is proven to be the session's; if not, it may belong to another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftFile:
    """A file or folder outside of the run's folder."""

    kind: FileKind
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """Processes and files that a killed session left behind."""

    guard: ProcessId | None = None
    """The session's guard, if it still runs."""
    groups: tuple[LivingGroup, ...] = ()
    commands: tuple[LossCommand, ...] = ()
    files: tuple[LeftFile, ...] = ()

    @property
    def ours(self) -> tuple[LivingGroup, ...]:
        """Groups that are proven to be the session's."""
        return tuple(each for each in self.groups if each.proven)


def state_of(inventory: Inventory, here: HostId, *, lives: bool) -> SessionState:
    """Return the state of the session.

    :param lives: whether its process runs on this host.
    """
    there = inventory.host
    if (there.name, there.machine_id) != (here.name, here.machine_id):
        return SessionState.OTHER_HOST
    if there.boot_id != here.boot_id:
        # Without a machine id, another host may have the same name.
        return SessionState.EARLIER_BOOT if here.machine_id else SessionState.OTHER_HOST
    if there.pid_namespace != here.pid_namespace:
        return SessionState.OTHER_NAMESPACE
    return SessionState.IN_USE if lives else SessionState.KILLED


def list_processes() -> tuple[SeenProcess, ...]:
    """Return all processes of this host that ``/proc`` shows."""
    return tuple(_processes())


def _processes() -> Iterator[SeenProcess]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The second field, in brackets, may hold anything; `state` is the third.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            yield SeenProcess(
                pid=int(folder.name),
                group=int(fields[2]),
                started=int(fields[19]),
                uid=folder.stat().st_uid,
                runs=fields[0] not in "ZX",
            )


def is_alive(process: ProcessId, seen: Iterable[SeenProcess]) -> bool:
    """Return whether *process* runs, and not a later one with the same id."""
    return any(
        each.pid == process.pid and each.started == process.started and each.runs for each in seen
    )


def living_group(
    group: StartedGroup,
    seen: Sequence[SeenProcess],
    *,
    uid: int,
    writes_for_us: Callable[[int], bool],
) -> LivingGroup | None:
    """Return the members of *group* that still run; None if none do.

    :param uid: this user's.
    :param writes_for_us: returns whether the output of a process goes to the session's folder.
    """
    leader = next((each for each in seen if each.pid == group.leader.pid), None)
    if leader is not None and leader.started != group.leader.started:
        return None  # another process has the id, so the group had ended
    members = [each for each in seen if each.group == group.leader.pid and each.runs]
    proven = leader is not None
    if leader is None:
        members = [m for m in members if m.uid == uid and m.started >= group.leader.started]
        proven = any(writes_for_us(member.pid) for member in members)
    if not members:
        return None
    return LivingGroup(group=group, pids=tuple(m.pid for m in members), proven=proven)


def living_groups(inventory: Inventory) -> tuple[LivingGroup, ...]:
    """Return the groups of *inventory* that still run."""
    seen = list_processes()

    def writes_for_us(pid: int) -> bool:
        return any(path.startswith(f"{inventory.run_folder}/") for path in _open_paths(pid, (1, 2)))

    found = (
        living_group(group, seen, uid=os.geteuid(), writes_for_us=writes_for_us)
        for group in inventory.groups
    )
    return tuple(each for each in found if each is not None)


def find_leftovers(inventory: Inventory, state: SessionState) -> Leftovers:
    """Return what is left of a session that was killed, or ended with an earlier boot."""
    groups: tuple[LivingGroup, ...] = ()
    guard = None
    if state is SessionState.KILLED:
        groups = living_groups(inventory)
        if inventory.guard and is_alive(inventory.guard, list_processes()):
            guard = inventory.guard
    pids = {pid for each in groups if each.proven for pid in each.pids}
    locks = [LeftFile(kind="lock", path=path) for path in inventory.locks]
    used = [*_sockets_of(pids), *_shared_memory_of(pids)]
    return Leftovers(
        guard=guard,
        groups=groups,
        commands=inventory.commands,
        files=tuple(
            file for file in [*locks, *_login_folders(inventory, pids), *used] if is_left(file)
        ),
    )


def is_left(file: LeftFile) -> bool:
    """Return whether *file* exists, belongs to this user, and is of its kind."""
    kinds = {"lock": stat.S_ISREG, "login folder": stat.S_ISDIR, "socket": stat.S_ISSOCK}
    try:
        status = os.lstat(file.path)
    except OSError:
        return False
    return status.st_uid == os.geteuid() and kinds.get(file.kind, stat.S_ISREG)(status.st_mode)


def used_paths() -> set[str]:
    """Return the paths of all bound sockets and open shared memory, of any process."""
    pids = {each.pid for each in list_processes()}
    shared = {path for pid in pids for path in _open_paths(pid) if _SHARED.fullmatch(path)}
    return shared | {str(each.laddr) for each in psutil.net_connections("unix")}


def _login_folders(inventory: Inventory, pids: Set[int]) -> Iterator[LeftFile]:
    """Yield the folders in which processes of *inventory* kept a registry login.

    :param pids: running processes of the session; another process with the id of one of its
        groups is not the session's.
    """
    for group in inventory.groups:
        pid, since = group.leader.pid, datetime.fromisoformat(group.since).timestamp()
        if pid not in pids and psutil.pid_exists(pid):
            continue
        for path in Path(inventory.temporary_folder).glob(f"{login_prefix(pid)}*"):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime >= since:
                    yield LeftFile(kind="login folder", path=str(path))


def _sockets_of(pids: Set[int]) -> Iterator[LeftFile]:
    """Yield the sockets in the file system that processes have bound, as vLLM's do."""
    here = {pid for pid in pids if _same_mounts(pid)}
    bound = psutil.net_connections("unix") if here else []
    paths = {str(each.laddr) for each in bound if each.pid in here}
    for path in sorted(paths):
        if path.startswith("/"):
            yield LeftFile(kind="socket", path=path)


def _shared_memory_of(pids: Set[int]) -> Iterator[LeftFile]:
    here = {pid for pid in pids if _same_mounts(pid)}
    for path in sorted({path for pid in here for path in _open_paths(pid)}):
        if _SHARED.fullmatch(path):
            yield LeftFile(kind="shared memory", path=path)


def _same_mounts(pid: int) -> bool:
    """Return whether a process has this process's mounts; in a container, paths may differ."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    return False


def _open_paths(pid: int, numbers: Sequence[int] | None = None) -> Iterator[str]:
    """Yield the paths that a process has open, through the descriptors *numbers* or any."""
    names: Sequence[str] = ()
    with contextlib.suppress(OSError):
        folder = f"/proc/{pid}/fd"
        names = os.listdir(folder) if numbers is None else [str(number) for number in numbers]
    for name in names:
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{pid}/fd/{name}")
