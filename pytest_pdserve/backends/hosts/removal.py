"""Removes what a killed session left, and only what :mod:`.leftovers` has proven to be its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

from pytest_pdserve.backends.hosts.inventory import Inventory
from pytest_pdserve.backends.hosts.inventory import LossCommand
from pytest_pdserve.backends.hosts.leftovers import LeftFile
from pytest_pdserve.backends.hosts.leftovers import Leftovers
from pytest_pdserve.backends.hosts.leftovers import LivingGroup
from pytest_pdserve.backends.hosts.leftovers import is_left
from pytest_pdserve.backends.hosts.leftovers import living_groups
from pytest_pdserve.backends.hosts.leftovers import used_paths
from pytest_pdserve.backends.hosts.runner import GONE_S

_POLL_S = 0.1
_COMMAND_S = 30.0


def remove_leftovers(inventory: Inventory, left: Leftovers) -> list[str]:
    """Remove what is left of a killed session.

    Commands run first, as in the guard: the end of a job ends its steps. They run again after the
    processes ended, since one of these may have started a container meanwhile.

    :returns: a sentence for each thing that could not be removed.
    """
    if left.guard is not None:
        # It would do the same at the same time. It ignores SIGTERM.
        with contextlib.suppress(ProcessLookupError):
            os.kill(left.guard.pid, signal.SIGKILL)
    troubles = [trouble for each in left.commands if (trouble := _run(each))]
    remaining = _end_groups(inventory) if left.groups else ()
    if left.ours:
        troubles = [trouble for each in left.commands if (trouble := _run(each))]
    troubles += [_group_trouble(group, inventory) for group in remaining]
    used = used_paths() if left.files else set()
    for file in left.files:
        if file.path not in used and is_left(file):
            troubles += _remove_file(file)
    return troubles


@contextlib.contextmanager
def alone_with(path: Path) -> Iterator[bool]:
    """Lock the inventory at *path* against other runs of ``pdserve clean``.

    :returns: whether it still exists.
    """
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        yield False
        return
    with file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield os.fstat(file.fileno()).st_nlink > 0 and path.exists()


def remove_inventory(path: Path) -> None:
    """Remove an inventory, and partial files of a session that was killed while writing it."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        partial.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _end_groups(inventory: Inventory) -> Sequence[LivingGroup]:
    """End the proven groups together: SIGTERM, then SIGKILL.

    :returns: the groups that still run, proven or not.
    """
    for number, patience_s in ((signal.SIGTERM, inventory.stop_s), (signal.SIGKILL, GONE_S)):
        deadline = time.monotonic() + patience_s
        sent: set[int] = set()
        # Proven again before each signal, so that none goes to a reused id.
        while ours := [each.group.leader.pid for each in living_groups(inventory) if each.proven]:
            for group in set(ours) - sent:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, number)
            sent.update(ours)
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
    return living_groups(inventory)


def _group_trouble(living: LivingGroup, inventory: Inventory) -> str:
    number = living.group.leader.pid
    pids = ", ".join(map(str, living.pids))
    what = f"process group {number} ({living.group.name}; pids {pids})"
    if living.proven:
        return f"{what} still runs {GONE_S:g} s after SIGKILL; check with ps what it waits for"
    return (
        f"{what} is left: its leader is gone and no process in it writes to "
        f"{inventory.run_folder}, so it may not belong to this session; if it does, end it with "
        f"kill -KILL -- -{number}"
    )


def _run(command: LossCommand) -> str:
    """Run a command that removes a container or cancels a job.

    :returns: the error, as a sentence; empty if it succeeded, or there was nothing to remove.
    """
    words = shlex.join(command.argv)
    what = f"{command.kind} {command.name} may be left"
    if shutil.which(command.argv[0]) is None:
        return f"{what}: {command.argv[0]} is not on PATH; run `{words}` where it is"
    try:
        done = subprocess.run(
            command.argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{what}: `{words}` did not end within {_COMMAND_S:g} s; run it again"
    except OSError as error:
        return f"{what}: `{words}` cannot be run: {error.strerror}; run it by hand"
    # Engines before Docker 20.10 and podman 4 fail if there is nothing to remove.
    if done.returncode == 0 or "no such container" in done.stderr.lower():
        return ""
    last = (done.stderr.strip().splitlines() or ["no output"])[-1].strip()
    return f"{what}: `{words}` exited with code {done.returncode}: {last}; run it again"


def _remove_file(file: LeftFile) -> list[str]:
    try:
        if file.kind == "login folder":
            shutil.rmtree(file.path)
        elif file.kind == "lock":
            _remove_lock(file.path)
        else:
            os.unlink(file.path)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{file.kind} {file.path} is left: {error.strerror}; remove it by hand"]
    return []


def _remove_lock(path: str) -> None:
    """Remove a lock file, unless another session has locked it."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
    finally:
        os.close(descriptor)
