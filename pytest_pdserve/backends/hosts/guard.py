"""The guard: ends what a session started when the session itself is gone.

Run as a script beside every session. It reads ``+<what>`` and ``-<what>`` from standard input,
where *what* is a process group or a command as a JSON list; when that ends, its session has exited
or was killed (SIGKILL included). Every group still listed is ended: SIGTERM, and SIGKILL after the
grace given as the only argument (seconds). Commands still listed are run, and once more later: what
they should end may have been on its way.
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

_AGAIN_S = 5.0
_COMMAND_S = 20.0


def end_groups(groups: set[int], grace_s: float) -> None:
    """End every group of *groups*, those that linger by SIGKILL."""
    _signal_all(groups, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while groups and time.monotonic() < deadline:
        time.sleep(0.1)
        _signal_all(groups, 0)
    _signal_all(groups, signal.SIGKILL)


def wait_for(groups: set[int], seconds: float) -> None:
    """Let groups end by themselves: srun kills its tasks at once when it is told to end."""
    deadline = time.monotonic() + seconds
    while groups and time.monotonic() < deadline:
        time.sleep(0.1)
        _signal_all(groups, 0)


def run_commands(commands: Iterable[str]) -> None:
    """Run every command, a JSON list of arguments; none may fail the others."""
    for command in commands:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(json.loads(command), timeout=_COMMAND_S, check=False)


def _signal_all(groups: set[int], number: int) -> None:
    for group in sorted(groups):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            groups.discard(group)
        except PermissionError:
            continue


def main() -> None:
    """Hold what standard input names until it ends."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    held: set[str] = set()
    with contextlib.suppress(OSError):
        for line in sys.stdin:
            what = line[1:].strip()
            if line.startswith("+"):
                held.add(what)
            else:
                held.discard(what)
    groups = {int(what) for what in held if what.isdecimal()}
    commands = [what for what in held if not what.isdecimal()]
    run_commands(commands)
    if commands:
        wait_for(groups, float(sys.argv[1]))
    end_groups(groups, float(sys.argv[1]))
    if commands:
        time.sleep(_AGAIN_S)
        run_commands(commands)


if __name__ == "__main__":
    main()
