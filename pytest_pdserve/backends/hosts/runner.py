"""The runner: a script on nodes that runs one command of a step, and ends with its session.

One ``srun`` starts it once per node. It imports only the standard library and files next to it,
because it also runs inside containers. The step file names this node's command. Standard output
has events, one JSON object per line; standard input has ``stop NAME`` and ``watch NAME``. The
session is gone when standard input ends, or when the lease gets no more heartbeats.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING or __package__:
    from pytest_pdserve.backends.hosts.node_load import NodeSample
    from pytest_pdserve.backends.hosts.node_load import load_between
    from pytest_pdserve.backends.hosts.node_load import sample_node
else:
    sys.dont_write_bytecode = True  # the folder is the session's, and all its nodes see it
    from node_load import NodeSample
    from node_load import load_between
    from node_load import sample_node

POLL_S = 0.1
LEASE_POLL_S = 1.0
"""Time between two reads of the heartbeat."""
CPU_S = 0.25
"""Time between two samples of a command's CPU time."""
GONE_S = 10.0
"""Time for the kernel to end a group after SIGKILL."""
CLEANUP_S = 30.0
_OVER = "over"


class Lease:
    """The session's heartbeat, a file in the shared folder.

    Its age is measured with the node's own clock, as clocks may differ. A thread reads it, because
    a read may never return once the folder's file server is gone.
    """

    def __init__(self, path: Path, limit_s: float) -> None:
        self._path = path
        self._limit_s = limit_s
        self._seen = ""
        self._over = False
        self._at = time.monotonic()

    def watch(self) -> Lease:
        """Start to read the heartbeat regularly, until this process ends."""
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def update(self) -> None:
        """Read the heartbeat now."""
        with contextlib.suppress(OSError):
            beat = self._path.read_text()
            self._over = self._over or beat.startswith(_OVER)
            if beat != self._seen:
                self._seen, self._at = beat, time.monotonic()

    def holds(self) -> bool:
        """Return whether the session lives: not over, and with a new heartbeat within the limit."""
        return not self._over and time.monotonic() - self._at <= self._limit_s

    def _watch(self) -> None:
        while not self._over:
            self.update()
            time.sleep(LEASE_POLL_S)


class Runner:
    """One command of a step on this node."""

    def __init__(self, item: Mapping[str, Any], lease: Lease) -> None:
        self._item = item
        self._name: str = item["name"]
        self._lease = lease
        self._stop = threading.Event()
        self._restart_watch = threading.Event()
        self._reserved: list[contextlib.ExitStack] = []

    def run(self) -> None:
        """Run the command until it ends, or end it when the session stops it or is gone."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        threading.Thread(target=self._listen, daemon=True).start()
        if taken := self._reserve_ports():
            self._tell("taken", ports=taken)
            return
        try:
            child = self._start()
        except OSError as error:
            self._tell("failed", message=f"{error.strerror}: {error.filename or ''}".rstrip(": "))
            return
        try:
            self._tell("started", pid=child.pid)
            self._watch(child)
        finally:
            end_group(child, self._item["stop_s"])
            self._clean_up()
        self._tell("ended", code=child.returncode)

    def _listen(self) -> None:
        for line in sys.stdin:
            if line.strip() == f"stop {self._name}":
                self._stop.set()
            elif line.strip() == f"watch {self._name}":
                self._restart_watch.set()
        self._stop.set()

    def _reserve_ports(self) -> list[int]:
        """Reserve the command's ports; return those that are taken."""
        reserved = {port: reserve_port(port) for port in self._item["ports"]}
        self._reserved += [held for held in reserved.values() if held is not None]
        return [port for port, held in reserved.items() if held is None]

    def _start(self) -> subprocess.Popen[bytes]:
        argv = self._item["argv"]
        environment = {**os.environ, **self._item["env"]}
        executable = shutil.which(argv[0], path=environment.get("PATH"))
        if executable is None:
            raise FileNotFoundError(2, "no such program on this node's PATH", argv[0])
        log = Path(self._item["log"])
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                argv,
                executable=executable,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        self._write_mark(child.pid)
        before = sample_node() if self._item["watch_cpu"] else None
        watched = None if self._item["pid_argv"] else child.pid
        sampled = 0.0
        while child.poll() is None and not self._stop.wait(POLL_S) and self._lease.holds():
            if self._item["watch_cpu"] and time.monotonic() - sampled >= CPU_S:
                sampled = time.monotonic()
                watched = watched or _printed_pid(self._item["pid_argv"])
                if watched is not None and (used := _cpu_seconds(watched)) is not None:
                    self._tell("cpu", at=sampled, s=used)
            if self._restart_watch.is_set() and self._item["watch_cpu"]:
                self._restart_watch.clear()
                self._tell_load(before)
                before = sample_node()
        self._tell_load(before)

    def _tell_load(self, before: NodeSample | None) -> None:
        """Send the node's load since the sample *before*, if there is one."""
        roots = None if self._item["pid_argv"] else {os.getpid()}
        load = load_between(
            before, before and sample_node(), roots=roots, groups=self._own_groups()
        )
        if load is not None:
            self._tell("load", load=load)

    def _own_groups(self) -> set[int]:
        """Return the groups that any runner of this session has started on this machine."""
        groups = set()
        for mark in Path(self._item["marks"]).glob("*.*"):
            with contextlib.suppress(OSError, ValueError):
                group = int(mark.name.rpartition(".")[2])
                if mark.read_text() == started_at(group):
                    groups.add(group)
        return groups

    def _write_mark(self, group: int) -> None:
        """Write a file with which the node's holder ends the group if this runner is killed."""
        with contextlib.suppress(OSError):
            marks = Path(self._item["marks"])
            marks.mkdir(parents=True, exist_ok=True)
            (marks / f"{self._item['node']}.{group}").write_text(started_at(group) or "")

    def _clean_up(self) -> None:
        """Run the clean-up commands without output: the log's file server may be gone."""
        for argv in self._item["cleanup"]:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=CLEANUP_S,
                    check=False,
                )

    def _tell(self, event: str, **what: object) -> None:
        line = json.dumps({"event": event, "name": self._name, **what})
        with contextlib.suppress(OSError):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


def reserve_port(port: int) -> contextlib.ExitStack | None:
    """Reserve a TCP port of this machine until the result is closed; None if it is taken.

    The port is bound with ``SO_REUSEADDR``, without listening: connections that just ended do not
    matter, and a server that also sets the option can listen there. Two sessions could then bind
    it, so a socket in the abstract name space, whose name can be bound only once, serves as lock.
    """
    with contextlib.ExitStack() as reserved:
        lock = reserved.enter_context(socket.socket(socket.AF_UNIX))
        tcp = reserved.enter_context(socket.socket())
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            lock.bind(f"\0pdserve-port-{port}")
            tcp.bind(("0.0.0.0", port))  # noqa: S104 - taken on any address is taken
        except OSError:
            return None
        return reserved.pop_all()


def end_group(leader: subprocess.Popen[bytes], grace_s: float) -> None:
    """End a process group: SIGTERM, and SIGKILL after *grace_s*."""
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, GONE_S)):
        leader.poll()
        if not group_lives(leader.pid):
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, number)
        deadline = time.monotonic() + patience_s
        while group_lives(leader.pid) and time.monotonic() < deadline:
            leader.poll()
            time.sleep(POLL_S)
    leader.wait()


def group_lives(group: int) -> bool:
    """Return whether any member of *group* runs; zombies do not count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return any(stat[2] == str(group) and stat[0] not in "ZX" for stat in _stats())


def started_at(pid: int) -> str | None:
    """Return the clock ticks from boot to the start of *pid*, which differ if the id is reused."""
    stat = _stat(Path(f"/proc/{pid}/stat"))
    return stat[19] if stat else None


def _stats() -> Iterator[Sequence[str]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        if stat := _stat(path):
            yield stat


def _stat(path: Path) -> Sequence[str] | None:
    """Return the fields of ``/proc/PID/stat`` from the third on; the second may have spaces."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _cpu_seconds(pid: int) -> float | None:
    stat = _stat(Path(f"/proc/{pid}/stat"))
    return sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK") if stat else None


def _printed_pid(argv: Sequence[str]) -> int | None:
    """Run *argv* and return the process id that it prints; None if it prints none."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return int(done.stdout) if done.stdout.strip().isdecimal() and int(done.stdout) else None


def main() -> None:
    """Run this node's command of the step file, whose path is the only argument."""
    step = json.loads(Path(sys.argv[1]).read_text())
    node = os.environ["SLURMD_NODENAME"]
    item = {**step["shared"], **step["items"][node], "node": node}
    Runner(item, Lease(Path(item["lease"]), item["lease_s"]).watch()).run()


if __name__ == "__main__":
    main()
