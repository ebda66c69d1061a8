"""The leash: ends the process groups of a session when the session itself is gone.

Run as a script beside every local session. It reads ``+<group>`` and ``-<group>`` from standard
input; when that ends, its session has exited or was killed (SIGKILL included), and every group that
is still listed is ended: SIGTERM, and SIGKILL after the grace given as the only argument (seconds).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time


def end_groups(groups: set[int], grace_s: float) -> None:
    """End every group of *groups*, those that linger by SIGKILL."""
    _signal_all(groups, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while groups and time.monotonic() < deadline:
        time.sleep(0.1)
        _signal_all(groups, 0)
    _signal_all(groups, signal.SIGKILL)


def _signal_all(groups: set[int], number: int) -> None:
    for group in sorted(groups):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            groups.discard(group)
        except PermissionError:
            continue


def main() -> None:
    """Hold the groups that standard input names until it ends."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    with contextlib.suppress(OSError):
        for line in sys.stdin:
            group = int(line[1:])
            if line.startswith("+"):
                groups.add(group)
            else:
                groups.discard(group)
    end_groups(groups, float(sys.argv[1]))


if __name__ == "__main__":
    main()
