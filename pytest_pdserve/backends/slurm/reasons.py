"""Explanations of Slurm's reason codes: why a job waits, and whether it can still start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Outlook(Enum):
    """Prospects of a job that waits longer."""

    CLEARS = "may clear by itself"
    NEEDS_CHANGE = "stays until a user or administrator changes something"
    NEVER = "cannot clear: the job is not allowed as it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Reason for which a job waits."""

    code: str
    """Slurm's code, e.g. ``Priority``; empty if there is none."""
    words: str
    """The meaning of the code, as a clause."""
    outlook: Outlook

    @property
    def text(self) -> str:
        """The clause with Slurm's code, as in its manual."""
        return f"{self.words} ({self.code})" if self.code else self.words


NO_REASON = Reason(code="", words="Slurm gives no reason", outlook=Outlook.CLEARS)
_NO_REASON = frozenset({"", "none", "null", "n/a"})

_CLEARS = {
    "Priority": "jobs of higher priority go first",
    "Resources": "the nodes it asks for are not free yet",
    "Dependency": "a job that it depends on has not ended yet",
    "BeginTime": "its begin time has not come yet",
    "Licenses": "licenses that it asks for are in use",
    "Reservation": "its reservation has not begun or has no free nodes",
    "Prolog": "the prolog runs on its nodes",
    "Cleaning": "an earlier run of it is being cleaned up",
    "MaxPoweredUpNodes": "as many nodes are powered up as the site allows",
    "FrontEndDown": "no front end node is up",
    "QOSUsageThreshold": "the usage of its QOS or account is beyond a threshold",
    "AssociationJobLimit": "its association has reached its limit of jobs",
    "AssociationResourceLimit": "its association has reached a limit of resources",
    "AssociationTimeLimit": "its association has reached its limit of time",
    "QOSJobLimit": "its QOS has reached its limit of jobs",
    "QOSResourceLimit": "its QOS has reached a limit of resources",
    "QOSTimeLimit": "its QOS has reached its limit of time",
}
_NEEDS_CHANGE = {
    "AccountNotAllowed": "its account may not use the partition",
    "BadConstraints": "no nodes fit what it asks for",
    "BurstBufferOperation": "a burst buffer operation failed",
    "Constraints": "no nodes fit what it asks for",
    "InvalidAccount": "its account is not valid",
    "InvalidQOS": "its QOS is not valid",
    "JobHeldAdmin": "an administrator holds it",
    "JobHeldUser": "its user holds it",
    "JobHoldMaxRequeue": "it was requeued so often that Slurm holds it",
    "JobLaunchFailure": "it could not be launched",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is inactive",
    "PartitionNodeLimit": "its partition does not give a job that many nodes",
    "QOSNotAllowed": "its QOS may not use the partition",
    "ReservationDeleted": "its reservation was deleted",
    "ReservationInvalid": "its reservation is not valid",
}
_NEVER = {
    "DeadLine": "it can no longer end before its deadline",
    "DependencyNeverSatisfied": "a job that it depends on ended in a way that rules it out",
    "MaxMemPerLimit": "it asks for more memory than its partition allows",
    "PartitionConfig": "its partition is not configured for what it asks for",
    "PartitionTimeLimit": "its time limit is longer than its partition allows",
}
KNOWN: Mapping[str, Reason] = MappingProxyType(
    {
        code.lower(): Reason(code=code, words=words, outlook=outlook)
        for table, outlook in (
            (_CLEARS, Outlook.CLEARS),
            (_NEEDS_CHANGE, Outlook.NEEDS_CHANGE),
            (_NEVER, Outlook.NEVER),
        )
        for code, words in table.items()
    }
)
"""Reasons by their codes in lower case; :func:`_limit` explains those of limits."""

NODES_DOWN = Reason(
    code="Resources",
    words="nodes it needs are down, drained or reserved for jobs of higher priority",
    outlook=Outlook.CLEARS,
)
"""A reason without the names of the nodes."""
_DESCRIPTIONS = {
    "nodes required for job are": NODES_DOWN,
    "launch failed requeued held": Reason(
        code="launch failed requeued held",
        words="it could not be launched, and Slurm holds it",
        outlook=Outlook.NEEDS_CHANGE,
    ),
}
"""Texts that Slurm prints instead of a code, by their beginning: old versions cut them off at 31
characters."""

_AMOUNTS = {
    "cpu": ("CPUs", "CPU minutes"),
    "node": ("nodes", "node minutes"),
    "mem": ("memory", "memory minutes"),
    "memory": ("memory", "memory minutes"),
    "gres": ("GPUs or other GRES", "GPU or other GRES minutes"),
    "license": ("licenses", "license minutes"),
    "billing": ("billing units", "billing minutes"),
    "bb": ("burst buffer space", "burst buffer minutes"),
    "energy": ("energy", "energy minutes"),
    "unknown": ("resources", "resource minutes"),
    "job": ("running jobs", ""),
    "submitjob": ("submitted jobs", ""),
    "wall": ("wall time", ""),
    "wallduration": ("wall time", ""),
}
"""Resources that limits count, and the same multiplied by time."""
_LIMIT = re.compile(
    r"(?P<whose>qos|assoc|)(?P<kind>grp|max|min)"
    rf"(?P<what>{'|'.join(sorted(_AMOUNTS, reverse=True))})s?"
    r"(?P<run>run)?(?P<minutes>min(?:ute)?s)?(?P<per>per(?:job|node|user|account))?"
    r"(?:limit|notsatisfied)?",
    re.IGNORECASE,
)


def explain(reason_text: str) -> Reason:
    """Return the meaning of Slurm's reason for a waiting job.

    :param reason_text: as ``squeue`` prints it, in brackets or not; ``None`` is no reason.
    """
    text = reason_text.strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    lower = text.lower()
    if lower in _NO_REASON:
        return NO_REASON
    for beginning, reason in _DESCRIPTIONS.items():
        if lower.startswith(beginning):
            return reason
    code, _, detail = text.partition(",")
    if code.lower() == "reqnodenotavail":
        return _not_available(code, detail.strip())
    unknown = Reason(code="", words=f"Slurm's reason is {text!r}", outlook=Outlook.CLEARS)
    return KNOWN.get(lower) or _limit(text) or unknown


def _not_available(code: str, detail: str) -> Reason:
    """Return the reason of a job whose nodes are down, drained or reserved."""
    label, _, nodes = detail.partition(":")
    which = nodes.strip() if label.startswith("Unavail") else detail
    words = "nodes that it needs are not available now"
    return Reason(code=code, words=f"{words}: {which}" if which else words, outlook=Outlook.CLEARS)


def _limit(code: str) -> Reason | None:
    """Return the reason of a job that exceeds a limit of its QOS or association.

    A limit of one job does not change while the job waits; a limit of all jobs of a user, an
    account or a QOS clears when others end.
    """
    found = _LIMIT.fullmatch(code)
    if found is None:
        return None
    kind, what = found["kind"].lower(), found["what"].lower()
    per = (found["per"] or "").lower().removeprefix("per")
    whose = "its association" if found["whose"].lower() == "assoc" else "its QOS"
    amount = _AMOUNTS[what][1 if found["minutes"] else 0]
    if kind == "min" or per in ("job", "node"):
        words = _outside(kind, amount, where=" per node" if per == "node" else "", whose=whose)
        return Reason(code=code, words=words, outlook=Outlook.NEVER)
    whom = {"user": " a user", "account": " an account"}.get(per, " in total" * (kind == "grp"))
    allowed = f"{whose} allows{whom}"
    if what.endswith("job"):
        has = f"its {per or 'user'} has" if kind == "max" else "there are"
        words = f"{has} as many {amount} as {allowed}"
    elif what == "wall" or (found["minutes"] and not found["run"]):
        words = f"past jobs used up the {amount} that {allowed}"
    else:
        words = (
            f"running jobs{f' of its {per}' if per else ''} hold all the {amount} that {allowed}"
        )
    return Reason(code=code, words=words, outlook=Outlook.CLEARS)


def _outside(kind: str, amount: str, *, where: str, whose: str) -> str:
    """Return the clause for a job that exceeds a limit by itself."""
    if kind == "min":
        return f"it asks for less than the minimum of {amount} that {whose} requires"
    if amount == "wall time":
        return f"its time limit is longer than {whose} allows a job"
    return f"it asks for more {amount}{where} than {whose} allows a job"
