"""Nodes from Slurm: a job that holds them for one session, or one that runs already.

The only importer of submitit, which submits the holder (:mod:`.holder`).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.allocation import log_tail
from pytest_pdserve.backends.hosts.groups import Groups
from pytest_pdserve.backends.hosts.groups import signals_held
from pytest_pdserve.backends.slurm import controller
from pytest_pdserve.backends.slurm.allocation import SlurmAllocation
from pytest_pdserve.backends.slurm.allocation import step_environment
from pytest_pdserve.backends.slurm.holder import LEASE
from pytest_pdserve.backends.slurm.holder import NODES
from pytest_pdserve.backends.slurm.holder import HolderConfig
from pytest_pdserve.backends.slurm.holder import hold
from pytest_pdserve.backends.slurm.holder import holder_argv
from pytest_pdserve.backends.slurm.holder import read_reports
from pytest_pdserve.backends.slurm.lease import Heartbeat
from pytest_pdserve.backends.slurm.options import NodeFacts
from pytest_pdserve.backends.slurm.options import Preflight
from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.backends.slurm.options import node_troubles
from pytest_pdserve.backends.slurm.planning import cancel_by_name_argv
from pytest_pdserve.backends.slurm.planning import check_reusable
from pytest_pdserve.backends.slurm.planning import job_environment
from pytest_pdserve.backends.slurm.planning import job_name
from pytest_pdserve.backends.slurm.planning import job_parameters
from pytest_pdserve.backends.slurm.planning import pending_text
from pytest_pdserve.backends.slurm.planning import step_argv
from pytest_pdserve.backends.slurm.planning import waiting_trouble
from pytest_pdserve.plan.container import removal_argv
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.system import System

_POLL_S = 0.2
_REPORT_S = 15.0
_HOLDERS_S = 5.0
"""For holders to leave by themselves, and their job to complete."""
_CANCEL_S = 15.0


@contextlib.contextmanager
def acquired(
    system: System, *, folder: Path, job: str | None, progress: Progress
) -> Iterator[SlurmAllocation]:
    """Nodes of *system*, given back on leaving, whatever happens.

    :param folder: the session's own, on a file system that nodes share.
    :param job: a running job whose nodes are used, or None to submit one.
    :raises AllocationError: if nodes cannot be had in time, are not fit, or lack the image.
    """
    controller.check_slurm()
    folder = folder.absolute()
    with contextlib.ExitStack() as stack:
        groups = Groups(system.limits.stop_s)
        stack.callback(groups.close)
        held = Job(system, folder, progress, groups)
        stack.callback(held.end)
        beat = Heartbeat(folder / LEASE, system.table("slurm", SlurmSpec).beat_s)
        stack.callback(beat.end)
        facts = held.submit() if job is None else held.borrow(job)
        nodes = [seen.node for seen in facts]
        watch = controller.Watch(held.id, nodes, system.table("slurm", SlurmSpec).time_limit_min)
        stack.callback(watch.end)
        allocation = SlurmAllocation(
            system,
            folder,
            held.id,
            facts,
            groups=groups,
            watch=watch,
            described=held.describe(),
            config=held.config,
            label=held.label,
        )
        stack.callback(allocation.release)
        progress(held.text(nodes))
        allocation.make_image_present(progress)
        yield allocation


class Job:
    """The job whose nodes a session uses."""

    def __init__(self, system: System, folder: Path, progress: Progress, groups: Groups) -> None:
        self.id = ""
        self._system = system
        self._spec = system.table("slurm", SlurmSpec)
        self._folder = folder
        self._progress = progress
        self._groups = groups
        self._user = pwd.getpwuid(os.getuid()).pw_name
        self.label = f"{folder.parent.name}-{secrets.token_hex(2)}"
        """The run and a token: sessions with other runs folders may have the same run id."""
        self._needed = system.cluster.nodes + system.table("slurm", SlurmSpec).client_node
        self._lent = False
        self._partition = ""
        self._queued_s = 0.0
        self._excluded: dict[str, str] = {}
        self._owed: Sequence[str] = ()
        self._cancelled = False
        self._lender: subprocess.Popen[bytes] | None = None

    def submit(self) -> tuple[NodeFacts, ...]:
        """Ask for nodes, wait for them, and let them show that they are fit.

        :raises AllocationError: if they cannot be had in time, or are not fit.
        """
        for left in range(self._spec.replacements, -1, -1):
            try:
                self._submit_holder(f"{self._name}.{left}")
                facts, bad = self._survey(self._wait_running())
            except AllocationError as error:
                if not self._excluded:
                    raise
                before = "; ".join(f"{node} {why}" for node, why in self._excluded.items())
                raise AllocationError(f"{error} (excluded before: {before})") from error
            if not bad:
                return tuple(facts.values())
            said = "; ".join(f"{node} {why}" for node, why in bad.items())
            if left:
                self._excluded |= bad
                self._progress(f"preflight: {said}; asking for other nodes")
                self.end(patience_s=0.0)
        raise AllocationError(
            f"preflight: {said}; {self._spec.replacements} times other nodes were asked for "
            "before (slurm.replacements)"
        )

    def borrow(self, job: str) -> tuple[NodeFacts, ...]:
        """Use nodes of a job that runs already; it is left running.

        :raises AllocationError: if it cannot be used.
        """
        state = controller.job_state(job)
        if state is None:
            raise AllocationError(f"--pdserve-job-id {job}: Slurm's controller does not answer")
        nodes = controller.expand(state.nodes) if state.nodes else ()
        check_reusable(job, state, user=self._user, nodes=len(nodes), needed=self._needed)
        self.id, self._lent, self._partition = job, True, state.partition
        self._start_holder(nodes[: self._needed])
        facts, bad = self._survey(nodes[: self._needed])
        if bad:
            said = "; ".join(f"{node} {why}" for node, why in bad.items())
            raise AllocationError(f"--pdserve-job-id {job}: preflight: {said}")
        return tuple(facts.values())

    def describe(self) -> dict[str, Any]:
        """What records keep of how the nodes were had."""
        return {
            "lent": self._lent,
            "partition": self._partition,
            "queued_s": round(self._queued_s, 1),
            "excluded": dict(self._excluded),
        }

    def text(self, nodes: Sequence[str]) -> str:
        """One progress line of a job that runs."""
        how = "lent" if self._lent else f"after {self._queued_s:.0f} s"
        return f"Slurm job {self.id} on {', '.join(nodes)}, {how}"

    def end(self, patience_s: float = _HOLDERS_S) -> None:
        """Let the holders leave, and the job with them; cancel what does not. A lent job stays.

        :param patience_s: for holders that know that the session is over.
        """
        if self._lender is not None:  # it knows that the session is over, and cleans up
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._lender.wait(self._system.limits.stop_s + _CANCEL_S)
        if self._lent or not self._owed:
            return
        if self.id and not self._gone_within(patience_s):
            controller.cancel(self.id)
            self._cancelled = True
            if not self._gone_within(_CANCEL_S):
                return  # what cancels it by its name goes on without us
        if self.id:
            self._groups.forget(self._owed)
        self.id, self._owed, self._cancelled = "", (), False

    @property
    def _name(self) -> str:
        return job_name(self._user, socket.gethostname(), self.label)

    @property
    def config(self) -> HolderConfig:
        """What holders are told."""
        container = self._system.container
        removal = removal_argv(container.kind, self.label)
        asked = list(self._system.table("preflight", Preflight).devices)
        return HolderConfig(
            folder=str(self._folder),
            lease_s=self._spec.lease_s,
            interface=self._spec.interface,
            devices=tuple(dict.fromkeys([*asked, *container.devices])),
            stop_s=self._system.limits.stop_s,
            list_containers=removal[0] if removal else (),
            remove_containers=removal[1] if removal else (),
        )

    def _submit_holder(self, name: str) -> None:
        import submitit

        for told in (self._folder / NODES).glob("*.json"):
            told.unlink()
        self._owed = cancel_by_name_argv(name, self._user)
        self._groups.on_loss(self._owed)
        parameters = job_parameters(
            self._spec, name=name, nodes=self._needed, excluded=tuple(self._excluded)
        )
        with signals_held(), _cleaned_environment():
            try:
                executor = submitit.SlurmExecutor(folder=self._folder / "submitit")
                executor.update_parameters(**parameters)
                self.id = executor.submit(hold, self.config).job_id
            except submitit.core.utils.FailedJobError as error:
                if _refusal(str(error)):
                    self._groups.forget(self._owed)
                    self._owed = ()
                raise AllocationError(
                    f"sbatch took no job: {_complaint(str(error))}; see [slurm] in "
                    f"{self._system.source}"
                ) from error

    def _start_holder(self, nodes: Sequence[str]) -> None:
        with (self._folder / "holder.log").open("ab") as log:
            self._lender = self._groups.start(
                "the holder",
                step_argv(self.id, nodes, holder_argv("hold", self.config), name="pdserve-holder"),
                env=step_environment(),
                output=log,
            )

    def _wait_running(self) -> tuple[str, ...]:
        """Wait in the queue.

        :returns: the nodes.
        """
        spec = self._spec
        began, hopeful, report_at = time.monotonic(), 0.0, 2.0
        while True:
            state = controller.job_state(self.id)
            waited = time.monotonic() - began
            if state is not None and not state.pending:
                break
            if state is None or not state.hopeless:
                hopeful = waited
            trouble = waiting_trouble(
                self.id,
                state,
                waited_s=waited,
                hopeless_s=waited - hopeful,
                limit_s=spec.queue_s,
                source=self._system.source,
            )
            if trouble:
                raise AllocationError(trouble)
            if state is not None and waited >= report_at:
                report_at = waited + _REPORT_S
                place = controller.queue_place(self.id, state.partition)
                self._progress(pending_text(self.id, state, place, waited))
            time.sleep(_POLL_S if waited < 10 else 1.0)
        self._queued_s, self._partition = waited, state.partition
        if ended := state.trouble(self.id, spec.time_limit_min):
            raise AllocationError(f"{ended}; {self._holder_log()}")
        return controller.expand(state.nodes)

    def _survey(self, nodes: Sequence[str]) -> tuple[dict[str, NodeFacts], dict[str, str]]:
        """Wait for what the nodes say of themselves.

        :returns: the facts by node, and nodes that are not fit with the reason.
        """
        deadline = time.monotonic() + self._spec.report_s
        while len(facts := read_reports(self._folder, nodes)) < len(nodes):
            if time.monotonic() > deadline:
                break
            state = controller.job_state(self.id)
            if state is not None and state.state != "RUNNING":
                break
            time.sleep(_POLL_S)
        if not facts:
            raise AllocationError(
                f"no node of Slurm job {self.id} ({', '.join(nodes)}) reported within "
                f"{self._spec.report_s:g} s (slurm.report_s): {self._folder} must lie on a folder "
                f"that nodes share, see --pdserve-runs; {self._holder_log()}"
            )
        bad = {node: "did not start its holder" for node in nodes if node not in facts}
        for node, seen in facts.items():
            troubles = node_troubles(
                seen, self._system.table("preflight", Preflight), self._spec.interface
            )
            if troubles:
                bad[node] = ", ".join(troubles)
        return facts, bad

    def _holder_log(self) -> str:
        logs = sorted((self._folder / "submitit").glob(f"{self.id}_*_log.err"))
        logs += self._folder.glob("holder.log")
        return f"{logs[0]} ends:\n{log_tail(logs[0])}" if logs else "it left no log"

    def _gone_within(self, seconds: float) -> bool:
        """Wait until nothing of the job is left; not for one that waits in the queue."""
        deadline = time.monotonic() + seconds
        while True:
            state = controller.job_state(self.id)
            if state is not None and state.over:
                return True
            waits = state is not None and state.pending and not self._cancelled
            if waits or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)


@contextlib.contextmanager
def _cleaned_environment() -> Iterator[None]:
    """Hide from sbatch what the caller's shell would have it do, and secrets."""
    kept = job_environment(os.environ)
    hidden = {name: value for name, value in os.environ.items() if name not in kept}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _refusal(text: str) -> bool:
    """Whether sbatch knows that there is no job; after a time-out there may be one."""
    return "Batch job submission failed" in text and "timed out" not in text


def _complaint(text: str) -> str:
    """What sbatch said, as one line."""
    lines = [line.removeprefix("sbatch: ").strip() for line in text.splitlines()]
    return "; ".join(filter(None, lines)) or "no reason given"
