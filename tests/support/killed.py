"""Sessions that were killed: a small real one, and what one would have left, without its death."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil

from pytest_pdserve.backends.hosts.inventory import Inventory
from pytest_pdserve.backends.hosts.inventory import InventoryFile
from pytest_pdserve.backends.hosts.inventory import inventory_folder
from pytest_pdserve.backends.hosts.inventory import parse_inventory
from tests.support.house import House

RUN, LOG = "20261127T120000-stub", "decode-0.log"
SESSION = """
import json, os, sys
from pathlib import Path
from pytest_pdserve.backends.hosts.groups import Groups
run, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
groups = Groups(0.2, run, print)
for argv in plan["commands"]:
    groups.on_loss(argv, "container", "decode[0]")
with open(run / "decode-0.log", "wb") as log:
    argv = [sys.executable, "-I", "-S", "-c", plan["server"]]
    groups.start("decode[0]", argv, env=os.environ, output=log)
(run / "ready").touch()
sys.stdin.read()
for argv in plan["commands"]:
    groups.forget(argv)
groups.close()
"""
OBEDIENT = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN)\n" + OBEDIENT
CHILD = """
import os, subprocess, sys, time
child = {child!r}
subprocess.Popen([sys.executable, "-I", "-S", "-c", child], stdout={output}, stderr={output})
{then}
"""


def parent(child: str, *, then: str = OBEDIENT, output: str = "None") -> str:
    """A server that starts *child* and then goes on with *then*."""
    return CHILD.format(child=child, then=then, output=output)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A session's inventory on disk."""

    run: Path
    path: Path

    def read(self) -> Inventory:
        return parse_inventory(self.path.read_bytes())

    @property
    def group(self) -> int:
        """The only process group."""
        (group,) = self.read().groups
        return group.leader.pid

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Have it say something else."""
        data = json.loads(self.path.read_bytes())
        change(data)
        self.path.write_bytes(msgspec.json.encode(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A session that this test has started, and may kill."""

    process: subprocess.Popen[bytes]
    inventory: Written

    @property
    def guard(self) -> int:
        """Process id of the guard."""
        guard = self.inventory.read().guard
        assert guard is not None
        return guard.pid

    def kill(self) -> None:
        """Kill the guard, then the session."""
        guard = self.guard
        os.kill(guard, signal.SIGKILL)
        self.kill_session()
        wait_ended(guard)

    def kill_session(self) -> None:
        """Kill the session alone."""
        self.process.kill()
        self.process.communicate(timeout=10)

    def end_in_order(self) -> None:
        """Let the session end."""
        self.process.communicate(timeout=20)
        assert self.process.returncode == 0


def live_session(process: subprocess.Popen[bytes]) -> Live:
    """The only session of this test's state folder, which runs in *process*."""
    (path,) = inventory_folder().glob("*.json")
    return Live(process=process, inventory=Written(run=Path(), path=path))


def start_session(
    house: House, server: str = STUBBORN, *, commands: Sequence[Sequence[str]] = ()
) -> Live:
    """Start a session of one server in *house*, and wait until the server is up."""
    run = house.runs / RUN
    run.mkdir(parents=True)
    plan = {"server": server, "commands": commands}
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION, str(run), json.dumps(plan)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    threading.Thread(target=process.wait, daemon=True).start()  # reaped whoever ends it
    wait_until(lambda: (run / "ready").exists() and is_up(run / LOG), 30)
    return live_session(process)


@contextlib.contextmanager
def left_session(
    house: House,
    server: str = OBEDIENT,
    *,
    commands: Sequence[Sequence[str]] = (),
    locks: Sequence[Path] = (),
) -> Iterator[Written]:
    """What a session in *house* would have left that was killed together with its guard.

    Its server is this process's child, and ended with the block.
    """
    run = house.runs / RUN
    run.mkdir(parents=True)
    with (run / LOG).open("wb") as log:
        argv = [sys.executable, "-I", "-S", "-c", server]
        process = subprocess.Popen(argv, stdout=log, stderr=log, process_group=0)
    try:
        wait_until(lambda: is_up(run / LOG), 30)
        file = InventoryFile(run, 0.2, print)
        file.add_group("decode[0]", process.pid, "vllm")
        threading.Thread(target=process.wait, daemon=True).start()
        for command in commands:
            file.add_command(command, "container", "decode[0]")
        with contextlib.ExitStack() as held:
            for lock in locks:
                held.enter_context(file.holding(lock))
            content = file.path.read_bytes()
        file.path.write_bytes(content)
        written = Written(run=run, path=file.path)
        written.change(lambda data: data["session"].update(started=0))
        yield written
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def is_up(log: Path) -> bool:
    """Whether the server that writes to *log* has said so."""
    return log.exists() and "up\n" in log.read_text()


def wait_until(done: Callable[[], object], seconds: float) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_ended(pid: int) -> None:
    """Wait until a process has ended, whether its parent has taken notice or not."""
    with contextlib.suppress(psutil.Error):
        wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 20)


def inventories() -> list[Path]:
    """Every file in the folder of inventories, half-written ones included."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(inventory_folder().iterdir())
    return []
