"""Tell slow nodes from a slow stack by a run of the baseline's stack on tonight's nodes. Pure.

If both stacks are slow, the nodes are slow; if only tonight's is slow, it is a regression.
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

    :returns: empty if it is tonight's, is unknown, or was a container image.
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
    """Return what is slow tonight and was not a regression before."""
    confirmed_keys = {each.key for each in followed if each.confirmed}
    return tuple(
        each
        for each in seen.values()
        if each.group == "speed" and each.seen in _SLOW and each.key not in confirmed_keys
    )


def topologies(found: Collection[Observation]) -> str:
    """Return the topologies to run again, as ``--topology`` takes them."""
    return ",".join(sorted({each.topology for each in found}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Tonight's observations after the run of the baseline's stack."""

    seen: Mapping[str, Observation]
    """Observations by key; those that slow nodes explain are unmeasured."""
    troubles: tuple[str, ...] = ()
    """Slowness that the nodes explain, a sentence each."""


def settle(
    seen: Mapping[str, Observation],
    before: Mapping[str, Observation],
    followed: Collection[Followed],
) -> Settled:
    """Tell slow nodes from a slow stack, for everything that is newly slow tonight.

    :param before: observations of the baseline's stack on tonight's nodes, by key. Without one, an
        observation stays unchanged.
    """
    settled, sentences = dict(seen), []
    for each in suspects(seen, followed):
        other = before.get(each.key)
        if other is None or other.seen == "unmeasured":
            continue
        if other.seen in _SLOW:
            settled[each.key] = replace(each, seen="unmeasured")
            sentences.append(
                f"{each.title}, and so is the baseline's stack on tonight's nodes: "
                f"{other.evidence[0] if other.evidence else ', '.join(other.metrics)}"
            )
        elif other.seen == "fine":
            sentence = "The baseline's stack, run on tonight's nodes too, was not slower there."
            settled[each.key] = replace(each, evidence=(*each.evidence, sentence))
    return Settled(seen=settled, troubles=tuple(sentences))
