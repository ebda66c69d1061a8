"""Acquires nodes from Slurm: submits a job for the session, or uses a running one."""

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
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.backends.hosts.groups import Groups
from pytest_pdserve.backends.slurm import lease
from pytest_pdserve.backends.slurm.allocation import SlurmAllocation
from pytest_pdserve.backends.slurm.allocation import step_environment
from pytest_pdserve.backends.slurm.controller import Controller
from pytest_pdserve.backends.slurm.controller import Watch
from pytest_pdserve.backends.slurm.holder import LEASE
from pytest_pdserve.backends.slurm.holder import NODES
from pytest_pdserve.backends.slurm.holder import HolderConfig
from pytest_pdserve.backends.slurm.holder import holder_argv
from pytest_pdserve.backends.slurm.holder import read_reports
from pytest_pdserve.backends.slurm.node_states import nodes_text
from pytest_pdserve.backends.slurm.options import NodeFacts
from pytest_pdserve.backends.slurm.options import Preflight
from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.backends.slurm.options import node_troubles
from pytest_pdserve.backends.slurm.planning import cancel_by_name_argv
from pytest_pdserve.backends.slurm.planning import check_reusable
from pytest_pdserve.backends.slurm.planning import is_ambiguous
from pytest_pdserve.backends.slurm.planning import job_name
from pytest_pdserve.backends.slurm.planning import job_parameters
from pytest_pdserve.backends.slurm.planning import step_argv
from pytest_pdserve.backends.slurm.queueing import wait_in_queue
from pytest_pdserve.backends.slurm.submitting import RefusedError
from pytest_pdserve.backends.slurm.submitting import submit
from pytest_pdserve.backends.slurm.waiting import QueueWait
from pytest_pdserve.backends.slurm.waiting import Reporter
from pytest_pdserve.plan.container import removal_argv
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.system import System

_POLL_S = 0.2
_HOLDERS_S = 5.0
"""Time for holders to end by themselves, and for their job to complete."""
_CANCEL_S = 15.0


@contextlib.contextmanager
def acquired(
    system: System, *, folder: Path, job: str | None, progress: Progress
) -> Iterator[SlurmAllocation]:
    """Acquire nodes for *system*; give them back when the block ends, also after an exception.

    :param folder: the session's own, on a file system that nodes share.
    :param job: ID of a running job whose nodes are used; None to submit a job.
    :raises AllocationError: if nodes are not available in time, fail the preflight, or cannot load
        the image.
    """
    stack = contextlib.ExitStack()
    try:
        with Heartbeat(progress, "acquiring nodes") as beat:
            allocation = _acquire(stack, system, folder.absolute(), job, beat)
        yield allocation
    finally:
        with Heartbeat(progress, "giving the nodes back"):
            stack.close()


def _acquire(
    stack: contextlib.ExitStack,
    system: System,
    folder: Path,
    job_id: str | None,
    progress: Progress,
) -> SlurmAllocation:
    """Acquire nodes, which are released when *stack* is closed."""
    groups = Groups(system.limits.stop_s, folder.parent, progress)
    stack.callback(groups.close)
    job = Job(system, folder, progress, groups)
    stack.callback(job.end)
    beat = lease.Heartbeat(folder / LEASE, system.table("slurm", SlurmSpec).beat_s)
    stack.callback(beat.end)
    facts = job.submit() if job_id is None else job.use_running(job_id)
    nodes = [seen.node for seen in facts]
    watch = job.watch(nodes)
    stack.callback(watch.end)
    allocation = SlurmAllocation(
        system,
        folder,
        job.id,
        facts,
        groups=groups,
        watch=watch,
        described=job.describe(),
        config=job.config,
        label=job.label,
        progress=progress,
    )
    stack.callback(allocation.release)
    progress(job.text(nodes))
    allocation.make_image_present(progress)
    return allocation


class Job:
    """The job whose nodes a session uses."""

    def __init__(self, system: System, folder: Path, progress: Progress, groups: Groups) -> None:
        self.id = ""
        self.cluster = ""
        """The cluster that the job is on; empty is the login node's own."""
        self._system = system
        self._spec = system.table("slurm", SlurmSpec)
        self.time_limit = f"{self._spec.time_limit_min} min (slurm.time_limit_min)"
        """The job's time limit and where it is set; empty if unknown."""
        self._folder = folder
        self._progress = progress
        self._groups = groups
        self._user = pwd.getpwuid(os.getuid()).pw_name
        self.label = f"{folder.parent.name}-{secrets.token_hex(2)}"
        """Run id and a random token: sessions with other run folders may have the same run id."""
        self._needed = system.cluster.held_nodes + self._spec.client_node
        self._reused = False
        self._time_left = ""
        self._partition = ""
        self._queued_s = 0.0
        self._excluded: dict[str, str] = {}
        self._cancel_command: Sequence[str] = ()
        self._cancelled = False
        self._holder_step: subprocess.Popen[bytes] | None = None

    def submit(self) -> tuple[NodeFacts, ...]:
        """Submit a job, wait for its nodes, and check them; replace nodes that fail.

        :raises AllocationError: if nodes are not available in time, or fail the preflight.
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
            failures = "; ".join(f"{node} {why}" for node, why in bad.items())
            if left:
                self._excluded |= bad
                self._progress(f"preflight: {failures}; requesting other nodes")
                self.end(patience_s=0.0)
        raise AllocationError(
            f"preflight: {failures}; other nodes were requested {self._spec.replacements} times "
            "before (slurm.replacements)"
        )

    def use_running(self, job: str) -> tuple[NodeFacts, ...]:
        """Use nodes of a running job, which is not ended with the session.

        :raises AllocationError: if the job cannot be used.
        """
        option, clusters = f"--pdserve-job-id {job}", self._spec.clusters
        if is_ambiguous(clusters):
            raise AllocationError(
                f"{option}: [slurm] parameters.clusters in {self._system.source} is {clusters!r}, "
                "and each cluster numbers its own jobs; set it to the cluster of the job"
            )
        self.cluster = clusters
        controller = Controller(self.cluster)
        state = controller.job_state(job)
        if state is None:
            raise AllocationError(
                f"{option}: Slurm's controller does not answer: {controller.error}"
            )
        nodes = controller.expand(state.nodes) if state.nodes else ()
        check_reusable(job, state, user=self._user, nodes=len(nodes), needed=self._needed)
        self.id, self._reused, self._partition = job, True, state.partition
        self._time_left = state.time_left
        self.time_limit = f"{state.time_limit} (the job's own)" if state.time_limit else ""
        self._start_holder(nodes[: self._needed])
        facts, bad = self._survey(nodes[: self._needed])
        if bad:
            failures = "; ".join(f"{node} {why}" for node, why in bad.items())
            raise AllocationError(f"{option}: preflight: {failures}")
        return tuple(facts.values())

    def watch(self, nodes: Sequence[str]) -> Watch:
        """Start to check the job and its nodes regularly."""
        controller, limit = Controller(self.cluster), self.time_limit
        return Watch(controller, self.id, nodes, limit=limit, read_log=self.read_log)

    def describe(self) -> dict[str, Any]:
        """Return what records store about how the nodes were acquired."""
        return {
            "lent": self._reused,
            "partition": self._partition,
            "queued_s": round(self._queued_s, 1),
            "excluded": dict(self._excluded),
        }

    def text(self, nodes: Sequence[str]) -> str:
        """Return a progress line about the running job."""
        how = "already running" if self._reused else f"after {self._queued_s:.0f} s"
        if self._reused and self.time_limit:
            how += f"; its time limit is {self.time_limit}, {self._time_left or 'unknown'} is left"
        return f"Slurm job {self.id} on {', '.join(nodes)}, {how}"

    def end(self, patience_s: float = _HOLDERS_S) -> None:
        """Wait for the holders and the job to end, and cancel the job if it does not.

        A job that was already running is not ended.

        :param patience_s: time for holders, which read from the lease that the session is over.
        """
        if self._holder_step is not None:  # it reads that the session is over, and cleans up
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._holder_step.wait(self._system.limits.stop_s + _CANCEL_S)
        if self._reused or not self._cancel_command:
            return
        reporter = Reporter(self._progress)
        if self.id and not self._gone_within(patience_s, reporter):
            Controller(self.cluster).cancel(self.id)
            self._cancelled = True
            if not self._gone_within(_CANCEL_S, reporter):
                return  # the guard still has the command that cancels it by name
        if self.id:
            self._groups.forget(self._cancel_command)
        self.id, self._cancel_command, self._cancelled = "", (), False

    @property
    def _name(self) -> str:
        return job_name(self._user, socket.gethostname(), self.label)

    @property
    def config(self) -> HolderConfig:
        """Settings of the holders."""
        container = self._system.container
        removal = removal_argv(container.kind, self.label)
        checked = list(self._system.table("preflight", Preflight).devices)
        return HolderConfig(
            folder=str(self._folder),
            lease_s=self._spec.lease_s,
            interface=self._spec.interface,
            devices=tuple(dict.fromkeys([*checked, *container.devices])),
            stop_s=self._system.limits.stop_s,
            list_containers=removal[0] if removal else (),
            remove_containers=removal[1] if removal else (),
        )

    def _submit_holder(self, name: str) -> None:
        for old_report in (self._folder / NODES).glob("*.json"):
            old_report.unlink()
        self._cancel_on_loss(name, self._spec.clusters)
        reporter = Reporter(self._progress)
        try:
            submitted = submit(
                self.config,
                folder=self._folder / "submitit",
                parameters=job_parameters(
                    self._spec, name=name, nodes=self._needed, excluded=tuple(self._excluded)
                ),
                source=self._system.source,
                meanwhile=lambda: reporter.tick(lambda: "waiting for sbatch to answer"),
            )
        except RefusedError:
            self._groups.forget(self._cancel_command)
            self._cancel_command = ()
            raise
        cluster = submitted.cluster or self._spec.clusters
        if is_ambiguous(cluster):
            raise AllocationError(
                f"sbatch does not report on which of the clusters {cluster!r} job {submitted.job} "
                f"is; name one in [slurm] parameters.clusters in {self._system.source}"
            )
        seen = None if submitted.sure else Controller(cluster).job_state(submitted.job)
        if seen is not None and seen.name not in ("", name):
            raise AllocationError(
                f"sbatch's answer {submitted.answer!r} was read as job {submitted.job}, but that "
                f"is {seen.name!r}; make the site's wrapper of sbatch print 'Submitted batch job N'"
            )
        self.id, self.cluster = submitted.job, cluster
        self._cancel_on_loss(name, cluster, id=self.id)

    def _cancel_on_loss(self, name: str, clusters: str, *, id: str = "") -> None:
        """Register a command that cancels the job by its name if this session is killed."""
        argv = cancel_by_name_argv(name, self._user, clusters)
        if self._cancel_command and argv != self._cancel_command:
            self._groups.forget(self._cancel_command)
        self._cancel_command = argv
        self._groups.on_loss(argv, "job", name, id=id)

    def _start_holder(self, nodes: Sequence[str]) -> None:
        with (self._folder / "holder.log").open("ab") as log:
            self._holder_step = self._groups.start(
                "the holder",
                step_argv(
                    self.id,
                    nodes,
                    holder_argv("hold", self.config),
                    name="pdserve-holder",
                    cluster=self.cluster,
                ),
                env=step_environment(),
                output=log,
            )

    def _wait_running(self) -> tuple[str, ...]:
        """Wait until the job runs; return its nodes."""
        wait = QueueWait(
            self.id,
            partition=self._spec.partition,
            limit_s=self._spec.queue_s,
            source=self._system.source,
            now_s=time.monotonic(),
        )
        self._queued_s = wait_in_queue(self.id, wait, cluster=self.cluster, progress=self._progress)
        if reason := wait.end_reason(self.time_limit):
            raise AllocationError(f"{reason}{self._log_text()}")
        assert wait.state is not None
        self._partition = wait.state.partition
        return Controller(self.cluster).expand(wait.state.nodes)

    def _survey(self, nodes: Sequence[str]) -> tuple[dict[str, NodeFacts], dict[str, str]]:
        """Wait for the nodes' reports, and check them.

        :returns: the facts by node, and the nodes that fail the preflight with the reason.
        """
        began, reporter, failure = time.monotonic(), Reporter(self._progress), ""

        def waiting() -> str:
            silent = set(nodes) - set(read_reports(self._folder, nodes))
            waited_s = time.monotonic() - began
            return f"waiting for {', '.join(sorted(silent))} to report: {waited_s:.0f} s"

        controller = Controller(self.cluster, meanwhile=lambda: reporter.tick(waiting))
        while len(facts := read_reports(self._folder, nodes)) < len(nodes) and not failure:
            if time.monotonic() - began > self._spec.report_s:
                break
            reporter.tick(waiting)
            time.sleep(_POLL_S)
            state = controller.job_state(self.id)
            if state is not None and (trouble := state.trouble(self.id, self.time_limit)):
                failure = f"before it ended: {trouble}"
        if not facts:
            lost = nodes_text([node for node in controller.node_states(nodes) if node.bad])
            when = failure or f"within {self._spec.report_s:g} s (slurm.report_s)"
            raise AllocationError(
                f"no node of Slurm job {self.id} ({', '.join(nodes)}) reported {when}: "
                + (f"nodes in trouble: {lost}; " if lost else "")
                + f"{self._folder} must be on a file system that nodes share, see --pdserve-runs"
                + self._log_text()
            )
        preflight = self._system.table("preflight", Preflight)
        bad = {node: "did not start its holder" for node in nodes if node not in facts}
        for node, seen in facts.items():
            if troubles := node_troubles(seen, preflight, self._spec.interface):
                bad[node] = ", ".join(troubles)
        return facts, bad

    def read_log(self) -> str:
        """Return the end of the holder's log; empty if it has none."""
        log = self._log
        return log_tail(log) if log is not None else ""

    @property
    def _log(self) -> Path | None:
        logs = sorted((self._folder / "submitit").glob(f"{self.id}_*_log.err"))
        return next(iter([*logs, *self._folder.glob("holder.log")]), None)

    def _log_text(self) -> str:
        """Return the end of the holder's log as the last clause of a sentence."""
        return f"; {self._log} ends:\n{self.read_log()}" if self._log is not None else ""

    def _gone_within(self, seconds: float, reporter: Reporter) -> bool:
        """Wait until the job has ended; return at once if it is still in the queue."""
        deadline = time.monotonic() + seconds

        def tick() -> None:
            reporter.tick(lambda: f"waiting for Slurm job {self.id} to end")

        controller = Controller(self.cluster, meanwhile=tick)
        while True:
            state = controller.job_state(self.id)
            if state is not None and state.over:
                return True
            waits = state is not None and state.pending and not self._cancelled
            if waits or time.monotonic() > deadline:
                return False
            tick()
            time.sleep(_POLL_S)
