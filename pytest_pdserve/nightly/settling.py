"""Slow stack or slow nodes? One run of the baseline's stack on tonight's nodes settles it. Pure.

Both slow is trouble with the nodes; only tonight's stack slow is a regression.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.nightly.observations import Observation
from pytest_pdserve.values.baseline import LABELS
from pytest_pdserve.values.nightly import Followed
from pytest_pdserve.values.report import Report

_SLOW = ("worse", "suspicious")


def stack_before(report: Report) -> str:
    """Return the stack of the baseline's newest session, as ``--pdserve-stack`` takes it.

    :returns: empty where it is tonight's, or is not known, or was a container image.
    """
    labels = {label: name for name, label in LABELS}
    before = {labels.get(each.what, each.what): each.before for each in report.differences}
    pins = {name: before[name] for name, _ in LABELS if name in before}
    if not pins or "unknown" in pins.values() or "image" in before:
        return ""
    return " ".join(f"{name}=={version}" for name, version in pins.items())


def suspects(
    seen: Mapping[str, Observation], followed: Collection[Followed]
) -> tuple[Observation, ...]:
    """Return what is slow tonight and was no regression before."""
    known = {each.key for each in followed if each.confirmed}
    return tuple(
        each
        for each in seen.values()
        if each.group == "speed" and each.seen in _SLOW and each.key not in known
    )


def topologies(found: Collection[Observation]) -> str:
    """Return the topologies that must run once more, as ``--topology`` takes them."""
    return ",".join(sorted({each.topology for each in found}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a run of the baseline's stack on tonight's nodes showed."""

    seen: Mapping[str, Observation]
    """What can be a regression: without what the nodes explain."""
    troubles: tuple[str, ...] = ()
    """What the nodes explain, a sentence each."""


def settle(
    seen: Mapping[str, Observation],
    before: Mapping[str, Observation],
    followed: Collection[Followed],
) -> Settled:
    """Tell slow nodes from a slow stack, for all that is slow tonight and was not before.

    :param before: what the baseline's stack showed on tonight's nodes, by key. What it did not
        measure is not settled, and stays as it is.
    """
    left, said = dict(seen), []
    for each in suspects(seen, followed):
        other = before.get(each.key)
        if other is None or other.seen == "unmeasured":
            continue
        if other.seen in _SLOW:
            left[each.key] = replace(each, seen="unmeasured")
            said.append(
                f"{each.title}, and so is the baseline's stack on tonight's nodes: "
                f"{other.evidence[0] if other.evidence else ', '.join(other.metrics)}"
            )
        elif other.seen == "fine":
            word = "The baseline's stack, run on tonight's nodes too, was not slower there."
            left[each.key] = replace(each, evidence=(*each.evidence, word))
    return Settled(seen=left, troubles=tuple(said))
