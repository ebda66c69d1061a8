"""First night on which a metric was worse, and what else changed on that night. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.judge.cells import MetricVerdict
from pytest_pdserve.values.baseline import LABELS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.report import Difference
from pytest_pdserve.values.report import Since
from pytest_pdserve.values.rules import RULE

_LABELS = dict(LABELS)
_MAX_CHANGES = 6
"""Differences that a sentence lists; it counts the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRuns:
    """The runs of a cell or a topology in one night."""

    name: str
    """Name of the night in verdicts."""
    runs: Sequence[Record]
    """At least one."""


def since_when(verdict: MetricVerdict, tonight: NightRuns, before: Sequence[NightRuns]) -> Since:
    """Return the first night on which a metric was worse, and what changed on that night.

    :param before: the earlier nights that the verdict considered, newest first.
    """
    place = -1 if verdict.since is None else verdict.since
    first = tonight if place < 0 else before[place]
    last = next((n for n in before[place + 1 :] if _measured(verdict.metric, n)), None)
    return Since(
        night=first.name,
        nights=verdict.nights + 1,
        at_least=last is None and len(before) >= RULE.false_alarm_nights,
        before=last.name if last else "",
        changes=tuple(_changes(last.runs, first.runs)) if last else (),
        nodes_known=last is None or bool(_nodes(last.runs) and _nodes(first.runs)),
    )


def _measured(metric: str, night: NightRuns) -> bool:
    return any(run.value(metric) is not None for run in night.runs)


def _changes(before: Sequence[Record], now: Sequence[Record]) -> Iterator[Difference]:
    """Yield the versions and the nodes that differ between the runs of two nights."""
    old, new = before[0].versions, now[0].versions
    order = [*_LABELS, *sorted({*old, *new} - _LABELS.keys())]
    for name in order:
        if old.get(name) != new.get(name):
            yield Difference(
                what=_LABELS.get(name, name),
                before=old.get(name, "unknown"),
                now=new.get(name, "unknown"),
            )
    old_nodes, new_nodes = _nodes(before), _nodes(now)
    if old_nodes and new_nodes and old_nodes != new_nodes:
        yield Difference(what="nodes", before=", ".join(old_nodes), now=", ".join(new_nodes))


def _nodes(runs: Sequence[Record]) -> list[str]:
    return sorted({node for run in runs for node in run.nodes})


def since_text(since: Since) -> str:
    """Return one sentence: the first night, the night before it, and what changed between them."""
    count = f"{'at least ' if since.at_least else ''}{since.nights} nights in a row"
    first = f"first seen on {since.night}" + (f" ({count})" if since.nights > 1 else "")
    if not since.before:
        return f"{first}; no earlier night to compare it with"
    changed = [
        f"{change.what} {change.before} -> {change.now}" for change in since.changes[:_MAX_CHANGES]
    ]
    more = len(since.changes) - _MAX_CHANGES
    changed += [f"{more} more"] if more > 0 else []
    unknown = "" if since.nodes_known else "; the nodes are not recorded"
    if not changed:
        nothing = "no version and no node changed" if since.nodes_known else "no version changed"
        return f"{first}; since the night before, {since.before}, {nothing}{unknown}"
    return f"{first}; changed since the night before, {since.before}: {', '.join(changed)}{unknown}"
