"""The nightly rule: which metrics are run again, and the verdict on each of them. Pure.

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
class MetricNight:
    """One metric of a cell, or of a topology, in one night."""

    reference: Reference
    changes: tuple[float, ...]
    """Distance of each run from the reference, signed log, positive is worse; one run of each fresh
    start, in the order of the starts."""
    passed: bool = False
    """True if the night joined the baseline, as only a PASS does. Such a night is never suspicious,
    even if the limits have become narrower since."""

    @property
    def is_suspicious(self) -> bool:
        """True if every run of the night is suspicious."""
        if self.passed or not self.changes:
            return False
        return min(self.changes) > self.reference.suspicious_from

    @property
    def wants_run(self) -> bool:
        """True if one more run on a fresh start is needed for a verdict."""
        return self.is_suspicious and len(self.changes) < RULE.max_runs

    @property
    def is_alarm(self) -> bool:
        """True if the night alone shows that the metric is worse."""
        confirmed = self.is_suspicious and len(self.changes) >= RULE.max_runs
        return confirmed and self.change > self.reference.fail_limit

    @property
    def change(self) -> float:
        """Median change of the night, signed log."""
        return statistics.median(self.changes)


def judge(tonight: MetricNight, before: MetricNight | None, *, one_night_is_enough: bool) -> Status:
    """Return PASS, SUSPICIOUS or FAIL for one metric.

    :param before: the same metric in the last night that measured it; None if there is none.
    :param one_night_is_enough: whether an alarm FAILs on its first night; see :func:`false_alarms`.
    """
    if not tonight.is_suspicious:
        return Status.PASS
    if tonight.is_alarm and one_night_is_enough:
        return Status.FAIL
    if before is not None and before.is_suspicious:
        return Status.FAIL
    return Status.SUSPICIOUS


def false_alarms(nights: Sequence[Mapping[T, MetricNight]]) -> int:
    """Return the number of nights with an alarm that the next measurement did not repeat.

    :param nights: the metrics of each night, oldest night first.
    """
    count = 0
    for index, night in enumerate(nights[:-1]):
        for metric, metric_night in night.items():
            later = (after[metric] for after in nights[index + 1 :] if metric in after)
            following = next(later, None)
            if metric_night.is_alarm and following is not None and not following.is_suspicious:
                count += 1
                break
    return count


def is_better(nights: Sequence[MetricNight]) -> bool:
    """Return whether a metric has been better than its reference by more than the limit.

    It is decided by the last :attr:`Rule.better_nights` nights.

    :param nights: nights of the metric, newest first, starting with tonight.
    """
    newest = nights[: RULE.better_nights]
    if len(newest) < RULE.better_nights:
        return False
    return statistics.median(night.changes[0] for night in newest) < -newest[0].reference.limit


def median_change(changes: Mapping[T, float]) -> float | None:
    """Return the change of a topology: the median of its cells; None for fewer than two cells.

    :param changes: signed log by cell.
    """
    return statistics.median(changes.values()) if len(changes) > 1 else None
