"""Questions to Slurm's controller, answered quietly; the only place that runs its commands."""

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
    """Commands of Slurm that are not on PATH."""
    return tuple(name for name in PROGRAMS if shutil.which(name) is None)


def environment() -> dict[str, str]:
    """This process's environment without what would steer Slurm's commands."""
    return clean_environment(os.environ)


class Controller:
    """The controller of one cluster, asked by Slurm's commands.

    :param cluster: its name; empty is the login node's own.
    :param meanwhile: called every second while a command does not answer.
    """

    def __init__(self, cluster: str = "", meanwhile: Callable[[], None] = lambda: None) -> None:
        self.cluster = cluster
        self.complaint = ""
        """What the last command that failed said."""
        self._meanwhile = meanwhile

    def ask(self, argv: Sequence[str]) -> str | None:
        """What a command of Slurm prints; None if the controller does not answer."""
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
            self.complaint = str(error)
            return None
        with process:
            try:
                answer, said = self._answer(process)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0 and "Invalid job id" not in said:
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            self.complaint = lines[-1] if lines else f"{argv[0]} exited with {process.returncode}"
            return None
        return answer

    def _answer(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """Return what a command prints, and what it complains of; it is killed if it takes long."""
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
        """State of a job; None if the controller does not answer."""
        said = self.ask(state_argv(job))
        return parse_state(said) if said is not None else None

    def node_states(self, nodes: Sequence[str], partition: str = "") -> tuple[NodeState, ...]:
        """States of nodes, or of all of a partition; none if the controller does not answer.

        :param nodes: names or host lists.
        """
        return parse_nodes(self.ask(nodes_argv(nodes, partition)) or "")

    def queue_place(self, job: str, partition: str) -> tuple[int, int] | None:
        """Position among the waiting jobs of its partition, and how many those are."""
        said = self.ask(queue_argv(partition)) if partition else None
        return parse_queue(said, job) if said is not None else None

    def expand(self, host_list: str) -> tuple[str, ...]:
        """Single names of a host list."""
        return tuple((self.ask(expand_argv(host_list)) or "").split())

    def cancel(self, job: str) -> None:
        """End a job; one that has ended already is no matter."""
        self.ask(cancel_argv(job))


class Watch:
    """Looks at job and nodes every few seconds, beside what the session does.

    :param limit: the job's time limit, and where that is set; empty if not known.
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
        """What was wrong when last looked."""
        return self._trouble

    def look(self) -> str | None:
        """See now what is wrong with job or nodes; None if nothing, or nobody answers.

        A job that Slurm is just ending is waited for, since then it says why.
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
        """Stop looking."""
        self._over.set()
        self._thread.join(timeout=_ANSWER_S)

    def _run(self) -> None:
        while not self._over.wait(_WATCH_S):
            self.look()
