"""Waiting for a job that was submitted: the questions to Slurm that :mod:`.waiting` decides by."""

from __future__ import annotations

import time

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.slurm.controller import Controller
from pytest_pdserve.backends.slurm.reasons import NODES_DOWN
from pytest_pdserve.backends.slurm.waiting import QueueWait
from pytest_pdserve.backends.slurm.waiting import Reporter
from pytest_pdserve.values.errors import AllocationError

_POLL_S = 0.2
_POLL_LATER_S = 1.0
_LATER_S = 10.0
"""From here on Slurm is asked less often."""
_FIRST_REPORT_S = 2.0


def wait_in_queue(job: str, wait: QueueWait, *, cluster: str, progress: Progress) -> float:
    """Wait until a job runs, or has ended before it did; *wait* then has its last state.

    :param cluster: the job's; empty is the login node's own.
    :returns: how long that took, seconds.
    :raises AllocationError: if it is given up.
    """
    began = time.monotonic()
    reporter = Reporter(progress, first_s=_FIRST_REPORT_S)
    asked = Controller(
        cluster, meanwhile=lambda: reporter.tick(lambda: wait.line(time.monotonic()))
    )
    while True:
        state = asked.job_state(job)
        if wait.see(state, time.monotonic(), asked.complaint):
            wait.see_nodes(asked.node_states([wait.nodes]))
            reporter.say(wait.requeued_text)
        if wait.over(time.monotonic()):
            _look_closer(asked, job, wait)
            return time.monotonic() - began
        trouble = wait.trouble(time.monotonic())
        if trouble or reporter.due:
            _look_closer(asked, job, wait)
        if trouble:
            raise AllocationError(wait.trouble(time.monotonic()))
        reporter.tick(lambda: wait.line(time.monotonic()))
        time.sleep(_POLL_S if time.monotonic() - began < _LATER_S else _POLL_LATER_S)


def _look_closer(asked: Controller, job: str, wait: QueueWait) -> None:
    """Ask for what is said of a job beside its state: its place in the queue, or its nodes."""
    state = wait.state
    if wait.wants_nodes:
        wait.see_nodes(asked.node_states([wait.nodes]))
    if state is not None and state.pending and not state.configuring:
        wait.place = asked.queue_place(job, state.partition)
        if state.why is NODES_DOWN:
            wait.see_nodes(asked.node_states([], state.partition))
