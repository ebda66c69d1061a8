"""What a page tells first: verdicts by what they ask of their reader, the worst first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.report.page.text import change_text
from pytest_pdserve.report.page.text import shortened
from pytest_pdserve.values.report import MetricReport
from pytest_pdserve.values.report import Outcome
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import Since
from pytest_pdserve.values.report import VerdictReport

MOST = 40
"""Verdicts of a group that are told in full; the tables below have all of them."""
_LONGEST = 140
"""Characters of the page's title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Verdicts under one heading."""

    id: str
    """Anchor of its heading."""
    title: str
    """Heading."""
    about: str
    """What these verdicts have in common, a sentence."""
    verdicts: tuple[VerdictReport, ...]
    """All of them, the worst first."""

    @property
    def shown(self) -> tuple[VerdictReport, ...]:
        """Those that are told in full."""
        return self.verdicts[:MOST]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A metric that is better than its reference."""

    of: str
    """Its cell or topology."""
    metric: MetricReport
    """The metric."""


_GROUPS: tuple[tuple[str, str, str, tuple[Outcome, ...]], ...] = (
    ("failed", "Failed", "", ("FAIL", "ERROR")),
    (
        *("unsettled", "Suspicious"),
        "Worse, but not yet proven to be: the next night settles it.",
        ("SUSPICIOUS", "INCONCLUSIVE"),
    ),
    (
        *("known", "Known and not enforced"),
        "Worse as a file of expected changes says, or not enforced on this system.",
        ("EXPECTED", "REPORTED"),
    ),
    ("new", "New", "These have no reference yet.", ("NEW",)),
)
_ANCHORS = {outcome: id_ for id_, _, _, outcomes in _GROUPS for outcome in outcomes}


def groups_of(report: Report) -> dict[str, Group]:
    """Return the groups by id, each with its verdicts, even where it has none."""
    return {
        id_: Group(
            id=id_,
            title=title,
            about=about,
            verdicts=tuple(each for each in report.verdicts if each.status in outcomes),
        )
        for id_, title, about, outcomes in _GROUPS
    }


def anchor_of(outcome: Outcome) -> str:
    """Return the id of the section that tells of an outcome."""
    not_judged = outcome in ("NOT JUDGED", "NOT ASKED", "MEASURED")
    return _ANCHORS.get(outcome, "not-judged" if not_judged else "verdicts")


def gains_of(report: Report) -> list[Gain]:
    """Return metrics that are better by more than their limit, or have been for some nights.

    The largest gain comes first.
    """
    gains = [
        Gain(of=said.title, metric=metric)
        for said in report.verdicts
        for metric in said.metrics
        if metric.improved or _is_gain(metric)
    ]
    return sorted(gains, key=lambda gain: -abs(gain.metric.change or 0.0))


def _is_gain(metric: MetricReport) -> bool:
    change, limit = metric.change, metric.limit
    if change is None or limit is None or metric.void or not math.isfinite(change):
        return False
    return change * limit < 0 and abs(change) > abs(limit)


def page_title(report: Report) -> str:
    """Return the title of a page: the verdict, the worst failure, the system.

    Where nothing failed, it is the report's first line.
    """
    worst = next((each for each in report.verdicts if each.status in ("FAIL", "ERROR")), None)
    said = "" if worst is None else _worst(worst)
    if not said and report.status == "ERROR" and report.errors and report.measured:
        said = f"{report.errors[0].subject}: {report.errors[0].why}"
    if not said:
        return shortened(report.headline, _LONGEST)
    line = " ".join(f"{report.status}: {said}".split())
    return f"{shortened(line, _LONGEST - 20)} · {shortened(report.system, 40)}"


def _worst(said: VerdictReport) -> str:
    """Return a failure in few words."""
    metric = worst_metric(said.metrics, said.status)
    if metric is not None:
        return f"{said.title} {metric.metric} {change_text(metric.change)}"
    return f"{said.title}: {said.misses[0]}" if said.misses else said.title


def worst_metric(metrics: Sequence[MetricReport], status: Outcome) -> MetricReport | None:
    """Return the metric with that verdict whose change is the largest, in limits."""
    return max(
        (each for each in metrics if each.status == status and each.change is not None),
        key=_in_limits,
        default=None,
    )


def _in_limits(metric: MetricReport) -> float:
    change, limit = metric.change or 0.0, metric.limit or 0.0
    return abs(change / limit) if limit and math.isfinite(change) else 0.0


def judged_metrics(said: VerdictReport) -> Iterator[MetricReport]:
    """Yield the metrics of a verdict that its reader looks at: those held against a reference."""
    yield from (each for each in said.metrics if each.status is not None or each.void)


def also_worse(said: VerdictReport) -> list[MetricReport]:
    """Return the metrics that a verdict names after its first, where it names nothing else."""
    found = [each for each in said.metrics if each.status not in (None, "PASS")]
    return found[1:] if len(found) == len(said.misses) else []


def since_of(said: VerdictReport) -> Since | None:
    """Return since when the first worse metric of a verdict is worse; None if unknown."""
    return next((each.since for each in said.metrics if each.since is not None), None)
