"""The allocation of the backend ``local``: processes, ports and cores of this machine."""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from secrets import token_hex

import platformdirs
import psutil
from msgspec import convert

from pytest_pdserve.backends.allocation import Endpoint
from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.fabric.checking import provider_used
from pytest_pdserve.backends.fabric.folder import library_versions
from pytest_pdserve.backends.fabric.folder import transfer_env
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.backends.hosts import efa
from pytest_pdserve.backends.hosts import image
from pytest_pdserve.backends.hosts import versions
from pytest_pdserve.backends.hosts.facts import describe_drivers
from pytest_pdserve.backends.hosts.facts import describe_hardware
from pytest_pdserve.backends.hosts.facts import program_path
from pytest_pdserve.backends.hosts.gpu_watch import GpuWatch
from pytest_pdserve.backends.hosts.gpu_watch import unwatched
from pytest_pdserve.backends.hosts.gpu_watch import watching_gpus
from pytest_pdserve.backends.hosts.groups import Groups
from pytest_pdserve.backends.hosts.node_load import NodeSample
from pytest_pdserve.backends.hosts.node_load import load_between
from pytest_pdserve.backends.hosts.node_load import sample_node
from pytest_pdserve.backends.hosts.nvml import driver_versions
from pytest_pdserve.backends.hosts.runner import reserve_port
from pytest_pdserve.backends.hosts.versions import find_versions
from pytest_pdserve.backends.images import Image
from pytest_pdserve.backends.images import make_image_present
from pytest_pdserve.backends.images import versions_of
from pytest_pdserve.backends.local.gpus import VisibleGpu
from pytest_pdserve.backends.local.gpus import shares_of_cores
from pytest_pdserve.backends.nodes import HeldNodes
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import containment_of
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.transfer import provider_asked
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.fabric import FabricState
from pytest_pdserve.values.fabric import fabric_state
from pytest_pdserve.values.record import NodeLoad
from pytest_pdserve.values.system import System


def slots(system: System, cores: int, gpus: Sequence[VisibleGpu] = ()) -> tuple[Host, ...]:
    """Return the nodes of *system* as slots of this machine, each with its share of *cores*.

    Spare nodes are the last.

    :param gpus: GPUs of the session, divided among the slots; each slot then gets cores next to
        its GPUs.
    """
    nodes, each = system.cluster.held_nodes, system.cluster.gpus_per_node
    shares = slot_cpus(cores, nodes)
    parts = [tuple(gpus[n * each : (n + 1) * each]) for n in range(nodes)]
    if gpus:
        shares = shares_of_cores(parts, sorted(os.sched_getaffinity(0)))
    devices = tuple(sorted({p for pattern in system.container.devices for p in glob.glob(pattern)}))
    return tuple(
        Host(
            name=f"local{n}",
            address="127.0.0.1",
            interface="lo",
            cpus=shares[n],
            devices=devices,
            gpus=tuple(gpu.name for gpu in parts[n]),
            transfer_env=tuple(transfer_env(system, os.environ).items()),
            compile_cache=_compile_cache(system),
        )
        for n in range(nodes)
    )


def _compile_cache(system: System) -> str:
    """Return the folder of compiled kernels; empty if servers compile none, or in a container."""
    if system.cluster.device != "gpu" or system.container.contained:
        return ""
    return str(Path(platformdirs.user_cache_dir("pytest-pdserve", appauthor=False)) / "compiled")


def slot_cpus(cores: int, slots: int) -> tuple[tuple[int, ...], ...]:
    """Divide *cores* among *slots*; the first core is left to router and client.

    With fewer than two cores per slot, nothing is pinned: the scheduler does better.

    :returns: the cores of each slot; empty tuples if nothing is pinned.
    """
    share = (cores - 1) // slots if slots else 0
    if share < 2:
        return ((),) * slots
    return tuple(tuple(range(1 + s * share, 1 + (s + 1) * share)) for s in range(slots))


_CLEANUP_S = 30.0
"""Timeout of a command that cleans up after another, or queries the container engine."""


@dataclass(slots=True, kw_only=True)
class LocalProcess:
    """A process group of this machine."""

    command: Command
    log: Path
    popen: subprocess.Popen[bytes]
    """The group's leader."""
    samples: list[tuple[float, float]] = field(default_factory=list)
    """(monotonic time, CPU time) of each sample, seconds."""
    first: NodeSample | None = None
    """Load of this machine at the last :meth:`watch`; None if the command is not watched."""
    groups: Groups
    """All groups of the session."""
    ours: frozenset[int] = frozenset()
    """Groups of the session that were running at the last :meth:`watch`."""

    @property
    def pid(self) -> int:
        """Id of the leader, and of the group."""
        return self.popen.pid

    def _measured_pid(self) -> int:
        """Return the process to measure; one in a container is not a child of the leader."""
        if not self.command.pid_argv:
            return self.pid
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            done = subprocess.run(
                self.command.pid_argv, capture_output=True, timeout=_CLEANUP_S, check=True
            )
            return int(done.stdout)
        return self.pid

    def poll(self) -> int | None:
        """Return the exit code of the leader; None while it runs."""
        return self.popen.poll()

    def cpu_samples(self) -> Sequence[tuple[float, float]]:
        """Add a sample of the CPU time of the leader and its descendants; return all samples."""
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(self._measured_pid())
            processes = [leader, *leader.children(recursive=True)]
            used = sum(sum(process.cpu_times()[:2]) for process in processes)
            self.samples.append((time.monotonic(), used))
        return self.samples

    def watch(self) -> None:
        """Restart the measurement of this machine's load, if the command is watched."""
        if self.command.watched:
            self.first, self.ours = sample_node(), self.groups.pids

    def node_load(self) -> NodeLoad | None:
        """Return the load of this machine since :meth:`watch`; None if not watched."""
        roots = None if self.command.pid_argv else {os.getpid()}
        groups = self.ours | self.groups.pids
        load = load_between(self.first, self.first and sample_node(), roots=roots, groups=groups)
        return None if load is None else convert(load, NodeLoad)


class LocalAllocation(HeldNodes):
    """Slots of this machine, allocated to a session."""

    kind = "local"
    image = Image(name="", digest="")
    endpoint: Endpoint | None = None

    def __init__(
        self,
        system: System,
        *,
        folder: Path,
        progress: Progress = print,
        gpus: Sequence[VisibleGpu] = (),
    ) -> None:
        held = slots(system, os.cpu_count() or 1, gpus)
        super().__init__(held, system.cluster.nodes)
        each = system.cluster.gpus_per_node
        self._gpus = {
            host.name: tuple(visible.gpu for visible in gpus[n * each : (n + 1) * each])
            for n, host in enumerate(held)
        }
        self.client_node = self.hosts[0].name
        self.containment = containment_of(
            system,
            held,
            image=system.container.image,
            run_id=f"{folder.parent.name}-{token_hex(2)}",
            run_folder=str(folder.parent.absolute()),
        )
        self._system = system
        self._folder = folder
        self._container = system.container
        self._cpus = {host.name: host.cpus for host in held}
        self._reserved: dict[int, contextlib.ExitStack] = {}
        self._progress = progress
        self._groups = Groups(system.limits.stop_s, folder.parent, progress)
        self._endpoints: Sequence[str] | None = None
        self._cleanups: dict[int, tuple[tuple[str, ...], ...]] = {}

    def provide_image(self, spec: ContainerSpec, progress: Progress) -> Image:
        """Load or pull an image on this machine.

        :raises AllocationError: if that fails.
        """
        with self._groups.holding(image.lock_path(spec.image)):
            return make_image_present(
                spec,
                self.hosts[:1],
                script=Path(str(image.__file__)),
                folder=self._folder / "image",
                start=lambda commands, logs: self.start(commands, logs=logs, secrets={}),
                stop=self.stop,
                check=self.check,
                progress=progress,
            )

    def claim(self, node: str, port: int) -> bool:
        """Reserve *port* by binding it without listening, so that a server can still bind it."""
        if (reserved := reserve_port(port)) is not None:
            self._reserved[port] = reserved
        return reserved is not None

    def _unclaim(self, ports: Sequence[int]) -> None:
        """Give reserved ports back."""
        for port in ports:
            self._reserved.pop(port, contextlib.ExitStack()).close()

    def start(
        self, commands: Sequence[Command], *, logs: Sequence[Path], secrets: Mapping[str, str]
    ) -> tuple[LocalProcess, ...]:
        """Start *commands*, each as its own process group with its output in its log."""
        started: list[LocalProcess] = []
        try:
            for command, log in zip(commands, logs, strict=True):
                started.append(self._start(command, log, secrets))
        except BaseException:
            self.stop(started)
            raise
        return tuple(started)

    def _start(self, command: Command, log: Path, secrets: Mapping[str, str]) -> LocalProcess:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = log.open("ab")
        except OSError as error:
            raise LaunchError(f"{command.name} cannot be started: {error}") from error
        with output:
            popen = self._groups.start(
                command.name,
                command.argv,
                executable=find_program(command.argv[0]),
                env={
                    **os.environ,
                    **dict(command.env),
                    **{name: secrets[name] for name in command.secrets if name in secrets},
                },
                output=output,
            )
        if command.cleanup:
            self._cleanups[popen.pid] = command.cleanup
            for argv in command.cleanup:
                self._groups.on_loss(argv, "container", command.name)
        if cpus := self._cpus.get(command.node):
            with contextlib.suppress(psutil.Error):
                psutil.Process(popen.pid).cpu_affinity(list(cpus))
        process = LocalProcess(command=command, log=log, popen=popen, groups=self._groups)
        process.watch()
        return process

    def stop(self, processes: Sequence[Process]) -> None:
        """End the groups of *processes* together: SIGTERM, then SIGKILL; then clean up."""
        pids = [process.pid for process in processes if process.pid is not None]
        try:
            self._groups.stop(pids)
        finally:
            for pid in pids:
                self._clean_up(pid)
        self._unclaim([port for process in processes for port in process.command.ports])

    def _clean_up(self, pid: int) -> None:
        """Run the clean-up commands of an ended command, such as removing its container."""
        for argv in self._cleanups.pop(pid, ()):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(argv, capture_output=True, timeout=_CLEANUP_S, check=False)
            self._groups.forget(argv)

    def check(self, *, fresh: bool = False) -> None:
        """Do nothing: slots of this machine cannot be lost while the session runs."""

    def find_versions(self) -> dict[str, str]:
        """Return the versions installed where servers run, and of kernel and drivers."""
        drivers = {**describe_drivers(), **(driver_versions() if any(self._gpus.values()) else {})}
        here = {**find_versions(), **library_versions(self._system)}
        return {**drivers, **(self._versions_inside() or here)}

    def _versions_inside(self) -> dict[str, str]:
        """Return the versions installed in the image; empty if servers run in no container."""
        if not self._container.contained:
            return {}
        script = self._folder / "versions.py"
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(versions.__file__), script)
        return versions_of(
            self.containment,
            self.client_node,
            script,
            "python3",
            start=self.start,
            stop=self.stop,
            progress=self._progress,
        )

    def describe_nodes(self) -> dict[str, str]:
        """Return the hardware of this machine."""
        gpus = [gpu for each in self._gpus.values() for gpu in each]
        return {**describe_hardware(), **({"gpu": gpus[0].name} if gpus else {})}

    def watching_gpus(self) -> contextlib.AbstractContextManager[GpuWatch]:
        """Watch the GPUs of the slots; watch nothing if they have none."""
        if not any(self._gpus.values()):
            return unwatched()
        return watching_gpus(self._gpus, self._is_ours)

    def _is_ours(self, pid: int) -> bool:
        """Return whether this session started a process; always true with containers."""
        try:
            return self._container.contained or os.getpgid(pid) in self._groups.pids
        except OSError:
            return False

    def read_fabric(self) -> Sequence[FabricState]:
        """Return the counters of this machine's RDMA interfaces; empty if it has none."""
        counters = efa.read_counters(Path(efa.SYS))
        if not counters:
            return ()
        if self._endpoints is None:
            self._endpoints = efa.list_endpoints(provider_asked(self._system))
        return (fabric_state(platform.node(), counters, self._endpoints),)

    def diagnose(self) -> None:
        """Do nothing: this machine cannot be lost while the session runs."""

    def describe(self) -> dict[str, object]:
        """Return what records store about this machine."""
        contained = {
            "container": self._container.kind,
            "image": self.image.name,
            "image_digest": self.image.digest,
        }
        gpus = {"gpus": {host.name: list(host.gpus) for host in self.hosts}}
        return {
            "kind": self.kind,
            **(contained if self._container.contained else {}),
            **provider_used(self._system),
            **(gpus if any(self._gpus.values()) else {}),
            **({"excluded": dict(self.excluded)} if self.excluded else {}),
        }

    def release(self) -> None:
        """End all processes, release the ports, and end the guard."""
        with Heartbeat(self._progress, "ending processes"):
            try:
                self._groups.close()
            finally:
                for pid in list(self._cleanups):
                    self._clean_up(pid)
                self._unclaim(list(self._reserved))


def find_program(name: str) -> str:
    """Return the path of a command: beside this Python, else on PATH.

    :raises LaunchError: if it is in neither place.
    """
    found = program_path(name)
    if found is None:
        raise LaunchError(
            f"{name} is not installed beside {sys.executable} nor on PATH; run `make setup`, or "
            "install pytest-pdserve[serve]"
        )
    return found
