"""``pdserve clean``: list and remove what killed sessions left on this host."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.values.exit_codes import ExitCode

if TYPE_CHECKING:
    from pytest_pdserve.backends.hosts.inventory import HostId
    from pytest_pdserve.backends.hosts.inventory import Inventory
    from pytest_pdserve.backends.hosts.leftovers import Leftovers
    from pytest_pdserve.backends.hosts.leftovers import SessionState

NAME = "clean"
TEXT = "List what killed sessions left on this host, and remove it"
DESCRIPTION = (
    f"{TEXT}: processes, containers, Slurm jobs, sockets and locks that a session recorded as "
    "its own. Running sessions, and those of other hosts, are left alone. Exit codes: 0 if "
    "nothing is left, 7 if something could not be removed"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--dry-run", action="store_true", help="Only list; remove nothing")


def run(options: argparse.Namespace) -> int:
    """Remove leftovers, and print them.

    :returns: the exit code.
    """
    from pytest_pdserve.backends.hosts.inventory import inventory_folder
    from pytest_pdserve.backends.hosts.inventory import this_host

    folder, here = inventory_folder(), this_host()
    paths = sorted(folder.glob("*.json"))
    if not paths:
        print(f"nothing is left of any session ({folder})")
    troubles: list[str] = []
    for path in paths:
        for trouble in _clean(path, here, dry_run=options.dry_run):
            print(f"pdserve: {trouble}", file=sys.stderr, flush=True)
            troubles.append(trouble)
    return ExitCode.ERROR if troubles else ExitCode.OK


def _clean(path: Path, here: HostId, *, dry_run: bool) -> Iterator[str]:
    """List and remove what is left of one session.

    :returns: a sentence for each thing that could not be removed.
    """
    from pytest_pdserve.backends.hosts.inventory import MalformedInventoryError
    from pytest_pdserve.backends.hosts.leftovers import SessionState
    from pytest_pdserve.backends.hosts.leftovers import find_leftovers

    try:
        inventory, state = _read(path, here)
    except FileNotFoundError:
        return  # its session ended normally just now, or another `pdserve clean` removed it
    except (MalformedInventoryError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        yield f"{path} cannot be used: {why}; it is kept: remove it once none of its processes runs"
        return
    print(_headline(path, inventory, state), flush=True)
    if state not in (SessionState.KILLED, SessionState.EARLIER_BOOT):
        return
    if dry_run:
        leftovers = find_leftovers(inventory, state)
        print("\n".join([*_table(inventory, leftovers), f"  would {_plan(inventory, leftovers)}"]))
        return
    yield from _remove(path, inventory, state)


def _remove(path: Path, inventory: Inventory, state: SessionState) -> Iterator[str]:
    from pytest_pdserve.backends.hosts.leftovers import find_leftovers
    from pytest_pdserve.backends.hosts.removal import alone_with
    from pytest_pdserve.backends.hosts.removal import remove_inventory
    from pytest_pdserve.backends.hosts.removal import remove_leftovers

    with alone_with(path) as there:
        if not there:
            print("  removed by another pdserve clean")
            return
        left = find_leftovers(inventory, state)
        print("\n".join(_table(inventory, left)), flush=True)
        troubles = remove_leftovers(inventory, left)
        if troubles:
            yield from troubles
            return
        remove_inventory(path)
        print("  removed", flush=True)


def _read(path: Path, here: HostId) -> tuple[Inventory, SessionState]:
    """Read an inventory, and determine the state of its session.

    :raises MalformedInventoryError: if it cannot be acted on.
    :raises OSError: if it cannot be read.
    """
    from pytest_pdserve.backends.hosts.inventory import MalformedInventoryError
    from pytest_pdserve.backends.hosts.inventory import parse_inventory
    from pytest_pdserve.backends.hosts.leftovers import is_alive
    from pytest_pdserve.backends.hosts.leftovers import list_processes
    from pytest_pdserve.backends.hosts.leftovers import state_of

    with path.open("rb") as file:
        if (owner := os.fstat(file.fileno()).st_uid) != os.geteuid():
            raise MalformedInventoryError(f"it belongs to user {owner}")
        inventory = parse_inventory(file.read())
    lives = is_alive(inventory.session, list_processes())
    return inventory, state_of(inventory, here, lives=lives)


def _headline(path: Path, inventory: Inventory, state: SessionState) -> str:
    from pytest_pdserve.backends.hosts.leftovers import SessionState

    pid, host = inventory.session.pid, inventory.host.name
    there = f"left alone: run pdserve clean there, or remove {path} if the host no longer exists"
    texts = {
        SessionState.IN_USE: f"in use by pid {pid}, left alone",
        SessionState.KILLED: f"killed, was pid {pid}",
        SessionState.EARLIER_BOOT: f"ended with an earlier boot of {host}, was pid {pid}",
        SessionState.OTHER_HOST: f"on host {host}, {there}",
        SessionState.OTHER_NAMESPACE: f"in another container of {host}, {there}",
    }
    return f"session since {inventory.since}, {inventory.run_folder}: {texts[state]}"


def _table(inventory: Inventory, left: Leftovers) -> list[str]:
    """Return lines with the leftovers of a session."""
    from pytest_pdserve.report.table import text_table

    rows = []
    if left.guard is not None:
        rows.append(("process", "guard", str(left.guard.pid), inventory.since, ""))
    for each in left.groups:
        group, pids = each.group, ", ".join(map(str, each.pids))
        what = f"{group.program}, pids {pids}" if each.proven else f"not proven ours, pids {pids}"
        rows.append(("process group", group.name, str(group.leader.pid), group.since, what))
    for command in left.commands:
        what = shlex.join(command.argv)
        rows.append((command.kind, command.name, command.id, command.since, what))
    rows += [(file.kind, "", "", "", file.path) for file in left.files]
    if not rows:
        return ["  nothing of it is left"]
    table = text_table(("kind", "name", "id", "since", "what"), rows, "lllll")
    return [f" {line}" for line in table]


def _plan(inventory: Inventory, left: Leftovers) -> str:
    """Return what would be done, as one line."""
    grace = f"(SIGTERM, SIGKILL after {inventory.stop_s:g} s)"
    files = len(left.files)
    parts = [
        "end the guard" if left.guard is not None else "",
        f"end {_counted(len(left.ours), 'process group')} {grace}" if left.ours else "",
        f"run {_counted(len(left.commands), 'command')}" if left.commands else "",
        f"remove {_counted(files, 'file or folder', 'files and folders')}" if files else "",
        "forget the session",
    ]
    return f"{'; '.join(filter(None, parts))}; --dry-run touches nothing"


def _counted(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"
