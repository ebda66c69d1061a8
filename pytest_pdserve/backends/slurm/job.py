"""Nodes from Slurm: a job that holds them for one session, or one that runs already."""

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
    stack = contextlib.ExitStack()
    try:
        with Heartbeat(progress, "acquiring nodes") as said:
            allocation = _acquire(stack, system, folder.absolute(), job, said)
        yield allocation
    finally:
        with Heartbeat(progress, "giving the nodes back"):
            stack.close()


def _acquire(
    stack: contextlib.ExitStack,
    system: System,
    folder: Path,
    job: str | None,
    progress: Progress,
) -> SlurmAllocation:
    """Hold nodes until *stack* is closed."""
    groups = Groups(system.limits.stop_s, folder.parent, progress)
    stack.callback(groups.close)
    held = Job(system, folder, progress, groups)
    stack.callback(held.end)
    beat = lease.Heartbeat(folder / LEASE, system.table("slurm", SlurmSpec).beat_s)
    stack.callback(beat.end)
    facts = held.submit() if job is None else held.borrow(job)
    nodes = [seen.node for seen in facts]
    watch = held.watch(nodes)
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
        progress=progress,
    )
    stack.callback(allocation.release)
    progress(held.text(nodes))
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
        """The job's time limit, and where that is set; empty if not known."""
        self._folder = folder
        self._progress = progress
        self._groups = groups
        self._user = pwd.getpwuid(os.getuid()).pw_name
        self.label = f"{folder.parent.name}-{secrets.token_hex(2)}"
        """The run and a token: sessions with other runs folders may have the same run id."""
        self._needed = system.cluster.nodes + self._spec.client_node
        self._lent = False
        self._time_left = ""
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
        option, clusters = f"--pdserve-job-id {job}", self._spec.clusters
        if is_ambiguous(clusters):
            raise AllocationError(
                f"{option}: [slurm] parameters.clusters in {self._system.source} is {clusters!r}, "
                "and every cluster has a job of that number: name the one of the job"
            )
        self.cluster = clusters
        controller = Controller(self.cluster)
        state = controller.job_state(job)
        if state is None:
            raise AllocationError(
                f"{option}: Slurm's controller does not answer: {controller.complaint}"
            )
        nodes = controller.expand(state.nodes) if state.nodes else ()
        check_reusable(job, state, user=self._user, nodes=len(nodes), needed=self._needed)
        self.id, self._lent, self._partition = job, True, state.partition
        self._time_left = state.time_left
        self.time_limit = f"{state.time_limit} (the job's own)" if state.time_limit else ""
        self._start_holder(nodes[: self._needed])
        facts, bad = self._survey(nodes[: self._needed])
        if bad:
            said = "; ".join(f"{node} {why}" for node, why in bad.items())
            raise AllocationError(f"{option}: preflight: {said}")
        return tuple(facts.values())

    def watch(self, nodes: Sequence[str]) -> Watch:
        """Look at the job and its nodes from now on."""
        asked, limit = Controller(self.cluster), self.time_limit
        return Watch(asked, self.id, nodes, limit=limit, read_log=self.read_log)

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
        if self._lent and self.time_limit:
            how += f"; its time limit is {self.time_limit}, {self._time_left or 'unknown'} is left"
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
        reporter = Reporter(self._progress)
        if self.id and not self._gone_within(patience_s, reporter):
            Controller(self.cluster).cancel(self.id)
            self._cancelled = True
            if not self._gone_within(_CANCEL_S, reporter):
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
        for told in (self._folder / NODES).glob("*.json"):
            told.unlink()
        self._owe(name, self._spec.clusters)
        reporter = Reporter(self._progress)
        try:
            submitted = submit(
                self.config,
                folder=self._folder / "submitit",
                parameters=job_parameters(
                    self._spec, name=name, nodes=self._needed, excluded=tuple(self._excluded)
                ),
                source=self._system.source,
                meanwhile=lambda: reporter.tick(lambda: "waiting for sbatch to take the job"),
            )
        except RefusedError:
            self._groups.forget(self._owed)
            self._owed = ()
            raise
        cluster = submitted.cluster or self._spec.clusters
        if is_ambiguous(cluster):
            raise AllocationError(
                f"sbatch does not say on which of the clusters {cluster!r} job {submitted.job} is; "
                f"name one in [slurm] parameters.clusters in {self._system.source}"
            )
        seen = None if submitted.sure else Controller(cluster).job_state(submitted.job)
        if seen is not None and seen.name not in ("", name):
            raise AllocationError(
                f"sbatch's answer {submitted.answer!r} was read as job {submitted.job}, but that "
                f"is another one, {seen.name!r}; have sbatch print 'Submitted batch job N'"
            )
        self.id, self.cluster = submitted.job, cluster
        self._owe(name, cluster, id=self.id)

    def _owe(self, name: str, clusters: str, *, id: str = "") -> None:
        """Have the job ended by its name if this session is killed."""
        argv = cancel_by_name_argv(name, self._user, clusters)
        if self._owed and argv != self._owed:
            self._groups.forget(self._owed)
        self._owed = argv
        self._groups.on_loss(argv, "job", name, id=id)

    def _start_holder(self, nodes: Sequence[str]) -> None:
        with (self._folder / "holder.log").open("ab") as log:
            self._lender = self._groups.start(
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
        """Wait in the queue, and then for the nodes to be ready.

        :returns: the nodes.
        """
        wait = QueueWait(
            self.id,
            partition=self._spec.partition,
            limit_s=self._spec.queue_s,
            source=self._system.source,
            now_s=time.monotonic(),
        )
        self._queued_s = wait_in_queue(self.id, wait, cluster=self.cluster, progress=self._progress)
        if ended := wait.ended(self.time_limit):
            raise AllocationError(f"{ended}{self._log_text()}")
        assert wait.state is not None
        self._partition = wait.state.partition
        return Controller(self.cluster).expand(wait.state.nodes)

    def _survey(self, nodes: Sequence[str]) -> tuple[dict[str, NodeFacts], dict[str, str]]:
        """Wait for what the nodes say of themselves.

        :returns: the facts by node, and nodes that are not fit with the reason.
        """
        began, reporter, ended = time.monotonic(), Reporter(self._progress), ""

        def waiting() -> str:
            silent = set(nodes) - set(read_reports(self._folder, nodes))
            waited_s = time.monotonic() - began
            return f"waiting for {', '.join(sorted(silent))} to report: {waited_s:.0f} s"

        asked = Controller(self.cluster, meanwhile=lambda: reporter.tick(waiting))
        while len(facts := read_reports(self._folder, nodes)) < len(nodes) and not ended:
            if time.monotonic() - began > self._spec.report_s:
                break
            reporter.tick(waiting)
            time.sleep(_POLL_S)
            state = asked.job_state(self.id)
            if state is not None and (trouble := state.trouble(self.id, self.time_limit)):
                ended = f"before it ended: {trouble}"
        if not facts:
            lost = nodes_text([node for node in asked.node_states(nodes) if node.bad])
            within = f"within {self._spec.report_s:g} s (slurm.report_s)"
            raise AllocationError(
                f"no node of Slurm job {self.id} ({', '.join(nodes)}) reported {ended or within}: "
                + (f"nodes in trouble: {lost}; " if lost else "")
                + f"{self._folder} must lie on a folder that nodes share, see --pdserve-runs"
                + self._log_text()
            )
        preflight = self._system.table("preflight", Preflight)
        bad = {node: "did not start its holder" for node in nodes if node not in facts}
        for node, seen in facts.items():
            if troubles := node_troubles(seen, preflight, self._spec.interface):
                bad[node] = ", ".join(troubles)
        return facts, bad

    def read_log(self) -> str:
        """Return the end of the holder's log; empty if there is none."""
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
        """Wait until nothing of the job is left; not for one that waits in the queue."""
        deadline = time.monotonic() + seconds

        def tick() -> None:
            reporter.tick(lambda: f"waiting for Slurm job {self.id} to end")

        asked = Controller(self.cluster, meanwhile=tick)
        while True:
            state = asked.job_state(self.id)
            if state is not None and state.over:
                return True
            waits = state is not None and state.pending and not self._cancelled
            if waits or time.monotonic() > deadline:
                return False
            tick()
            time.sleep(_POLL_S)
