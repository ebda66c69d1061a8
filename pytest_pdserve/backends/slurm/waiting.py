"""Decides what to report about a job in the queue, and when to stop waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.slurm.job_state import JobState
from pytest_pdserve.backends.slurm.node_states import NodeState
from pytest_pdserve.backends.slurm.node_states import nodes_text
from pytest_pdserve.backends.slurm.reasons import NODES_DOWN
from pytest_pdserve.backends.slurm.reasons import Outlook

REPORT_S = 15.0
"""Longest time without a progress line, seconds."""
HOPELESS_S = 10.0
"""Time after which a reason that needs a change by a person is final, seconds."""
ENDING_S = 10.0
"""Time for Slurm to report why it ends a job, seconds."""
_LINE_AFTER_S = REPORT_S - 3.0
"""Time after which a line is due; less than the limit, as the next query to Slurm takes time."""
_MINUTES_FROM_S = 180.0
"""Longer times are shown in minutes."""


class Reporter:
    """Prints a progress line after *first_s*, and then at least every :data:`REPORT_S`."""

    def __init__(
        self,
        progress: Progress,
        *,
        first_s: float = _LINE_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress = progress
        self._clock = clock
        self._due_s = clock() + first_s

    @property
    def due(self) -> bool:
        """True if a progress line is due."""
        return self._clock() >= self._due_s

    def tick(self, text: Callable[[], str]) -> None:
        """Print *text* if a line is due."""
        if self.due:
            self.report(text())

    def report(self, text: str) -> None:
        """Print *text* now."""
        self._due_s = self._clock() + _LINE_AFTER_S
        self._progress(text)


class QueueWait:
    """State of a job in the queue, as far as it is known."""

    def __init__(
        self, job: str, *, partition: str, limit_s: float, source: str, now_s: float
    ) -> None:
        self.state: JobState | None = None
        """Last known state; None before Slurm's first answer."""
        self.place: tuple[int, int] | None = None
        """Position in the queue of its partition, and that queue's length; None if unknown."""
        self.nodes = ""
        """Host list of its last nodes; empty if it had none yet."""
        self._job = job
        self._partition = partition
        self._limit_s = limit_s
        self._source = source
        self._began_s = self._since_s = self._answered_s = now_s
        self._starting_s = 0.0
        self._hopeless_s: float | None = None
        self._error = ""
        self._states: tuple[NodeState, ...] = ()
        self._bad: tuple[NodeState, ...] = ()

    def update(self, state: JobState | None, now_s: float, error: str = "") -> bool:
        """Store the job's current state.

        :param state: None if Slurm does not answer.
        :param error: Slurm's error if it does not answer.
        :returns: whether the job lost its nodes and is in the queue again.
        """
        if state is None:
            self._error = error
            return False
        before, self.state, self._answered_s = self.state, state, now_s
        if before is None or before.state != state.state:
            if before is not None and before.configuring:
                self._starting_s = now_s - self._since_s
            self._since_s = now_s
        if state.nodes and state.nodes != self.nodes:
            self.nodes, self._states, self._bad = state.nodes, (), ()
        if not (state.pending and state.why.outlook is Outlook.NEEDS_CHANGE):
            self._hopeless_s = None
        elif self._hopeless_s is None:
            self._hopeless_s = now_s
        return before is not None and before.configuring and state.pending and not state.configuring

    def update_nodes(self, states: Sequence[NodeState]) -> None:
        """Store the states of the nodes that the job has or had."""
        self._states = tuple(states)
        self._bad = tuple(node for node in states if node.bad) or self._bad

    def over(self, now_s: float) -> bool:
        """Return whether the wait is over: the job runs, or has ended for a known reason."""
        if self.state is None or self.state.pending:
            return False
        return not self.state.ending or now_s - self._since_s > ENDING_S

    @property
    def wants_nodes(self) -> bool:
        """True if states of the job's nodes, current or former, would explain more."""
        state = self.state
        if state is None or not self.nodes:
            return False
        return state.configuring if state.pending else state.trouble(self._job) is not None

    def line(self, now_s: float) -> str:
        """Return a progress line."""
        if self.state is None or now_s - self._answered_s > REPORT_S:
            return f"Slurm job {self._job}: {self._silence(now_s)}"
        phase = self._phase(now_s)
        if self.place is not None and not self.state.configuring:
            phase += f", {self.place[0]} of {self.place[1]} in {self.state.partition}"
        start = f"; expected start {self.state.start}" if self._start_expected else ""
        return f"Slurm job {self._job} waits ({phase}): {self._why}{start}"

    def trouble(self, now_s: float) -> str | None:
        """Return why the session stops waiting; None if the job may still start."""
        state, job = self.state, self._job
        if state is not None and state.pending:
            hopeless = self._hopeless_s is not None and now_s - self._hopeless_s >= HOPELESS_S
            if hopeless or state.why.outlook is Outlook.NEVER:
                return f"Slurm job {job} cannot start: {state.why.text}; see [slurm] in " + (
                    self._source
                )
            if self._in_other_partition:
                return (
                    f"Slurm put job {job} into partition {state.partition!r}, expected "
                    f"{self._partition!r}; set [slurm] partition in {self._source} to the one "
                    "that it shall run in"
                )
        if now_s - self._began_s <= self._limit_s:
            return None
        silent = state is None or now_s - self._answered_s > REPORT_S
        why = self._silence(now_s) if silent else f"{self._phase(now_s)}, {self._why}"
        return f"Slurm job {job} did not start within {self._limit_s:g} s (slurm.queue_s): {why}"

    def end_reason(self, limit: str) -> str | None:
        """Return why the job ended before it ran, with the nodes that failed; None if it runs.

        :param limit: its time limit and where it is set.
        """
        trouble = self.state.trouble(self._job, limit) if self.state is not None else None
        if trouble is None or not self.nodes or not (self._bad or self._lost_nodes):
            return trouble
        when = f"; its nodes had been starting for {_span(self._starting_s)}"
        return f"{trouble}{when if self._starting_s else ''}: {self.nodes_in_trouble}"

    @property
    def requeued_text(self) -> str:
        """Progress line of a job that lost nodes before they were ready."""
        return (
            f"Slurm job {self._job} lost its nodes and waits again; they had been starting for "
            f"{_span(self._starting_s)}: {self.nodes_in_trouble}"
        )

    @property
    def nodes_in_trouble(self) -> str:
        """Nodes that the job has or had, with the trouble that Slurm reports."""
        if self._bad:
            return nodes_text(self._bad)
        return f"its nodes were {self.nodes}, and sinfo gives no reason for any"

    @property
    def _lost_nodes(self) -> bool:
        return self.state is not None and self.state.state in ("NODE_FAIL", "BOOT_FAIL")

    @property
    def _in_other_partition(self) -> bool:
        """True if a site's rule moved the job to a partition that was not requested."""
        assert self.state is not None
        actual = set(self.state.partition.split(",")) - {""}
        return bool(self._partition) and not actual <= set(self._partition.split(","))

    @property
    def _start_expected(self) -> bool:
        return self.state is not None and bool(self.state.start) and not self.state.configuring

    @property
    def _why(self) -> str:
        """Why the job waits."""
        assert self.state is not None
        if not self.state.configuring:
            bad = nodes_text(self._bad) if self.state.why is NODES_DOWN else ""
            return self.state.why.text + (f": {bad}" if bad else "")
        if not self._states:
            return f"its nodes power up or boot{f': {self.nodes}' if self.nodes else ''}"
        if late := [node for node in self._states if not node.ready]:
            return f"its nodes are not ready: {nodes_text(late)}"
        return f"its nodes are up and run the prolog: {self.nodes}"

    def _phase(self, now_s: float) -> str:
        assert self.state is not None
        return f"{self.state.state} for {_span(now_s - self._since_s)}"

    def _silence(self, now_s: float) -> str:
        error = f": {self._error}" if self._error else ""
        silent = _span(now_s - self._answered_s)
        return f"Slurm's controller has not answered for {silent}{error}"


def _span(seconds: float) -> str:
    """Return a time span as text, in seconds or minutes."""
    return f"{seconds:.0f} s" if seconds < _MINUTES_FROM_S else f"{seconds / 60:.0f} min"
