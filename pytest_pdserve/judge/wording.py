"""The message of a verdict: value, reference, change, confirmation, first night."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.judge.cells import MetricVerdict
from pytest_pdserve.judge.limits import Reference
from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import RULE


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFacts:
    """Facts that a verdict's message states besides its numbers."""

    cells: int | None = None
    """Number of cells of a topology's median; None for a single cell."""
    nights: Sequence[str] = ()
    """Earlier nights of the cell or topology, newest first."""
    differences: str = ""
    """What differs from the baseline, e.g. ``vLLM 0.15.1 -> 0.15.2``; empty if unknown."""
    node: str = ""
    """A sentence about the node that all slow runs and no other runs used; empty without one."""
    run: str = "start"
    """``start`` if every run had freshly started servers, ``run`` if the servers stay up."""
    one_night_is_enough: bool = True
    """True if a single night may FAIL on this system."""
    why_unconfirmed: str = ""
    """Why a suspicious cell was not run again; empty if it was."""


def percent(fraction: float) -> str:
    """Return a signed change, e.g. ``+10.6 %``."""
    return f"{100 * fraction:+.1f}".removesuffix(".0") + " %"


def number(value: float) -> str:
    """Return a value with four significant digits, or all digits of its integer part."""
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def describe(verdict: MetricVerdict, facts: MessageFacts) -> str:
    """Return the message about a metric that is not a PASS."""
    sentences = [f"{_numbers(verdict, facts)}.", f"{_confirmation(verdict, facts)}."]
    if verdict.status is Status.FAIL:
        changed = facts.differences and f"; {facts.differences} since the baseline"
        sentences.append(f"{_since(verdict, facts)}{changed}.")
        if facts.node:
            sentences.append(f"{facts.node}.")
    elif verdict.expected is not None:
        entry = verdict.expected
        sentences.append(f"Expected until {entry.until} ({entry.owner}: {entry.reason}).")
    elif verdict.status is Status.SUSPICIOUS:
        sentences.append(f"{_what_settles_it(verdict, facts)}.")
    return " ".join(sentences)


def _numbers(verdict: MetricVerdict, facts: MessageFacts) -> str:
    metric, reference = METRICS[verdict.metric], verdict.tonight.reference
    change = percent(as_change(verdict.tonight.change, metric.better))
    limit = percent(as_change(reference.limit, metric.better))
    of = nights_text(reference)
    if facts.cells is not None:
        return f"{metric.name} over {facts.cells} cells, reference of {of}: {change}, limit {limit}"
    value = number(as_value(reference.median + verdict.tonight.change, metric.better))
    before = number(as_value(reference.median, metric.better))
    return (
        f"{metric.name} {value} {metric.unit}, reference {before} {metric.unit} ({of}): {change}, "
        f"limit {limit}"
    )


def nights_text(reference: Reference) -> str:
    """Return the number of nights of a reference, and whether it is provisional."""
    several = "" if reference.nights == 1 else "s"
    provisional = ", provisional" if reference.is_provisional else ""
    return f"{reference.nights} night{several}{provisional}"


def _confirmation(verdict: MetricVerdict, facts: MessageFacts) -> str:
    better, changes = METRICS[verdict.metric].better, verdict.tonight.changes
    ends = sorted((as_change(change, better) for change in changes), key=abs)
    if len(changes) >= RULE.max_runs:
        span = percent(ends[-1])
        if percent(ends[0]) != span:
            span = f"{percent(ends[0]).removesuffix(' %')} to {span}"
        return f"Confirmed by {len(changes)} {facts.run}s ({span})"
    several = "s" if len(changes) > 1 else ""
    why = f": {facts.why_unconfirmed}" if facts.why_unconfirmed else ""
    return f"Seen in {len(changes)} {facts.run}{several}; it takes {RULE.max_runs} to confirm{why}"


def _since(verdict: MetricVerdict, facts: MessageFacts) -> str:
    if verdict.since is None:
        return "First seen tonight"
    oldest = verdict.since == len(facts.nights) - 1
    more = "at least " if oldest and len(facts.nights) >= RULE.false_alarm_nights else ""
    first = facts.nights[verdict.since]
    return f"Seen on {more}{verdict.nights + 1} nights in a row, first on {first}"


def _what_settles_it(verdict: MetricVerdict, facts: MessageFacts) -> str:
    tonight = verdict.tonight
    if tonight.is_alarm and not facts.one_night_is_enough:
        return (
            "One night alone does not FAIL on this system, because earlier alarms were gone the "
            "next night; the next night settles it"
        )
    share = (
        "" if tonight.change > tonight.reference.limit else "More than two thirds of the limit; the"
    )
    return f"{share or 'The'} next night settles it: FAIL if it is suspicious too"
