"""Finds daemons in /proc by their whole command line, and ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

GRACE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """One program of the cluster."""

    name: str
    """``munged``, ``ctld`` or the node's name."""
    program: str
    """Name of the executable."""
    arguments: tuple[str, ...]
    """Arguments; they name the folder, so that no other process has the same."""
    pid_file: Path
    log: Path

    def owns(self, command: tuple[str, ...]) -> bool:
        """Return whether a process with this command line is the daemon."""
        return Path(command[0]).name == self.program and command[1:] == self.arguments


def wait_until(done: Callable[[], bool], seconds: float, pause_s: float = 0.05) -> bool:
    """Wait until *done* returns true; return False after *seconds*."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True


def read_commands() -> dict[int, tuple[str, ...]]:
    """Return the command lines of all processes by id, without zombies, which have none."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                raw = Path("/proc", entry, "cmdline").read_bytes()
                if raw:
                    text = raw.decode(errors="replace")
                    found[int(entry)] = tuple(text.removesuffix("\0").split("\0"))
    return found


def find_running(daemons: Iterable[Daemon]) -> dict[str, list[int]]:
    """Return process ids by daemon; first the one in its pid file, if it is that program."""
    commands = read_commands()
    found = {}
    for daemon in daemons:
        pids = [pid for pid, command in commands.items() if daemon.owns(command)]
        named = read_pid(daemon.pid_file)
        if pids:
            found[daemon.name] = sorted(pids, key=lambda pid: (pid != named, pid))
    return found


def read_pid(path: Path) -> int | None:
    """Return the number in a pid file, even if that process has ended; None without one."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def find_steps(folder: Path) -> list[int]:
    """Return the process ids of the slurmstepd that have a file in a folder open, e.g. a log."""
    found = []
    for pid, command in read_commands().items():
        if command[0].startswith("slurmstepd:") or Path(command[0]).name == "slurmstepd":
            with contextlib.suppress(OSError):
                targets = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
                if any(target.startswith(f"{folder}/") for target in targets):
                    found.append(pid)
    return found


def find_descendants(roots: Iterable[int]) -> list[int]:
    """Return the process ids of all descendants of *roots*, without these."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path("/proc", entry, "stat").read_text()
                parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    seen = set(roots)
    found: list[int] = []
    while more := [p for p, parent in parents.items() if parent in seen and p not in seen]:
        seen.update(more)
        found += more
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes; those that are gone are skipped."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end(find: Callable[[], list[int]], *, first: signal.Signals = signal.SIGTERM) -> list[int]:
    """End the processes that *find* returns: *first*, then SIGKILL; return those that still run."""
    for number in dict.fromkeys((first, signal.SIGKILL)):
        send(find(), number)
        if wait_until(lambda: not find(), GRACE_S):
            break
    return find()


def pids_of(daemons: Iterable[Daemon]) -> list[int]:
    """Return the process ids of all *daemons*."""
    return [pid for pids in find_running(daemons).values() for pid in pids]
