"""Groups of verdicts in the order in which a page shows them, and the title of the page."""

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

MAX_SHOWN = 40
"""Verdicts of a group that are shown in full; the tables below have all of them."""
_MAX_TITLE = 140
"""Characters of the page's title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Verdicts under one heading."""

    id: str
    """Anchor of its heading."""
    title: str
    """Heading."""
    about: str
    """What these verdicts have in common, one sentence."""
    verdicts: tuple[VerdictReport, ...]
    """All of them, the worst first."""

    @property
    def shown(self) -> tuple[VerdictReport, ...]:
        """Those that are shown in full."""
        return self.verdicts[:MAX_SHOWN]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A metric that is better than its reference."""

    of: VerdictReport
    """Verdict on its cell or topology."""
    metric: MetricReport
    """The metric."""


_GROUPS: tuple[tuple[str, str, str, tuple[Outcome, ...]], ...] = (
    ("failed", "Failed", "", ("FAIL", "ERROR")),
    (
        *("unsettled", "Suspicious"),
        "Worse, but not by enough, or on too few starts, to FAIL: the next night decides.",
        ("SUSPICIOUS", "INCONCLUSIVE"),
    ),
    (
        *("known", "Known and not enforced"),
        "Worse, but listed in expected.toml or not enforced on this system.",
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
    """Return the id of the section that shows an outcome."""
    not_judged = outcome in ("NOT JUDGED", "NOT ASKED", "MEASURED")
    return _ANCHORS.get(outcome, "not-judged" if not_judged else "verdicts")


def gains_of(report: Report) -> list[Gain]:
    """Return metrics that are better by more than their limit, or have been for some nights.

    The largest gain comes first.
    """
    gains = [
        Gain(of=verdict, metric=metric)
        for verdict in report.verdicts
        for metric in verdict.metrics
        if metric.improved or metric.improved_tonight
    ]
    return sorted(gains, key=lambda gain: -abs(gain.metric.change or 0.0))


def page_title(report: Report) -> str:
    """Return the title of a page: the verdict, the worst failure, the system.

    Where nothing failed, it is the report's first line.
    """
    worst = next((each for each in report.verdicts if each.status in ("FAIL", "ERROR")), None)
    text = "" if worst is None else _summary(worst)
    if not text and report.status == "ERROR" and report.errors and report.measured:
        text = f"{report.errors[0].subject}: {report.errors[0].why}"
    if not text:
        return shortened(report.headline, _MAX_TITLE)
    line = " ".join(f"{report.status}: {text}".split())
    return f"{shortened(line, _MAX_TITLE - 20)} · {shortened(report.system, 40)}"


def _summary(verdict: VerdictReport) -> str:
    """Return a short text on a failure."""
    metric = worst_metric(verdict.metrics, verdict.status)
    if metric is not None:
        return f"{verdict.title} {metric.metric} {change_text(metric.change)}"
    return f"{verdict.title}: {verdict.misses[0]}" if verdict.misses else verdict.title


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


def judged_metrics(verdict: VerdictReport) -> Iterator[MetricReport]:
    """Yield the metrics of a verdict that were compared with a reference, and void ones."""
    yield from (each for each in verdict.metrics if each.status is not None or each.void)


def also_worse(verdict: VerdictReport) -> list[MetricReport]:
    """Return the worse metrics after the first, if all misses of a verdict are metrics."""
    found = [each for each in verdict.metrics if each.status not in (None, "PASS")]
    return found[1:] if len(found) == len(verdict.misses) else []


def since_of(verdict: VerdictReport) -> Since | None:
    """Return since when the first worse metric is worse; None if unknown."""
    return next((each.since for each in verdict.metrics if each.since is not None), None)
