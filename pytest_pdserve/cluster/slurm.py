"""Nodes of a Slurm cluster: one held allocation per session, and steps on its nodes.

The only importer of submitit, which submits the holder; see :mod:`pytest_pdserve.cluster.holder`.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_pdserve.cluster import controller
from pytest_pdserve.cluster import runner
from pytest_pdserve.cluster.groups import Groups
from pytest_pdserve.cluster.groups import signals_held
from pytest_pdserve.cluster.holder import LEASE
from pytest_pdserve.cluster.holder import MARKS
from pytest_pdserve.cluster.holder import NODES
from pytest_pdserve.cluster.holder import Duty
from pytest_pdserve.cluster.holder import hold
from pytest_pdserve.cluster.lease import Heartbeat
from pytest_pdserve.cluster.process import Process
from pytest_pdserve.cluster.process import log_tail
from pytest_pdserve.cluster.wave import SlurmProcess
from pytest_pdserve.cluster.wave import Wave
from pytest_pdserve.cluster.wave import write_wave
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.slurm import HOPELESS
from pytest_pdserve.plan.slurm import cancel_by_name_argv
from pytest_pdserve.plan.slurm import check_reusable
from pytest_pdserve.plan.slurm import job_name
from pytest_pdserve.plan.slurm import job_parameters
from pytest_pdserve.plan.slurm import pending_text
from pytest_pdserve.plan.slurm import step_argv
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import PortTakenError
from pytest_pdserve.values.slurm import NodeFacts
from pytest_pdserve.values.slurm import node_troubles
from pytest_pdserve.values.system import System

Progress = Callable[[str], None]

_POLL_S = 0.2
_REPORT_S = 15.0
_HOPELESS_S = 10.0
"""How long a reason that will not change may stand before it is believed."""
_STEP_S = 60.0
"""For a step to start, and for a stopped one to end beside the grace of its processes."""
_GONE_S = 10.0


class SlurmAllocation:
    """Nodes held by a job of ours, or lent by one that runs already."""

    kind = "slurm"

    def __init__(self, system: System, folder: Path, progress: Progress) -> None:
        controller.check_slurm()
        self.hosts: tuple[Host, ...] = ()
        self.client_node = ""
        self._system = system
        self._folder = folder.absolute()
        self._progress = progress
        self._user = getpass.getuser()
        self._job = ""
        self._lent = False
        self._partition = ""
        self._queued_s = 0.0
        self._excluded: dict[str, str] = {}
        self._facts: dict[str, NodeFacts] = {}
        self._refused: set[tuple[str, int]] = set()
        self._planned: set[tuple[str, int]] = set()
        self._waves: list[Wave] = []
        self._count = 0
        self._watch: controller.Watch | None = None
        self._groups = Groups(system.limits.stop_s)
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(runner.__file__, self._folder / "runner.py")
        self._beat = Heartbeat(self._folder / LEASE, system.slurm.beat_s)

    # Acquiring

    def submit(self) -> None:
        """Ask for nodes, wait for them, and let them show that they are fit.

        :raises AllocationError: if they cannot be had in time, or are not fit.
        """
        attempts = 1 + self._system.slurm.replacements
        for attempt in range(1, attempts + 1):
            name = job_name(self._user, socket.gethostname(), self._run_id)
            self._submit_one(f"{name}.{attempt}")
            self._wait_running()
            bad = self._survey()
            if not bad:
                self._settle()
                return
            self._excluded |= bad
            self._end_job()
            said = "; ".join(f"{node} {why}" for node, why in bad.items())
            if attempt < attempts:
                self._progress(f"preflight: {said}; asking for other nodes")
        raise AllocationError(
            f"nodes failed the preflight, {attempts} times (slurm.replacements): {said}"
        )

    def borrow(self, job: str) -> None:
        """Use nodes of a job that runs already; it is left running.

        :raises AllocationError: if it cannot be used.
        """
        state = controller.job_state(job)
        if state is None:
            raise AllocationError(f"--pdserve-job-id {job}: Slurm's controller does not answer")
        nodes = controller.expand(state.nodes) if state.nodes else ()
        check_reusable(job, state, user=self._user, nodes=len(nodes), needed=self._needed)
        self._job, self._lent, self._partition = job, True, state.partition
        self._hold_lent(nodes[: self._needed])
        bad = self._survey()
        if bad:
            said = "; ".join(f"{node} {why}" for node, why in bad.items())
            raise AllocationError(f"--pdserve-job-id {job}: nodes failed the preflight: {said}")
        self._settle()

    @property
    def _needed(self) -> int:
        return self._system.cluster.nodes + self._system.slurm.client_node

    @property
    def _run_id(self) -> str:
        return self._folder.parent.name

    def _duty(self) -> Duty:
        system = self._system
        return Duty(
            folder=str(self._folder),
            lease_s=system.slurm.lease_s,
            interface=system.slurm.interface,
            devices=tuple(name for name, _ in system.preflight.devices),
            stop_s=system.limits.stop_s,
        )

    def _submit_one(self, name: str) -> None:
        import submitit  # noqa: PLC0415 - 0.3 s that only an allocation pays

        self._loss = cancel_by_name_argv(name, self._user)
        self._groups.on_loss(self._loss)
        logs = self._folder / "submitit"
        parameters = job_parameters(
            self._system.slurm, name=name, nodes=self._needed, excluded=tuple(self._excluded)
        )
        began = time.monotonic()
        with signals_held(), _cleaned_environment():
            try:
                executor = submitit.SlurmExecutor(folder=logs)
                executor.update_parameters(**parameters)
                self._job = executor.submit(hold, self._duty()).job_id
            except submitit.core.utils.FailedJobError as error:
                raise AllocationError(
                    f"sbatch refused the job: {_last_line(str(error))}; see [slurm] in "
                    f"{self._system.source}"
                ) from error
        self._submitted = began

    def _wait_running(self) -> None:
        spec, began, reported, hopeless = self._system.slurm, self._submitted, 0.0, 0.0
        while True:
            state = controller.job_state(self._job)
            waited = time.monotonic() - began
            if state is not None and not state.pending:
                break
            if state is not None:
                self._partition = state.partition
                reason = state.reason or state.state
                hopeless = (hopeless or waited) if reason in HOPELESS else 0.0
                if hopeless and waited - hopeless >= min(_HOPELESS_S, spec.queue_s):
                    raise AllocationError(
                        f"Slurm job {self._job} cannot start: {reason}; "
                        f"see [slurm] in {self._system.source}"
                    )
                if waited > spec.queue_s:
                    raise AllocationError(
                        f"Slurm job {self._job} did not start within {spec.queue_s:g} s "
                        f"(slurm.queue_s): {reason}"
                    )
                if waited - reported >= _REPORT_S or (not reported and waited > 2):
                    reported = waited
                    place = controller.queue_place(self._job, state.partition)
                    self._progress(pending_text(self._job, state, place, waited))
            time.sleep(_POLL_S if waited < 10 else 1.0)
        self._queued_s = waited
        self._partition = state.partition
        if trouble := state.trouble(self._job, spec.time_limit_min):
            raise AllocationError(f"{trouble}; {self._holder_log()}")

    def _survey(self) -> dict[str, str]:
        """Wait for what the nodes say of themselves.

        :returns: nodes that are not fit, with the reason.
        """
        state = controller.job_state(self._job)
        if self._lent:
            nodes = tuple(self._lent_nodes)
        else:
            nodes = controller.expand(state.nodes) if state is not None else ()
        deadline = time.monotonic() + self._system.slurm.report_s
        while not (facts := self._read_facts(nodes)) or len(facts) < len(nodes):
            state = controller.job_state(self._job)
            if state is not None and state.state != "RUNNING":
                break
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        self._facts = facts
        silent = [node for node in nodes if node not in facts]
        if silent and not facts:
            raise AllocationError(
                f"none of {', '.join(silent) or 'the nodes'} of Slurm job {self._job} reported "
                f"within {self._system.slurm.report_s:g} s (slurm.report_s): {self._folder} must "
                f"lie on a folder that nodes share (--pdserve-runs); {self._holder_log()}"
            )
        asked, interface = self._system.preflight, self._system.slurm.interface
        bad = {node: "did not start the holder" for node in silent}
        for node, seen in facts.items():
            if troubles := node_troubles(seen, asked, interface):
                bad[node] = ", ".join(troubles)
        return bad

    def _read_facts(self, nodes: Sequence[str]) -> dict[str, NodeFacts]:
        found = {}
        for node in nodes:
            with contextlib.suppress(OSError, ValueError, KeyError):
                data = json.loads((self._folder / NODES / f"{node}.json").read_text())
                found[node] = NodeFacts.from_json(data)
        return found

    def _settle(self) -> None:
        hosts = tuple(
            Host(
                name=facts.node,
                address=str(facts.address),
                interface=str(facts.interface),
                devices=facts.devices,
            )
            for facts in self._facts.values()
        )
        own = self._system.slurm.client_node
        self.hosts = hosts[:-1] if own else hosts
        self.client_node = hosts[-1 if own else 0].name
        names = [host.name for host in hosts]
        self._watch = controller.Watch(self._job, names, self._system.slurm.time_limit_min)
        self._progress(
            f"Slurm job {self._job} on {', '.join(names)} after {self._queued_s:.0f} s"
            + (", lent" if self._lent else "")
        )

    def _holder_log(self) -> str:
        logs = sorted((self._folder / "submitit").glob(f"{self._job}_*_log.err"))
        return f"{logs[0]} ends:\n{log_tail(logs[0])}" if logs else "no log of it exists"

    # Holding

    def describe(self) -> dict[str, Any]:
        """What records keep: the job, its nodes, and what it took to get them."""
        return {
            "kind": self.kind,
            "job_id": self._job,
            "lent": self._lent,
            "partition": self._partition,
            "queued_s": round(self._queued_s, 1),
            "nodes": [host.name for host in self.hosts],
            "client_node": self.client_node,
            "excluded": dict(self._excluded),
        }

    def describe_nodes(self) -> dict[str, str]:
        """Hardware of the nodes; where they differ, all values."""
        seen: dict[str, set[str]] = {}
        for facts in self._facts.values():
            for key, value in facts.host:
                seen.setdefault(key, set()).add(value)
        return {key: " | ".join(sorted(values)) for key, values in seen.items()}

    def claim(self, node: str, port: int) -> bool:
        """Whether a plan may use *port* of *node*; the node itself has the last word at start."""
        key = ("" if self._system.cluster.shared_host else node, port)
        if key in self._refused or key in self._planned:
            return False
        self._planned.add(key)
        return True

    def start(
        self, commands: Sequence[Command], *, logs: Sequence[Path], secrets: Mapping[str, str]
    ) -> tuple[SlurmProcess, ...]:
        """Start *commands* in one step, each on its node."""
        self._count += 1
        stem = self._folder / "steps" / f"{self._count:03d}-{commands[0].log_name[:-4]}"
        write_wave(
            stem.with_suffix(".json"),
            commands,
            [log.absolute() for log in logs],
            shared={
                "stop_s": self._system.limits.stop_s,
                "lease": str(self._folder / LEASE),
                "lease_s": self._system.slurm.lease_s,
                "marks": str(self._folder / MARKS),
            },
        )
        python = sys.executable
        wave = Wave(
            commands,
            logs,
            argv=step_argv(
                self._job,
                [command.node for command in commands],
                [python, str(self._folder / "runner.py"), str(stem.with_suffix(".json"))],
                name=commands[0].log_name[:-4],
                args=commands[0].step_args,
            ),
            env={**self._step_environment(), **secrets},
            errors=stem.with_suffix(".srun.log"),
            groups=self._groups,
        )
        self._waves.append(wave)
        try:
            wave.wait_started(_STEP_S)
        except BaseException as error:
            self._stop_wave(wave, wave.processes)
            if isinstance(error, PortTakenError):
                self._remember_taken(wave)
            raise
        return wave.processes

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
        if self._watch is None:
            return
        trouble = self._watch.look() if fresh else self._watch.trouble
        if trouble:
            raise AllocationError(trouble)

    def release(self) -> None:
        """End every step and the job; a job that was lent stays."""
        try:
            for wave in list(self._waves):
                with contextlib.suppress(LaunchError):
                    self._stop_wave(wave, wave.processes)
        finally:
            self._beat.end()
            if self._watch is not None:
                self._watch.end()
            try:
                self._end_job()
            finally:
                self._groups.close()

    def _stop_wave(self, wave: Wave, processes: Sequence[SlurmProcess]) -> None:
        wave.stop(processes, self._system.limits.stop_s + _GONE_S)
        if all(process.over for process in wave.processes):
            self._waves.remove(wave)

    def _remember_taken(self, wave: Wave) -> None:
        one = self._system.cluster.shared_host
        for process in wave.processes:
            self._refused |= {("" if one else process.command.node, p) for p in process.taken}
        self._planned.clear()

    def _step_environment(self) -> dict[str, str]:
        beside = str(Path(sys.executable).parent)
        found = controller.environment()
        return {**found, "PATH": os.pathsep.join([beside, found.get("PATH", os.defpath)])}

    def _hold_lent(self, nodes: Sequence[str]) -> None:
        self._lent_nodes = nodes
        argv = [
            *(sys.executable, "-m", "pytest_pdserve.cluster.holder", "hold"),
            json.dumps(asdict(self._duty())),
        ]
        with (self._folder / "holder.log").open("ab") as log:
            self._groups.start(
                "the holder",
                step_argv(self._job, nodes, argv, name="pdserve-holder"),
                env=self._step_environment(),
                output=log,
            )

    def _end_job(self) -> None:
        """Let the holders end by themselves, and the job with them; cancel what does not."""
        if not self._job or self._lent:
            return
        if not self._gone_within(_GONE_S / 2 if self._watch is not None else 0.0):
            controller.cancel(self._job)
            self._gone_within(_GONE_S)
        self._groups.forget(self._loss)
        self._job = ""

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            state = controller.job_state(self._job)
            if state is not None and state.state not in {"PENDING", "RUNNING", "COMPLETING"}:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)


@contextlib.contextmanager
def acquired(
    system: System, *, folder: Path, job: str | None, progress: Progress
) -> Iterator[SlurmAllocation]:
    """Nodes of *system*, given back on leaving, whatever happens.

    :param folder: the session's own, on a file system that nodes share.
    :param job: a running job whose nodes are used, or None to submit one.
    """
    allocation = SlurmAllocation(system, folder, progress)
    try:
        if job is None:
            allocation.submit()
        else:
            allocation.borrow(job)
        yield allocation
    finally:
        allocation.release()


@contextlib.contextmanager
def _cleaned_environment() -> Iterator[None]:
    """Hide from sbatch what the caller's shell would have it do."""
    before = dict(os.environ)
    hidden = set(before) - set(controller.environment())
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update({name: before[name] for name in hidden})


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if "error" in line.lower()] or text.splitlines()
    return lines[-1].removeprefix("sbatch: ").strip() if lines else "no reason given"
