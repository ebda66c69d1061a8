"""Five topologies measured the article's way: a launcher per topology, a client command per cell.

The commands are those that ``pdserve plan`` prints; how they are run is the article's: start every
server as a plain process, ask ``/health`` every 10 s until all answer, start the router, run
``vllm bench serve`` once for each cell, end everything, go on with the next topology.

The 10 s are of the author's public launcher (pysheeet, ``src/llm/vllm/run.sbatch``), which asks
each server in turn, so that it goes on at the first poll at which all answer. Here servers are
asked every second, and what is left until the poll is slept, so that it is known. Left out, in
favour of the article: its fixed ``sleep 3`` after starting containers and its second question
(``/v1/models``). What it does about the router is not known: it is asked every second.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL
from subprocess import Popen
from subprocess import TimeoutExpired

from pytest_pdserve.backends.hosts.groups import Groups
from pytest_pdserve.backends.local.allocation import find_program
from pytest_pdserve.backends.local.allocation import slots
from pytest_pdserve.backends.planned import RUN_FOLDER
from pytest_pdserve.backends.planned import SEED
from pytest_pdserve.backends.planned import plan_topology
from pytest_pdserve.plan.command import Command
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

POLL_S = 10.0
"""Between two questions of the article's launcher."""
LOOK_S = 1.0
CELL_S = 300.0
"""The longest that one command of the client may run."""
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
KEYS = ("VLLM_API_KEY", "OPENAI_API_KEY")
"""The article's servers ask for no key."""


class WayError(Exception):
    """A server or a client did not do what it should; the message has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Where the time of one topology went, in seconds."""

    topology: str
    total_s: float
    start_s: float
    """Until all servers and the router answer, the wait for the next poll included."""
    poll_s: float
    """Of these, between the last server's answer and the poll that saw it."""
    client_s: float
    """The client's commands beside their loads."""
    load_s: float
    """The loads, as their result files say."""
    stop_s: float
    cells: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Starts one topology after the other, and measures its cells."""

    system: System
    cells: int
    """Cells of the sweep that are measured, from the first."""
    folder: Path
    """Where logs and results go."""
    groups: Groups
    """Ends every process, also if this one is killed."""
    deadline: float
    """Of ``time.monotonic()``, for all topologies."""
    poll_s: float = POLL_S

    def measure(self, topology: Topology) -> Spent:
        """Start *topology*, run its cells, end it.

        :raises WayError: if a server or a client fails, or the time is over.
        """
        began = time.monotonic()
        bench = replace(self.system.bench, client="vllm-command")
        planned = plan_topology(replace(self.system, bench=bench), topology, starting=True)
        launch = planned.launch
        folder = self.folder / topology.id
        folder.mkdir(parents=True)
        urls = {launch.url_of(instance) for instance in launch.placement.endpoints}
        running: dict[str, Popen[bytes]] = {}
        try:
            for command in launch.instances:
                running[command.log_name] = self._start(command, folder)
            late = self._wait(urls, running, folder, self.poll_s)
            if launch.router is not None:
                running[launch.router.log_name] = self._start(launch.router, folder)
                self._wait({launch.url}, running, folder, LOOK_S)
            ready = time.monotonic()
            loads = [self._run(command, folder) for command in planned.client[: self.cells]]
            measured = time.monotonic()
        finally:
            self.groups.stop([process.pid for process in running.values()])
        ended = time.monotonic()
        return Spent(
            topology=topology.id,
            total_s=ended - began,
            start_s=ready - began,
            poll_s=late,
            client_s=measured - ready - sum(loads),
            load_s=sum(loads),
            stop_s=ended - measured,
            cells=len(loads),
        )

    def _start(self, command: Command, folder: Path) -> Popen[bytes]:
        """Start *command*; a server keeps to the cores of its slot, as in our sessions."""
        words = {RUN_FOLDER: str(self.folder), SEED: str(time.time_ns() % 2**31)}
        argv = [_filled(word, words) for word in command.argv]
        inherited = {key: value for key, value in os.environ.items() if key not in KEYS}
        with (folder / command.log_name).open("wb") as output:
            process = self.groups.start(
                command.name,
                argv,
                executable=find_program(argv[0]),
                env={**inherited, **dict(command.env)},
                output=output,
            )
        cpus = {host.name: host.cpus for host in slots(self.system, os.cpu_count() or 1)}
        if "serve" in argv[:2] and cpus[command.node]:
            os.sched_setaffinity(process.pid, cpus[command.node])
        return process

    def _wait(
        self, urls: Iterable[str], running: Mapping[str, Popen[bytes]], folder: Path, poll_s: float
    ) -> float:
        """Wait until the first poll at which all *urls* answer; return how late that poll was."""
        limit_s = self.system.limits.ready_s
        began, waiting = time.monotonic(), set(urls)
        while waiting := {url for url in waiting if not _answers(url)}:
            for log, process in running.items():
                if (code := process.poll()) is not None:
                    raise WayError(f"{log} ended with code {code}: {_end(folder / log)}")
            now = time.monotonic()
            if now > min(began + limit_s, self.deadline):
                over = "limits.ready_s" if now <= self.deadline else "--limit"
                late_s, who = now - began, ", ".join(sorted(waiting))
                raise WayError(f"{who} did not answer within {late_s:.0f} s ({over})")
            time.sleep(LOOK_S)
        late = -(time.monotonic() - began) % poll_s
        time.sleep(late)
        return late

    def _run(self, command: Command, folder: Path) -> float:
        """Run the client for one cell, and return the seconds of its load."""
        process = self._start(command, folder)
        log = folder / command.log_name
        try:
            code = process.wait(timeout=min(CELL_S, max(0.0, self.deadline - time.monotonic())))
        except TimeoutExpired:
            raise WayError(f"{command.name} was not done in time: {_end(log)}") from None
        finally:
            self.groups.stop([process.pid])
        if code:
            raise WayError(f"{command.name} ended with code {code}: {_end(log)}")
        name = command.argv[command.argv.index("--result-filename") + 1]
        result = json.loads((folder / name).read_text())
        if result["completed"] != result["num_prompts"]:
            raise WayError(f"{command.name}: {result['completed']} of {result['num_prompts']} done")
        return float(result["duration"])


def measure_all(
    launcher: Launcher, topologies: Sequence[Topology], say: Callable[[str], None]
) -> list[Spent]:
    """Measure *topologies* in turn."""
    rows = []
    for topology in topologies:
        rows.append(launcher.measure(topology))
        last = rows[-1]
        say(
            f"article's way, {topology.id}: {last.total_s:.0f} s, start {last.start_s:.0f}, client "
            f"{last.client_s:.0f}, load {last.load_s:.0f}, stop {last.stop_s:.0f}"
        )
    return rows


def read_caches(groups: Groups) -> None:
    """Import what servers and clients import, untimed, so that no way pays for a cold disk."""
    program = find_program("vllm")
    for words in (("serve", "--help"), ("bench", "serve", "--help")):
        argv = (program, *words)
        process = groups.start("vllm --help", argv, env=os.environ, output=DEVNULL)
        try:
            process.wait(timeout=CELL_S)
        finally:
            groups.stop([process.pid])


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _filled(word: str, words: Mapping[str, str]) -> str:
    for placeholder, value in words.items():
        word = word.replace(placeholder, value)
    return word


def _end(log: Path) -> str:
    return f"the end of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
