"""The state of a job as ``squeue`` reports it; Slurm's accounting is not needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pytest_pdserve.backends.slurm.reasons import NO_REASON
from pytest_pdserve.backends.slurm.reasons import Outlook
from pytest_pdserve.backends.slurm.reasons import Reason
from pytest_pdserve.backends.slurm.reasons import explain

GONE = "GONE"
"""State of a job that ``squeue`` no longer lists."""
STATES: Mapping[str, str] = MappingProxyType(
    {
        "BF": "BOOT_FAIL",
        "CA": "CANCELLED",
        "CD": "COMPLETED",
        "CF": "CONFIGURING",
        "CG": "COMPLETING",
        "DL": "DEADLINE",
        "F": "FAILED",
        "NF": "NODE_FAIL",
        "OOM": "OUT_OF_MEMORY",
        "PD": "PENDING",
        "PR": "PREEMPTED",
        "R": "RUNNING",
        "RD": "RESV_DEL_HOLD",
        "RF": "REQUEUE_FED",
        "RH": "REQUEUE_HOLD",
        "RQ": "REQUEUED",
        "RS": "RESIZING",
        "RV": "REVOKED",
        "S": "SUSPENDED",
        "SE": "SPECIAL_EXIT",
        "SI": "SIGNALING",
        "SO": "STAGE_OUT",
        "ST": "STOPPED",
        "TO": "TIMEOUT",
    }
)
"""Long name of each state by its short name."""
_RUNNING = frozenset({"RUNNING", "RESIZING", "SIGNALING"})
_HELD = {
    "REQUEUE_HOLD": "it was requeued, and Slurm holds it",
    "RESV_DEL_HOLD": "its reservation was deleted, and Slurm holds it",
    "SPECIAL_EXIT": "it was requeued after an exit code that the site holds jobs for",
}
_WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", *_HELD})
_ENDING = frozenset({"COMPLETING", "STAGE_OUT"})
_OVER = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", GONE, "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    }
)
_TROUBLES = {
    "TIMEOUT": "reached its time limit{limit}",
    "CANCELLED": "was cancelled from outside",
    "PREEMPTED": "was preempted by another job",
    "NODE_FAIL": "lost a node",
    "SUSPENDED": "was suspended",
    "STOPPED": "was stopped by a signal",
    "FAILED": "failed: a process that held a node ended",
    "COMPLETED": "ended on its own",
    "OUT_OF_MEMORY": "ran out of its memory",
    "BOOT_FAIL": "could not boot its nodes",
    "DEADLINE": "reached its deadline",
    "REVOKED": "was given to another cluster of the federation",
    "PENDING": "was requeued and waits again",
    "CONFIGURING": "was requeued and gets its nodes ready again",
    "REQUEUED": "was requeued",
    "REQUEUE_FED": "was requeued in the federation",
    "REQUEUE_HOLD": "was requeued and is held",
    "SPECIAL_EXIT": "was requeued and is held",
    "RESV_DEL_HOLD": "is held: its reservation was deleted",
    "COMPLETING": "is being ended by Slurm",
    "STAGE_OUT": "is being ended by Slurm",
    GONE: "is no longer known to Slurm",
}
_FORMAT = "%T|%r|%N|%u|%P|%S|%l|%L|%j"
_FIELDS_NEEDED = 5
_NARROWEST = 7
"""Minimum width to which a column may cut off a state."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_DURATION = re.compile(r"(\d+-)?\d+(:\d\d){0,2}|UNLIMITED")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """The state of a job, as ``squeue`` reports it."""

    state: str
    """Long name, e.g. ``RUNNING``; :data:`GONE` if Slurm no longer lists the job."""
    reason: str = ""
    """Slurm's reason why the job waits or ended, e.g. ``Resources``."""
    nodes: str = ""
    """Host list; empty while the job waits."""
    user: str = ""
    """Owner."""
    partition: str = ""
    """Partition; while the job waits, possibly several, separated by commas."""
    start: str = ""
    """Start time, or expected start time; local time of the cluster, empty if unknown."""
    time_limit: str = ""
    """E.g. ``4:00:00`` or ``UNLIMITED``; empty if unknown."""
    time_left: str = ""
    """Remaining time, in the same form; empty if unknown."""
    name: str = ""
    """Empty if unknown."""

    @property
    def pending(self) -> bool:
        """True if the job waits for its nodes, or until these are ready."""
        return self.state in _WAITING

    @property
    def configuring(self) -> bool:
        """True if the job has nodes that are not ready yet."""
        return self.state == "CONFIGURING"

    @property
    def why(self) -> Reason:
        """Why the job waits."""
        reason = explain(self.reason)
        if self.state in _HELD and reason.outlook is Outlook.CLEARS:
            return Reason(code=reason.code, words=_HELD[self.state], outlook=Outlook.NEEDS_CHANGE)
        return reason

    @property
    def over(self) -> bool:
        """True if the job has ended on all its nodes."""
        return self.state in _OVER

    @property
    def ending(self) -> bool:
        """True if Slurm is ending the job, and will soon report why."""
        return self.state in _ENDING

    def trouble(self, job: str, limit: str = "") -> str | None:
        """Return why a job that should run does not; None if it runs.

        :param limit: the job's time limit and where it is set; empty if unknown.
        """
        if self.state in _RUNNING:
            return None
        ending = _TROUBLES.get(self.state, f"is {self.state}")
        ending = ending.format(limit=f" of {limit}" if limit else "")
        named = explain(self.reason) is not NO_REASON
        return f"Slurm job {job} {ending}{f' ({self.reason})' if named else ''}"


def state_argv(job: str) -> list[str]:
    """Return the command that prints the state of a job, also after its end."""
    return ["squeue", "--noheader", f"--jobs={job}", "--states=all", f"--format={_FORMAT}"]


def parse_state(text: str) -> JobState:
    """Parse the output of :func:`state_argv`; lines of another form are skipped."""
    for line in text.splitlines():
        fields = [field.strip() for field in line.strip().split("|")]
        if len(fields) < _FIELDS_NEEDED:
            continue
        state, reason, nodes, user, partition, *more = fields
        start, limit, left, name = [*more, "", "", "", ""][:4]
        return JobState(
            state=state_name(state),
            reason=reason,
            nodes="" if nodes in ("(null)", "None assigned") else nodes,
            user=user,
            partition=partition,
            start=start if _TIME.fullmatch(start) else "",
            time_limit=limit if _DURATION.fullmatch(limit) else "",
            time_left=left if _DURATION.fullmatch(left) else "",
            name=name,
        )
    return JobState(state=GONE)


def state_name(text: str) -> str:
    """Return the long name of a state, in any form that Slurm's commands print.

    They print short names, cut long names off at the column's width (``OUT_OF_M``, ``CANCELL+``),
    and append who cancelled the job.
    """
    shown = text.strip().split(" ", 1)[0].upper()
    word = shown.rstrip("+")
    if word in STATES.values() or word in STATES:
        return STATES.get(word, word)
    cut = shown != word or len(word) >= _NARROWEST
    whole = [name for name in STATES.values() if cut and name.startswith(word)]
    return whole[0] if len(whole) == 1 else word
