"""Steps on the nodes of a Slurm job: servers, client and whatever else a session runs there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.cluster import controller
from pytest_pdserve.cluster import image
from pytest_pdserve.cluster import runner
from pytest_pdserve.cluster import versions
from pytest_pdserve.cluster.groups import Groups
from pytest_pdserve.cluster.holder import LEASE
from pytest_pdserve.cluster.holder import MARKS
from pytest_pdserve.cluster.holder import Duty
from pytest_pdserve.cluster.holder import holder_argv
from pytest_pdserve.cluster.holder import read_reports
from pytest_pdserve.cluster.process import Process
from pytest_pdserve.cluster.process import Progress
from pytest_pdserve.cluster.process import exit_text
from pytest_pdserve.cluster.process import log_tail
from pytest_pdserve.cluster.runner import CLEANUP_S
from pytest_pdserve.cluster.runner import GONE_S
from pytest_pdserve.cluster.wave import SlurmProcess
from pytest_pdserve.cluster.wave import Wave
from pytest_pdserve.cluster.wave import srun_said
from pytest_pdserve.cluster.wave import write_wave
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import contain_all
from pytest_pdserve.plan.container import image_command
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.slurm import step_argv
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.slurm import NodeFacts
from pytest_pdserve.values.slurm import node_losses
from pytest_pdserve.values.system import System

_POLL_S = 0.2
_REPORT_S = 15.0
_STEP_S = 60.0
"""For a step to start; where it makes its container first (pyxis), ``limits.ready_s``."""
_AGAIN_S = 1.0
"""Before a step that Slurm refused is asked for again."""
_END_S = GONE_S + CLEANUP_S
"""For a step to end, beside the grace of its processes."""
_VERSIONS_S = 120.0
_DIAGNOSIS_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The image as the nodes have it."""

    name: str
    """What a container is started from."""
    digest: str
    """Which one it is; empty if nobody can tell."""


class SlurmAllocation:
    """Nodes of a running job."""

    kind = "slurm"

    def __init__(
        self,
        system: System,
        folder: Path,
        job: str,
        facts: Sequence[NodeFacts],
        *,
        groups: Groups,
        watch: controller.Watch,
        described: Mapping[str, Any],
        duty: Duty,
        label: str,
    ) -> None:
        self._system = system
        self._folder = folder
        self._job = job
        self._facts = facts
        self._groups = groups
        self._watch = watch
        self._described = described
        self._duty = duty
        self._label = label
        self._image = Image(name=system.container.image, digest="")
        self._waves: list[Wave] = []
        self._count = 0
        self._planned: set[tuple[str, int]] = set()
        self._refused: set[tuple[str, int]] = set()
        nodes = [_host(seen) for seen in facts]
        own = system.slurm.client_node
        self.client_node = nodes[-1 if own else 0].name
        self.hosts = tuple(nodes[:-1] if own else nodes)
        self._all = nodes
        for module in (runner, image, versions):
            shutil.copy(str(module.__file__), folder)

    def describe(self) -> dict[str, Any]:
        """What records keep: the job, its nodes, and what it took to get them."""
        contained = {"image": self._image.name, "image_digest": self._image.digest}
        return {
            "kind": self.kind,
            "job_id": self._job,
            **self._described,
            "nodes": [host.name for host in self.hosts],
            "client_node": self.client_node,
            "container": self._system.container.kind,
            **(contained if self._system.container.contained else {}),
        }

    def describe_nodes(self) -> dict[str, str]:
        """Hardware of the nodes; where they differ, all values."""
        return _joined([dict(seen.host) for seen in self._facts])

    def find_versions(self) -> dict[str, str]:
        """What is installed on the nodes, in their containers where they have them.

        :raises LaunchError: if no node can tell.
        """
        python = "python3" if self._system.container.contained else sys.executable
        argv = (python, str(self._folder / "versions.py"))
        command = Command(name="versions", node=self.hosts[0].name, argv=argv)
        log = self._folder / "versions.log"
        (process,) = self.start([command], logs=[log], secrets={})
        try:
            deadline = time.monotonic() + _VERSIONS_S
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        finally:
            self.stop([process])
        installed = _last_object(log)
        if process.code != 0 or installed is None:
            raise LaunchError(
                f"nobody on {command.node} could tell versions; {log} ends:\n{log_tail(log)}"
            )
        return {**_joined([dict(seen.versions) for seen in self._facts]), **installed}

    def make_image_present(self, progress: Progress) -> None:
        """Have all nodes load or pull the image, at the same time.

        :raises AllocationError: naming nodes that could not, or have another image.
        """
        spec = self._system.container
        if not spec.prepared:
            self._image = Image(name=spec.image, digest=spec.image.partition("@")[2])
            return
        script = str(self._folder / "image.py")
        commands = [
            image_command(
                spec, node=host.name, script=script, python=sys.executable, digest=index == 0
            )
            for index, host in enumerate(self._all)
        ]
        logs = [self._folder / "image" / f"{command.node}.log" for command in commands]
        processes = self._start_wave(commands, logs, {})
        try:
            failed = _wait_loaded(processes, progress, self.check)
        finally:
            self.stop(processes)
        self._image = _common_image(failed or processes)

    def claim(self, node: str, port: int) -> bool:
        """Whether a plan may use *port* of *node*; the node itself has the last word at start."""
        key = self._port(node, port)
        if key in self._refused or key in self._planned:
            return False
        self._planned.add(key)
        return True

    def start(
        self, commands: Sequence[Command], *, logs: Sequence[Path], secrets: Mapping[str, str]
    ) -> tuple[SlurmProcess, ...]:
        """Start *commands* in one step, each on its node and in its container."""
        contained = contain_all(
            commands,
            self._system,
            hosts=self._all,
            image=self._image.name,
            run_id=self._label,
            run_folder=str(self._folder.parent),
        )
        return self._start_wave(contained, logs, secrets)

    def _start_wave(
        self, commands: Sequence[Command], logs: Sequence[Path], secrets: Mapping[str, str]
    ) -> tuple[SlurmProcess, ...]:
        self._count += 1
        name = commands[0].file_name
        stem = self._folder / "steps" / f"{self._count:03d}-{name}"
        items, errors = stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}.srun.log")
        limits, slurm = self._system.limits, self._system.slurm
        write_wave(
            items,
            commands,
            [log.absolute() for log in logs],
            shared={
                "stop_s": limits.stop_s,
                "lease": str(self._folder / LEASE),
                "lease_s": slurm.lease_s,
                "marks": str(self._folder / MARKS),
            },
        )
        inside = bool(commands[0].step_args)
        python = "python3" if inside else sys.executable
        argv = step_argv(
            self._job,
            [command.node for command in commands],
            [python, str(self._folder / "runner.py"), str(items)],
            name=name,
            args=commands[0].step_args,
        )
        environment = {**step_environment(), **secrets}
        deadline = time.monotonic() + _STEP_S
        while True:
            wave = Wave(
                commands, logs, argv=argv, env=environment, errors=errors, groups=self._groups
            )
            self._waves.append(wave)
            try:
                wave.wait_started(limits.ready_s if inside else _STEP_S)
                return wave.processes
            except BaseException as error:
                refused = isinstance(error, LaunchError) and wave.refused
                self._stop_wave(wave, wave.processes)
                self._remember_taken(wave)
                if not refused:
                    raise
                self.check(fresh=True)
                if time.monotonic() > deadline:
                    raise
            time.sleep(_AGAIN_S)

    def _remember_taken(self, wave: Wave) -> None:
        """Pass over what is taken, and as many ports more as this job's number says.

        Two sessions that find each other's ports would meet again on the next ones.
        """
        stride = 4 * (1 + int(self._job) % 8)
        taken = [(p.command.node, port) for p in wave.processes for port in p.taken]
        if taken:
            self._refused |= {
                self._port(node, port + more) for node, port in taken for more in range(stride)
            }
            self._planned.clear()

    def stop(self, processes: Sequence[Process]) -> None:
        """End *processes*, all at once, and their steps with them."""
        ours = [process for process in processes if isinstance(process, SlurmProcess)]
        failures = []
        for wave in [w for w in self._waves if any(p.wave is w for p in ours)]:
            try:
                self._stop_wave(wave, [process for process in ours if process.wave is wave])
            except LaunchError as error:
                failures.append(error)
        if failures:
            self.check(fresh=True)
            raise failures[0]

    def check(self, *, fresh: bool = False) -> None:
        """Make sure that job and nodes are there.

        :raises AllocationError: naming the node, or what became of the job.
        """
        trouble = self._watch.look() if fresh else self._watch.trouble
        if trouble:
            raise AllocationError(trouble)

    def diagnose(self) -> None:
        """Ask Slurm, and then every node what it still has.

        :raises AllocationError: naming the node and what it lost.
        """
        self.check(fresh=True)
        nodes = [host.name for host in self._all]
        try:
            folder = Path(tempfile.mkdtemp(prefix="diagnosis-", dir=self._folder))
            self._survey(folder, nodes)
        except (OSError, LaunchError):
            return  # trouble of this machine, such as a full disk, says nothing of nodes
        after = read_reports(folder, nodes)
        if not after:
            return  # no step was made at all: that says nothing of any node
        troubles = [
            f"node {before.node} {', '.join(losses)}"
            for before in self._facts
            if before.node in after and (losses := node_losses(before, after[before.node]))
        ]
        troubles += [f"node {node} starts no more steps" for node in nodes if node not in after]
        if troubles and len(after) < len(nodes):
            troubles.append(f"srun says:\n{srun_said(folder / 'srun.log')}")
        if troubles:
            raise AllocationError("; ".join(troubles))

    def _survey(self, folder: Path, nodes: Sequence[str]) -> None:
        """Have every node report anew into *folder*."""
        argv = holder_argv("report", replace(self._duty, folder=str(folder)))
        with (folder / "srun.log").open("wb") as log:
            srun = self._groups.start(
                "the diagnosis",
                step_argv(self._job, nodes, argv, name="pdserve-diagnosis"),
                env=step_environment(),
                output=log,
            )
        with contextlib.suppress(subprocess.TimeoutExpired):
            srun.wait(_DIAGNOSIS_S)
        self._groups.stop([srun.pid], grace_s=1.0)

    def release(self) -> None:
        """End every step; the job is ended by who asked for it."""
        for wave in list(self._waves):
            with contextlib.suppress(LaunchError):
                self._stop_wave(wave, wave.processes)

    def _stop_wave(self, wave: Wave, processes: Sequence[SlurmProcess]) -> None:
        wave.stop(processes, self._system.limits.stop_s + _END_S)
        if all(process.over for process in wave.processes):
            self._waves.remove(wave)

    def _port(self, node: str, port: int) -> tuple[str, int]:
        return ("" if self._system.cluster.shared_host else node, port)


def step_environment() -> dict[str, str]:
    """What steps inherit: this environment, with the programs beside this Python found first."""
    found = controller.environment()
    beside = str(Path(sys.executable).parent)
    return {**found, "PATH": os.pathsep.join([beside, found.get("PATH", os.defpath)])}


def _host(seen: NodeFacts) -> Host:
    return Host(
        name=seen.node,
        address=str(seen.address),
        interface=str(seen.interface),
        devices=seen.devices,
    )


def _joined(tables: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """One value per key; where tables differ, all of them."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return {
        key: " | ".join(sorted({table[key] for table in tables if key in table})) for key in keys
    }


def _last_object(log: Path) -> dict[str, Any] | None:
    """The JSON object in the last line of a log."""
    try:
        found = json.loads(log.read_text().strip().rpartition("\n")[2])
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _wait_loaded(
    processes: Sequence[SlurmProcess], progress: Progress, check: Callable[[], None]
) -> tuple[SlurmProcess, ...]:
    """Wait for all, or for the first that fails; or until a node is lost.

    :returns: those that failed.
    """
    reported = time.monotonic()
    while going := [process for process in processes if process.poll() is None]:
        check()
        if failed := tuple(process for process in processes if process.poll()):
            return failed
        if time.monotonic() - reported >= _REPORT_S:
            reported = time.monotonic()
            said = log_tail(going[0].log, 1)
            progress(f"image: {len(processes) - len(going)} of {len(processes)} nodes; {said}")
        time.sleep(_POLL_S)
    return tuple(process for process in processes if process.poll())


def _common_image(processes: Sequence[SlurmProcess]) -> Image:
    found: dict[str, list[str]] = {}
    name = digest = ""
    for process in processes:
        node, said = process.command.node, _last_object(process.log)
        if process.code != 0 or said is None:
            raise AllocationError(
                f"node {node} has no image: image.py {exit_text(process.code or 0)}; "
                f"{process.log} ends:\n{log_tail(process.log)}"
            )
        name = said["image"]
        digest = digest or next(iter(said["digests"]), "") or said["id"]
        found.setdefault(said["id"] or "", []).append(node)
    if len(found) > 1 and all(found):
        which = "; ".join(f"{', '.join(nodes)}: {each}" for each, nodes in found.items())
        raise AllocationError(f"nodes have different images called {name}: {which}")
    return Image(name=name, digest=digest)
