"""The guard: a process that ends what a session started when the session is gone.

Run as a script by every session. It reads ``+<item>`` and ``-<item>`` from standard input, where an
item is a process group or a command as a JSON list. When standard input ends, the session has
exited or was killed, also by SIGKILL. Then every group still listed gets SIGTERM, and SIGKILL after
the grace time given as the first argument (seconds). Commands still listed are run twice, the
second time a few seconds later: what they end may just have been starting. The second argument is
the session's inventory, a file that is removed if everything succeeded; if not, ``pdserve clean``
needs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

_AGAIN_S = 5.0
_COMMAND_S = 20.0


def end_groups(groups: set[int], grace_s: float) -> bool:
    """End every group of *groups*: SIGTERM, and SIGKILL after *grace_s*.

    :returns: whether no group needed SIGKILL, so that all of them could clean up.
    """
    _signal_all(groups, signal.SIGTERM)
    wait_for(groups, grace_s)
    lingering = bool(groups & running_groups())
    _signal_all(groups, signal.SIGKILL)
    return not lingering


def wait_for(groups: set[int], seconds: float) -> None:
    """Wait for groups to end by themselves: srun kills its tasks at once on SIGTERM."""
    deadline = time.monotonic() + seconds
    while groups and time.monotonic() < deadline:
        time.sleep(0.1)
        _signal_all(groups, 0)


def running_groups() -> set[int]:
    """Return the process groups of this machine that have a member that is not a zombie."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The second field, in brackets, may hold anything; it is followed by the state.
            state, _, group = path.read_bytes().rpartition(b")")[2].split()[:3]
            if state not in (b"Z", b"X"):
                found.add(int(group))
    return found


def run_commands(commands: Iterable[str]) -> bool:
    """Run every command, a JSON list of arguments, even if others fail.

    :returns: whether all succeeded.
    """
    failed = False
    for command in commands:
        try:
            subprocess.run(json.loads(command), timeout=_COMMAND_S, check=True)
        except (OSError, subprocess.SubprocessError):
            failed = True
    return not failed


def _signal_all(groups: set[int], number: int) -> None:
    for group in sorted(groups):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            groups.discard(group)
        except PermissionError:
            continue


def main() -> None:
    """Read items from standard input until it ends, then end or run them."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    items: set[str] = set()
    with contextlib.suppress(OSError):
        for line in sys.stdin:
            item = line[1:].strip()
            if line.startswith("+"):
                items.add(item)
            else:
                items.discard(item)
    groups = {int(item) for item in items if item.isdecimal()}
    commands = [item for item in items if not item.isdecimal()]
    succeeded = run_commands(commands)
    if commands:
        wait_for(groups, float(sys.argv[1]))
    ended = end_groups(groups, float(sys.argv[1]))
    if commands:
        time.sleep(_AGAIN_S)
        succeeded = run_commands(commands)
    if succeeded and ended:
        with contextlib.suppress(OSError):
            os.unlink(sys.argv[2])


if __name__ == "__main__":
    main()
