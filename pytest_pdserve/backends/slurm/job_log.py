"""What Slurm wrote to a job's log when it ended it: all that is left once it forgot the job."""

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
"""Causes by what Slurm's daemons write, the most telling first."""


def cause_in_log(text: str) -> str:
    """Return why Slurm ended a job, as a clause; empty if its log does not say."""
    for pattern, words in _CAUSES:
        if found := pattern.search(text):
            return words.format(**found.groupdict())
    return ""
