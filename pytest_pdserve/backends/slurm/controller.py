"""Runs Slurm's commands to query jobs and nodes, and watches a job."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence

from pytest_pdserve.backends.slurm.job_log import cause_in_log
from pytest_pdserve.backends.slurm.job_state import GONE
from pytest_pdserve.backends.slurm.job_state import JobState
from pytest_pdserve.backends.slurm.job_state import parse_state
from pytest_pdserve.backends.slurm.job_state import state_argv
from pytest_pdserve.backends.slurm.node_states import NodeState
from pytest_pdserve.backends.slurm.node_states import nodes_argv
from pytest_pdserve.backends.slurm.node_states import nodes_text
from pytest_pdserve.backends.slurm.node_states import parse_nodes
from pytest_pdserve.backends.slurm.planning import cancel_argv
from pytest_pdserve.backends.slurm.planning import clean_environment
from pytest_pdserve.backends.slurm.planning import expand_argv
from pytest_pdserve.backends.slurm.planning import on_cluster
from pytest_pdserve.backends.slurm.planning import parse_queue
from pytest_pdserve.backends.slurm.planning import queue_argv

PROGRAMS = ("sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol")
_ANSWER_S = 20.0
_SLICE_S = 1.0
_WATCH_S = 5.0
_ENDING_S = 10.0


def missing_programs() -> tuple[str, ...]:
    """Return the Slurm commands that are not on PATH."""
    return tuple(name for name in PROGRAMS if shutil.which(name) is None)


def environment() -> dict[str, str]:
    """Return this process's environment without variables that change Slurm's commands."""
    return clean_environment(os.environ)


class Controller:
    """Queries the Slurm controller of one cluster.

    :param cluster: name of the cluster; empty is the login node's own.
    :param meanwhile: called every second while a command does not answer.
    """

    def __init__(self, cluster: str = "", meanwhile: Callable[[], None] = lambda: None) -> None:
        self.cluster = cluster
        self.error = ""
        """Last error line of the last command that failed."""
        self._meanwhile = meanwhile

    def ask(self, argv: Sequence[str]) -> str | None:
        """Run a Slurm command; return its output, or None if the controller does not answer."""
        try:
            process = subprocess.Popen(
                on_cluster(argv, self.cluster),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except OSError as error:
            self.error = str(error)
            return None
        with process:
            try:
                answer, errors = self._answer(process)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0 and "Invalid job id" not in errors:
            lines = [line.strip() for line in errors.splitlines() if line.strip()]
            self.error = lines[-1] if lines else f"{argv[0]} exited with {process.returncode}"
            return None
        return answer

    def _answer(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """Return standard output and error of a command, which is killed after a timeout."""
        deadline = time.monotonic() + _ANSWER_S
        while time.monotonic() < deadline:
            try:
                return process.communicate(timeout=_SLICE_S)
            except subprocess.TimeoutExpired:
                self._meanwhile()
        process.kill()
        answer, _ = process.communicate()
        return answer, f"no answer within {_ANSWER_S:g} s"

    def job_state(self, job: str) -> JobState | None:
        """Return the state of a job; None if the controller does not answer."""
        output = self.ask(state_argv(job))
        return parse_state(output) if output is not None else None

    def node_states(self, nodes: Sequence[str], partition: str = "") -> tuple[NodeState, ...]:
        """Return the states of nodes, or of a whole partition; empty if there is no answer.

        :param nodes: names or host lists.
        """
        return parse_nodes(self.ask(nodes_argv(nodes, partition)) or "")

    def queue_place(self, job: str, partition: str) -> tuple[int, int] | None:
        """Return the position of a job in its partition's queue, from 1, and the queue's length."""
        output = self.ask(queue_argv(partition)) if partition else None
        return parse_queue(output, job) if output is not None else None

    def expand(self, host_list: str) -> tuple[str, ...]:
        """Return the single names of a host list."""
        return tuple((self.ask(expand_argv(host_list)) or "").split())

    def cancel(self, job: str) -> None:
        """Cancel a job; do nothing if it has ended."""
        self.ask(cancel_argv(job))


class Watch:
    """Checks a job and its nodes every few seconds, in a thread.

    :param limit: the job's time limit and where it is set, for messages; empty if unknown.
    :param read_log: returns the end of the job's log.
    """

    def __init__(
        self,
        controller: Controller,
        job: str,
        nodes: Sequence[str],
        *,
        limit: str,
        read_log: Callable[[], str],
    ) -> None:
        self.cluster = controller.cluster
        """The job's cluster; empty is the login node's own."""
        self._controller = controller
        self._job = job
        self._nodes = nodes
        self._limit = limit
        self._read_log = read_log
        self._trouble: str | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Result of the last check; None if it found no trouble."""
        return self._trouble

    def check(self) -> str | None:
        """Return what is wrong with job or nodes; None if nothing, or without an answer.

        If Slurm is ending the job, wait until it reports the reason.
        """
        waited = threading.Event()
        state = self._controller.job_state(self._job)
        for _ in range(int(_ENDING_S)):
            if state is None or not state.ending:
                break
            waited.wait(1.0)
            state = self._controller.job_state(self._job)
        clauses = []
        if state is not None and (trouble := state.trouble(self._job, self._limit)):
            cause = cause_in_log(self._read_log()) if state.state == GONE else ""
            clauses.append(trouble + (f", its log says: {cause}" if cause else ""))
        if bad := [node for node in self._controller.node_states(self._nodes) if node.bad]:
            clauses.append(f"nodes in trouble: {nodes_text(bad)}")
        trouble = "; ".join(clauses) or None
        self._trouble = trouble
        return trouble

    def end(self) -> None:
        """Stop the checks."""
        self._over.set()
        self._thread.join(timeout=_ANSWER_S)

    def _run(self) -> None:
        while not self._over.wait(_WATCH_S):
            self.check()
