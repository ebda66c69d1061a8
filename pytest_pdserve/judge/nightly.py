"""The nightly rule: which metrics are run again, and what is said of them. Pure.

docs/judging.md explains the rule; its constants are in :mod:`pytest_pdserve.values.rules`.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pytest_pdserve.judge.limits import Reference
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.rules import RULE

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One metric of a cell, or of a topology, in one night."""

    reference: Reference
    """What it is held against."""
    changes: tuple[float, ...]
    """Distance of each run from the reference, signed log, positive is worse; a run of each fresh
    start, in the order they were made."""
    passed: bool = False
    """Whether the night joined the baseline, as only a PASS does: limits have narrowed since."""

    @property
    def is_suspicious(self) -> bool:
        """Whether every run of the night is suspicious."""
        if self.passed or not self.changes:
            return False
        return min(self.changes) > self.reference.suspicious_from

    @property
    def wants_run(self) -> bool:
        """Whether one more run on a fresh start is needed to tell."""
        return self.is_suspicious and len(self.changes) < RULE.max_runs

    @property
    def is_alarm(self) -> bool:
        """Whether the night alone shows that the metric is worse."""
        confirmed = self.is_suspicious and len(self.changes) >= RULE.max_runs
        return confirmed and self.change > self.reference.fail_limit

    @property
    def change(self) -> float:
        """Median change of the night, signed log."""
        return statistics.median(self.changes)


def judge(tonight: Seen, before: Seen | None, *, one_night_is_enough: bool) -> Status:
    """Return PASS, SUSPICIOUS or FAIL.

    :param before: the same metric in the last night that measured it; None if there is none.
    :param one_night_is_enough: whether an alarm FAILs at once; see :func:`false_alarms`.
    """
    if not tonight.is_suspicious:
        return Status.PASS
    if tonight.is_alarm and one_night_is_enough:
        return Status.FAIL
    if before is not None and before.is_suspicious:
        return Status.FAIL
    return Status.SUSPICIOUS


def false_alarms(nights: Sequence[Mapping[T, Seen]]) -> int:
    """Return how many nights had an alarm that was gone when the metric was measured next.

    :param nights: what was seen of each metric, oldest night first.
    """
    count = 0
    for place, night in enumerate(nights[:-1]):
        for metric, seen in night.items():
            later = (after[metric] for after in nights[place + 1 :] if metric in after)
            following = next(later, None)
            if seen.is_alarm and following is not None and not following.is_suspicious:
                count += 1
                break
    return count


def is_better(nights: Sequence[Seen]) -> bool:
    """Tell whether a metric has been better than its reference by more than the limit.

    :param nights: of the metric, newest first, tonight the first of them.
    """
    newest = nights[: RULE.better_nights]
    if len(newest) < RULE.better_nights:
        return False
    return statistics.median(seen.changes[0] for seen in newest) < -newest[0].reference.limit


def median_change(changes: Mapping[T, float]) -> float | None:
    """Return the change of a topology: the median of its cells; None of fewer than two.

    :param changes: signed log by cell.
    """
    return statistics.median(changes.values()) if len(changes) > 1 else None
