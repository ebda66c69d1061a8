"""Finds in a job's log why Slurm ended the job, for when Slurm has no record of it any more."""

from __future__ import annotations

import re

_CAUSES = (
    (re.compile(r"Node failure on (?P<node>\S+)"), "node {node} failed"),
    (re.compile(r"CANCELLED AT \S+ DUE TO NODE FAILURE"), "a node failed"),
    (re.compile(r"CANCELLED AT \S+ DUE TO TIME LIMIT"), "it reached its time limit"),
    (re.compile(r"CANCELLED AT \S+ DUE TO PREEMPTION"), "another job preempted it"),
    (re.compile(r"CANCELLED AT \S+ DUE TO JOB REQUEUE"), "it was requeued"),
    (re.compile(r"Exceeded job memory limit|oom[-_ ]kill", re.IGNORECASE), "it ran out of memory"),
    (re.compile(r"(?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ \*\*\*"), "it was cancelled"),
)
"""Messages of Slurm's daemons and the cause of each, the most specific first."""


def cause_in_log(text: str) -> str:
    """Return why Slurm ended a job, as a clause; empty if its log has no known message."""
    for pattern, words in _CAUSES:
        if found := pattern.search(text):
            return words.format(**found.groupdict())
    return ""
