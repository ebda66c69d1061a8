"""Waits for a submitted job to start: queries Slurm, and lets :mod:`.waiting` decide."""

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
"""Time after which Slurm is queried less often."""
_FIRST_REPORT_S = 2.0


def wait_in_queue(job: str, wait: QueueWait, *, cluster: str, progress: Progress) -> float:
    """Wait until a job runs, or has ended before it ran; *wait* then has its last state.

    :param cluster: the job's; empty is the login node's own.
    :returns: the time that the wait took, seconds.
    :raises AllocationError: if the job cannot start, or not within the limit.
    """
    began = time.monotonic()
    reporter = Reporter(progress, first_s=_FIRST_REPORT_S)
    controller = Controller(
        cluster, meanwhile=lambda: reporter.tick(lambda: wait.line(time.monotonic()))
    )
    while True:
        state = controller.job_state(job)
        if wait.update(state, time.monotonic(), controller.error):
            wait.update_nodes(controller.node_states([wait.nodes]))
            reporter.report(wait.requeued_text)
        if wait.over(time.monotonic()):
            _query_details(controller, job, wait)
            return time.monotonic() - began
        trouble = wait.trouble(time.monotonic())
        if trouble or reporter.due:
            _query_details(controller, job, wait)
        if trouble:
            raise AllocationError(wait.trouble(time.monotonic()))
        reporter.tick(lambda: wait.line(time.monotonic()))
        time.sleep(_POLL_S if time.monotonic() - began < _LATER_S else _POLL_LATER_S)


def _query_details(controller: Controller, job: str, wait: QueueWait) -> None:
    """Query the job's position in the queue, or the states of its nodes."""
    state = wait.state
    if wait.wants_nodes:
        wait.update_nodes(controller.node_states([wait.nodes]))
    if state is not None and state.pending and not state.configuring:
        wait.place = controller.queue_place(job, state.partition)
        if state.why is NODES_DOWN:
            wait.update_nodes(controller.node_states([], state.partition))
