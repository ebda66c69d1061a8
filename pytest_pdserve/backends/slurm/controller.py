"""Questions to Slurm's controller, answered quietly; the only place that runs its commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Sequence

from pytest_pdserve.backends.slurm.planning import JobState
from pytest_pdserve.backends.slurm.planning import bad_nodes_text
from pytest_pdserve.backends.slurm.planning import cancel_argv
from pytest_pdserve.backends.slurm.planning import clean_environment
from pytest_pdserve.backends.slurm.planning import expand_argv
from pytest_pdserve.backends.slurm.planning import nodes_argv
from pytest_pdserve.backends.slurm.planning import parse_bad_nodes
from pytest_pdserve.backends.slurm.planning import parse_queue
from pytest_pdserve.backends.slurm.planning import parse_state
from pytest_pdserve.backends.slurm.planning import queue_argv
from pytest_pdserve.backends.slurm.planning import state_argv
from pytest_pdserve.values.errors import AllocationError

PROGRAMS = ("sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol")
_ANSWER_S = 20.0
_WATCH_S = 5.0
_ENDING_S = 10.0


def check_slurm() -> None:
    """Make sure that this machine can talk to a Slurm.

    :raises AllocationError: naming the commands that are missing.
    """
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise AllocationError(
            f"{', '.join(missing)} not found on PATH: this is no Slurm login node; run there, or "
            "choose a local system with --system"
        )


def environment() -> dict[str, str]:
    """This process's environment without what would steer Slurm's commands."""
    return clean_environment(os.environ)


def ask(argv: Sequence[str]) -> str | None:
    """What a command of Slurm prints; None if the controller does not answer."""
    try:
        said = subprocess.run(
            argv,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if said.returncode != 0 and "Invalid job id" not in said.stderr:
        return None
    return said.stdout


def job_state(job: str) -> JobState | None:
    """State of a job; None if the controller does not answer."""
    said = ask(state_argv(job))
    return parse_state(said) if said is not None else None


def queue_place(job: str, partition: str) -> tuple[int, int] | None:
    """Position among the waiting jobs of its partition, and how many those are."""
    said = ask(queue_argv(partition)) if partition else None
    return parse_queue(said, job) if said is not None else None


def expand(host_list: str) -> tuple[str, ...]:
    """Single names of a host list."""
    return tuple((ask(expand_argv(host_list)) or "").split())


def cancel(job: str) -> None:
    """End a job; one that has ended already is no matter."""
    ask(cancel_argv(job))


class Watch:
    """Looks at job and nodes every few seconds, beside what the session does."""

    def __init__(self, job: str, nodes: Sequence[str], limit_min: int) -> None:
        self._job = job
        self._nodes = nodes
        self._limit_min = limit_min
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
        state = job_state(self._job)
        for _ in range(int(_ENDING_S)):
            if state is None or not state.ending:
                break
            waited.wait(1.0)
            state = job_state(self._job)
        clauses = []
        if state is not None and (trouble := state.trouble(self._job, self._limit_min)):
            clauses.append(trouble)
        bad = parse_bad_nodes(ask(nodes_argv(self._nodes)) or "")
        if bad:
            clauses.append(f"nodes in trouble: {bad_nodes_text(bad)}")
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
