"""The inventory: a file with all that a running session has started on this host.

If a session and its guard are both killed, ``pdserve clean`` reads from it what they left. The
folder may be on a home that several hosts share, so a file names its host and boot. It contains no
environment variables and no secrets.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Annotated
from typing import Literal

import msgspec

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.hosts.runner import started_at
from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.results.files import write_bytes
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.sessions import utc_text
from pytest_pdserve.values.text import Line
from pytest_pdserve.values.text import Utc
from pytest_pdserve.values.text import Word

CommandKind = Literal["container", "job"]
_VERSION = 1
_PATIENCE_S = 5.0
"""Timeout of one write: a session must end even if the file server of its home is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostId:
    """A host, its boot, and its process id namespace."""

    name: Word
    """Host name."""
    machine_id: Line
    """``/etc/machine-id``; empty if it does not exist."""
    boot_id: Line
    """The kernel's, new at each boot."""
    pid_namespace: Line
    """The kernel's name of it; a container may have its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """A process, distinguished from a later one with the same id."""

    pid: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    started: Annotated[int, msgspec.Meta(ge=0)]
    """Clock ticks from boot to its start; unlike a time of day, these never change."""

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Return the identity of a process of this host; an invalid one without ``/proc``."""
        return cls(pid=pid, started=int(started_at(pid) or -1))


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedGroup:
    """A process group that the session has started."""

    name: Word
    """E.g. ``decode[1]``."""
    leader: ProcessId
    """First process of the group, whose id is the group's."""
    program: Line
    """First argument of the leader."""
    since: Utc
    """Start time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCommand:
    """A command that removes a container or cancels a job if the session is lost."""

    kind: CommandKind
    name: Word
    """The container's server, e.g. ``decode[1]``; or the job's name."""
    id: Line
    """ID of the job; empty if unknown, and for containers."""
    argv: Annotated[tuple[Word, ...], msgspec.Meta(min_length=1)]
    since: Utc
    """Time at which it was first registered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Processes, files and jobs that a session has started and not ended yet."""

    schema_version: int
    """Version of this file's format."""
    host: HostId
    session: ProcessId
    """Process of the session: pytest, or ``pdserve serve``."""
    guard: ProcessId | None
    """Process that ends the groups when the session is gone; None before it starts."""
    since: Utc
    """Time at which the session acquired its nodes."""
    run_folder: Word
    """Folder of the session's records and logs."""
    temporary_folder: Word
    """Folder in which its processes create temporary folders."""
    stop_s: Annotated[float, msgspec.Meta(ge=0, le=3600)]
    """Time between SIGTERM and SIGKILL, seconds."""
    groups: tuple[StartedGroup, ...] = ()
    """In the order of their start."""
    commands: tuple[LossCommand, ...] = ()
    """In the order of their registration."""
    locks: tuple[Word, ...] = ()
    """Lock files in use."""

    @property
    def empty(self) -> bool:
        """True if there is nothing left to end or remove."""
        return not (self.groups or self.commands or self.locks)


class MalformedInventoryError(Exception):
    """Raised when a file is not a valid inventory; the message is a clause."""


def inventory_folder() -> Path:
    """Return the folder of the inventories of all hosts that share this user's home."""
    return state_folder() / "sessions"


def this_host() -> HostId:
    """Return the host that this process runs on."""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return HostId(
        name=socket.gethostname() or "unknown",
        machine_id=_line(Path("/etc/machine-id")),
        boot_id=_line(Path("/proc/sys/kernel/random/boot_id")),
        pid_namespace=namespace,
    )


def _line(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""


def parse_inventory(content: bytes) -> Inventory:
    """Parse an inventory.

    :raises MalformedInventoryError: if it is malformed, or of another version.
    """
    try:
        found = msgspec.json.decode(content, type=Inventory)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInventoryError(str(error)) from error
    if found.schema_version != _VERSION:
        raise MalformedInventoryError(
            f"schema_version = {found.schema_version}, this pytest-pdserve reads {_VERSION}"
        )
    started = [group.leader for group in found.groups] + ([found.guard] if found.guard else [])
    if any(process.pid == 1 for process in started):
        raise MalformedInventoryError("no session starts process 1")
    return found


def now_text() -> str:
    """Return the current time as inventories store it."""
    return utc_text(datetime.now(UTC))


class InventoryFile:
    """The inventory of this session, rewritten at each change.

    If the file cannot be written, that is reported once, and the session continues.
    """

    def __init__(self, run_folder: Path, stop_s: float, progress: Progress) -> None:
        host = this_host()
        name = re.sub(r"[^\w.-]", "_", host.name)
        token = token_hex(2)  # a process may hold several allocations
        self.path = inventory_folder() / f"{name}-{host.boot_id}-{os.getpid()}-{token}.json"
        self._now = Inventory(
            schema_version=_VERSION,
            host=host,
            session=ProcessId.of(os.getpid()),
            guard=None,
            since=now_text(),
            run_folder=str(run_folder.absolute().resolve()),
            temporary_folder=str(Path(tempfile.gettempdir()).absolute()),
            stop_s=stop_s,
        )
        self._progress = progress
        self._lock = threading.Lock()
        self._warned = self._stuck = self._closed = False

    def guarded_by(self, pid: int) -> None:
        """Set the process id of the guard."""
        guard = ProcessId.of(pid)
        self._change(lambda now: replace(now, guard=guard))

    def add_group(self, name: str, pid: int, program: str) -> None:
        """Add a process group that has just started."""
        group = StartedGroup(name=name, leader=ProcessId.of(pid), program=program, since=now_text())
        self._change(lambda now: replace(now, groups=(*now.groups, group)))

    def remove_groups(self, pids: Iterable[int]) -> None:
        """Remove groups that have ended."""
        ended = set(pids)
        self._change(
            lambda now: replace(
                now, groups=tuple(each for each in now.groups if each.leader.pid not in ended)
            )
        )

    def add_command(self, argv: Sequence[str], kind: CommandKind, name: str, id: str = "") -> None:
        """Add a command that is to run if the session is lost, or set the *id* of its job."""
        words, since = tuple(argv), now_text()

        def add(now: Inventory) -> Inventory:
            by_argv = {command.argv: command for command in now.commands}
            first = by_argv[words].since if words in by_argv else since
            by_argv[words] = LossCommand(kind=kind, name=name, id=id, argv=words, since=first)
            return replace(now, commands=tuple(by_argv.values()))

        self._change(add)

    def remove_command(self, argv: Sequence[str]) -> None:
        """Remove a command that is no longer needed."""
        words = tuple(argv)
        self._change(
            lambda now: replace(
                now, commands=tuple(each for each in now.commands if each.argv != words)
            )
        )

    @contextlib.contextmanager
    def holding(self, lock: Path) -> Iterator[None]:
        """List the lock file *lock* in the inventory during the block."""
        path = str(lock)
        self._change(lambda now: replace(now, locks=(*now.locks, path)))
        try:
            yield
        finally:
            self._change(
                lambda now: replace(now, locks=tuple(each for each in now.locks if each != path))
            )

    def close(self) -> None:
        """Remove the file, unless something is left for the guard or ``pdserve clean``."""
        self._closed = True
        self._change(lambda now: now)

    def _change(self, change: Callable[[Inventory], Inventory]) -> None:
        with self._lock:
            self._now = change(self._now)
            if self._stuck:
                return
            failures: list[str] = []
            writer = threading.Thread(target=self._save, args=[failures], daemon=True)
            try:
                writer.start()
            except RuntimeError as error:
                failures.append(f"{self.path} cannot be written: {error}")
            else:
                writer.join(_PATIENCE_S)
                self._stuck = writer.is_alive()
            if self._stuck:
                failures.append(f"{self.path} takes longer than {_PATIENCE_S:g} s to write")
        if failures and not self._warned:
            self._warned = True
            self._progress(
                "the inventory of this session cannot be saved, so `pdserve clean` will not find "
                f"its processes: {failures[0]}"
            )

    def _save(self, failures: list[str]) -> None:
        try:
            if self._closed and self._now.empty:
                self.path.unlink(missing_ok=True)
            elif not self._closed:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_bytes(self.path, msgspec.json.encode(self._now))
        except StoreError as error:
            failures.append(str(error))
        except OSError as error:
            failures.append(f"{self.path} cannot be written: {error.strerror}")
        except UnicodeError:
            failures.append(f"{self.path} cannot be written: a name in it is not UTF-8")
