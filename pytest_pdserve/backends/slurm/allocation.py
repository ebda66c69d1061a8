"""The allocation of the backend ``slurm``: runs servers and client as steps of a job."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.allocation import Endpoint
from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.allocation import WatchedGpus
from pytest_pdserve.backends.hosts import efa
from pytest_pdserve.backends.hosts import image
from pytest_pdserve.backends.hosts import node_load
from pytest_pdserve.backends.hosts import runner
from pytest_pdserve.backends.hosts import tarball
from pytest_pdserve.backends.hosts import versions
from pytest_pdserve.backends.hosts.groups import Groups
from pytest_pdserve.backends.hosts.runner import CLEANUP_S
from pytest_pdserve.backends.hosts.runner import GONE_S
from pytest_pdserve.backends.images import Image
from pytest_pdserve.backends.images import last_object
from pytest_pdserve.backends.images import make_image_present
from pytest_pdserve.backends.images import versions_of
from pytest_pdserve.backends.nodes import HeldNodes
from pytest_pdserve.backends.slurm import controller
from pytest_pdserve.backends.slurm.controller import Watch
from pytest_pdserve.backends.slurm.gpus import NodeGpus
from pytest_pdserve.backends.slurm.holder import LEASE
from pytest_pdserve.backends.slurm.holder import MARKS
from pytest_pdserve.backends.slurm.holder import HolderConfig
from pytest_pdserve.backends.slurm.holder import holder_argv
from pytest_pdserve.backends.slurm.holder import read_reports
from pytest_pdserve.backends.slurm.job_step import JobStep
from pytest_pdserve.backends.slurm.job_step import SlurmProcess
from pytest_pdserve.backends.slurm.job_step import srun_errors
from pytest_pdserve.backends.slurm.job_step import write_step
from pytest_pdserve.backends.slurm.options import NodeFacts
from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.backends.slurm.options import has_interfaces
from pytest_pdserve.backends.slurm.options import node_losses
from pytest_pdserve.backends.slurm.planning import step_argv
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import containment_of
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.transfer import provider_asked
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.fabric import FabricState
from pytest_pdserve.values.fabric import fabric_state
from pytest_pdserve.values.system import System

_POLL_S = 0.2
_STEP_S = 60.0
"""Timeout for a step to start; with pyxis, which creates the container, ``limits.ready_s``."""
_MAX_NAME = 80
"""Maximum characters of a command's name in file names: a client's includes its workload."""
_RETRY_S = 1.0
"""Wait before a step that Slurm refused is tried again."""
_END_S = GONE_S + CLEANUP_S
"""Timeout for a step to end, in addition to ``limits.stop_s``."""
_DIAGNOSIS_S = 60.0
_QUERY_S = 20.0
"""Timeout for nodes to report counters of their interfaces: ``fi_info`` may take 10 s."""


class SlurmAllocation(HeldNodes):
    """The nodes of a running job."""

    kind = "slurm"

    def __init__(
        self,
        system: System,
        folder: Path,
        job: str,
        facts: Sequence[NodeFacts],
        *,
        groups: Groups,
        watch: Watch,
        described: Mapping[str, Any],
        config: HolderConfig,
        label: str,
        progress: Progress,
    ) -> None:
        self._system = system
        self._folder = folder
        self._job = job
        self._facts = facts
        self._groups = groups
        self._watch = watch
        self._described = described
        self._config = config
        self._progress = progress
        self.image, self._count = Image(name=system.container.image, digest=""), 0
        self.endpoint: Endpoint | None = None
        self._steps: list[JobStep] = []
        self._endpoints: dict[str, Sequence[str]] = {}
        self._planned: set[tuple[str, int]] = set()
        self._refused: set[tuple[str, int]] = set()
        self._all = [_host(seen) for seen in facts]
        self._gpus = NodeGpus(folder, facts)
        servers, self.client_node = _servers_and_client(self._all, system)
        super().__init__(servers, system.cluster.nodes)
        self.containment = containment_of(
            system, self._all, image=self.image.name, run_id=label, run_folder=str(folder.parent)
        )
        for module in (runner, node_load, image, tarball, versions, efa):
            shutil.copy(str(module.__file__), folder)

    def describe(self) -> dict[str, Any]:
        """Return what records store: the job, its nodes, and how they were acquired."""
        contained = {"image": self.image.name, "image_digest": self.image.digest}
        return {
            "kind": self.kind,
            "job_id": self._job,
            **self._described,
            "excluded": {**self._described.get("excluded", {}), **self.excluded},
            "nodes": [host.name for host in self.hosts],
            "client_node": self.client_node,
            "container": self._system.container.kind,
            **(contained if self._system.container.contained else {}),
        }

    def describe_nodes(self) -> dict[str, str]:
        """Return the hardware of the nodes; where they differ, all values."""
        return _merged([seen.host for seen in self._facts])

    def find_versions(self) -> dict[str, str]:
        """Return the versions installed on the nodes, or in their containers.

        :raises LaunchError: if the first node cannot report them.
        """
        python = "python3" if self._system.container.contained else sys.executable
        installed = versions_of(
            self.containment,
            self.hosts[0].name,
            self._folder / "versions.py",
            python,
            start=self.start,
            stop=self.stop,
            progress=self._progress,
        )
        return {**_merged([seen.versions for seen in self._facts]), **installed}

    def provide_image(self, spec: ContainerSpec, progress: Progress) -> Image:
        """Load or pull an image on all nodes, at the same time.

        :raises AllocationError: naming nodes that failed, or that have different images.
        """
        return make_image_present(
            spec,
            self._all,
            script=self._folder / "image.py",
            folder=self._folder / "image",
            start=lambda commands, logs: self._start_step(commands, logs, {}),
            stop=self.stop,
            check=self.check,
            progress=progress,
        )

    def claim(self, node: str, port: int) -> bool:
        """Reserve *port* of *node* in the plan; whether it is free shows when a step starts."""
        key = self._port(node, port)
        if key in self._refused or key in self._planned:
            return False
        self._planned.add(key)
        return True

    def start(
        self, commands: Sequence[Command], *, logs: Sequence[Path], secrets: Mapping[str, str]
    ) -> tuple[SlurmProcess, ...]:
        """Start *commands* in one step, each on its node."""
        return self._start_step(commands, logs, secrets)

    def _start_step(
        self, commands: Sequence[Command], logs: Sequence[Path], secrets: Mapping[str, str]
    ) -> tuple[SlurmProcess, ...]:
        self._count += 1
        name = commands[0].file_name[:_MAX_NAME]
        stem = self._folder / "steps" / f"{self._count:03d}-{name}"
        items, errors = stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}.srun.log")
        self._write_step(items, commands, logs)
        inside = bool(commands[0].step_args)
        python = "python3" if inside else sys.executable
        argv = step_argv(
            self._job,
            [command.node for command in commands],
            [python, str(self._folder / "runner.py"), str(items)],
            name=name,
            args=commands[0].step_args,
            cluster=self._watch.cluster,
        )
        environment = {**step_environment(), **secrets}
        deadline = time.monotonic() + _STEP_S
        while True:
            step = JobStep(
                commands, logs, argv=argv, env=environment, errors=errors, groups=self._groups
            )
            self._steps.append(step)
            try:
                step.wait_started(self._system.limits.ready_s if inside else _STEP_S)
                return step.processes
            except BaseException as error:
                refused = isinstance(error, LaunchError) and step.refused
                self._stop_step(step, step.processes)
                self._exclude_taken_ports(step)
                if not refused:
                    raise
                self.check(fresh=True)
                if time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_S)

    def _write_step(self, items: Path, commands: Sequence[Command], logs: Sequence[Path]) -> None:
        """Write the step file *items*: the command of each node, and the shared settings."""
        write_step(
            items,
            commands,
            [log.absolute() for log in logs],
            shared={
                "stop_s": self._system.limits.stop_s,
                "lease": str(self._folder / LEASE),
                "lease_s": self._system.table("slurm", SlurmSpec).lease_s,
                "marks": str(self._folder / MARKS),
            },
        )

    def _exclude_taken_ports(self, step: JobStep) -> None:
        """Exclude the ports that are taken, and a number of ports after them.

        The number depends on the job ID: two sessions that found each other's ports would
        otherwise collide again on the next ones.
        """
        stride = 4 * (1 + int(self._job) % 8)
        taken = [(p.command.node, port) for p in step.processes for port in p.taken]
        if taken:
            self._refused |= {
                self._port(node, port + more) for node, port in taken for more in range(stride)
            }
            self._planned.clear()

    def stop(self, processes: Sequence[Process]) -> None:
        """End *processes* together, and steps that then have no process left."""
        ours = [process for process in processes if isinstance(process, SlurmProcess)]
        failures = []
        for step in [w for w in self._steps if any(p.step is w for p in ours)]:
            try:
                self._stop_step(step, [process for process in ours if process.step is step])
            except LaunchError as error:
                failures.append(error)
        if failures:
            self.check(fresh=True)
            raise failures[0]
        self._planned -= {self._port(p.command.node, n) for p in ours for n in p.command.ports}

    def check(self, *, fresh: bool = False) -> None:
        """Raise if the job has ended or a node is lost.

        :raises AllocationError: naming the node, or the job's state.
        """
        trouble = self._watch.check() if fresh else self._watch.trouble
        if trouble:
            raise AllocationError(trouble)

    def watching_gpus(self) -> AbstractContextManager[WatchedGpus]:
        """Watch the GPUs of the nodes in use until the block is left."""
        names = [host.name for host in self.hosts]
        return self._gpus.watching(names, lambda argv, logs: self._start_step(argv, logs, {}))

    def read_fabric(self) -> Sequence[FabricState]:
        """Return the counters of all nodes' RDMA interfaces, read in one step, if there are any."""
        if not any(has_interfaces(seen) for seen in self._facts):
            return ()
        provider = () if self._endpoints else (provider_asked(self._system),)
        argv = (sys.executable, str(self._folder / "efa.py"), *provider)
        nodes = [host.name for host in self.hosts]
        answers = self._query([Command(name="interfaces", node=node, argv=argv) for node in nodes])
        states = {node: answer for node, answer in answers.items() if answer.get("counters")}
        if provider:
            self._endpoints |= {node: state["endpoints"] for node, state in states.items()}
        return tuple(
            fabric_state(node, state["counters"], self._endpoints.get(node, ()))
            for node, state in states.items()
        )

    def _query(self, commands: Sequence[Command]) -> dict[str, dict[str, Any]]:
        """Run *commands*, one per node; return the JSON object that each has printed, by node."""
        folder = Path(tempfile.mkdtemp(prefix=f"{commands[0].name}-", dir=self._folder))
        logs = [folder / f"{command.node}.log" for command in commands]
        try:
            processes = self._start_step(commands, logs, {})
        except LaunchError:
            return {}  # a node that cannot start a step is detected elsewhere
        try:
            deadline = time.monotonic() + _QUERY_S
            while any(p.poll() is None for p in processes) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        finally:
            self.stop(processes)
        answers = {c.node: last_object(log) for c, log in zip(commands, logs, strict=True)}
        return {node: answer for node, answer in answers.items() if answer is not None}

    def diagnose(self) -> None:
        """Query Slurm, and then every node for the devices that it still has.

        :raises AllocationError: naming the node and what it lost.
        """
        self.check(fresh=True)
        nodes = [host.name for host in self._all]
        try:
            folder = Path(tempfile.mkdtemp(prefix="diagnosis-", dir=self._folder))
            self._survey(folder, nodes)
        except (OSError, LaunchError):
            return  # a fault of this machine, such as a full disk, is no evidence about nodes
        after = read_reports(folder, nodes)
        if not after:
            return  # no step started anywhere, which is no evidence about a node
        troubles = [
            f"node {before.node} {', '.join(losses)}"
            for before in self._facts
            if before.node in after and (losses := node_losses(before, after[before.node]))
        ]
        troubles += [f"node {node} starts no more steps" for node in nodes if node not in after]
        if troubles and len(after) < len(nodes):
            troubles.append(f"srun says:\n{srun_errors(folder / 'srun.log')}")
        if troubles:
            raise AllocationError("; ".join(troubles))

    def _survey(self, folder: Path, nodes: Sequence[str]) -> None:
        """Run a step in which every node writes a new report into *folder*."""
        argv = holder_argv("report", replace(self._config, folder=str(folder)))
        with (folder / "srun.log").open("wb") as log:
            srun = self._groups.start(
                "the diagnosis",
                step_argv(
                    self._job, nodes, argv, name="pdserve-diagnosis", cluster=self._watch.cluster
                ),
                env=step_environment(),
                output=log,
            )
        with contextlib.suppress(subprocess.TimeoutExpired):
            srun.wait(_DIAGNOSIS_S)
        self._groups.stop([srun.pid], grace_s=1.0)

    def release(self) -> None:
        """End every step; :class:`~.job.Job` ends the job."""
        for step in list(self._steps):
            with contextlib.suppress(LaunchError):
                self._stop_step(step, step.processes)

    def _stop_step(self, step: JobStep, processes: Sequence[SlurmProcess]) -> None:
        step.stop(processes, self._system.limits.stop_s + _END_S)
        if all(process.over for process in step.processes):
            self._steps.remove(step)

    def _port(self, node: str, port: int) -> tuple[str, int]:
        return ("" if self._system.cluster.shared_host else node, port)


def step_environment() -> dict[str, str]:
    """Return the environment of steps: this one, with this Python's folder first on PATH."""
    env = controller.environment()
    folder = str(Path(sys.executable).parent)
    return {**env, "PATH": os.pathsep.join([folder, env.get("PATH", os.defpath)])}


def _servers_and_client(nodes: Sequence[Host], system: System) -> tuple[tuple[Host, ...], str]:
    """Return the nodes of servers, and the client's: its own, which is the last, or the first."""
    own = system.table("slurm", SlurmSpec).client_node
    return tuple(nodes[:-1] if own else nodes), nodes[-1 if own else 0].name


def _host(seen: NodeFacts) -> Host:
    return Host(
        name=seen.node,
        address=str(seen.address),
        interface=str(seen.interface),
        devices=seen.devices,
    )


def _merged(tables: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return all keys of *tables* with their values; where tables differ, all values in one."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return {
        key: " | ".join(sorted({table[key] for table in tables if key in table})) for key in keys
    }
