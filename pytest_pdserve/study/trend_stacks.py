"""What served on two nights, and how that differs: versions, images, nodes, the system file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import date

import pandas as pd

from pytest_pdserve.values.trend import NEARBY
from pytest_pdserve.values.trend import StackChange
from pytest_pdserve.values.trend import StackDifference

Served = Mapping[str, frozenset[str]]
"""What served on one night: by ``nodes``, ``image`` or the name of a package, in all sessions."""


def stack_changes(served: Mapping[date, Served], nights: tuple[date, date]) -> StackChange | None:
    """Return what changed between two nights, else on the nearest night that changed anything.

    :param served: what served on each night (:func:`served_on`).
    :param nights: the last night of the old level, and the first of the new one.
    """
    old, new = nights
    known = sorted(served)
    if old in served and new in served:
        found = tuple(_differences(served[old], served[new]))
        if found:
            return StackChange(night=new, nights_off=0, differences=found)
    if new not in served:
        return None
    place = known.index(new)
    for off in sorted(range(-NEARBY, NEARBY + 1), key=lambda off: (abs(off), off)):
        if off and 0 < place + off < len(known):
            night = known[place + off]
            found = tuple(_differences(served[known[place + off - 1]], served[night]))
            if found:
                return StackChange(night=night, nights_off=off, differences=found)
    return None


def nodes_known(served: Mapping[date, Served], nights: tuple[date, date]) -> bool:
    """Return whether the nodes of both nights are recorded."""
    return all(served.get(night, {}).get("nodes") for night in nights)


def served_on(sessions: pd.DataFrame, system: str) -> dict[date, Served]:
    """Return what served on each night of a system; excluded sessions do not count.

    :param sessions: a row for each session (:meth:`.history.store.Store.sessions`).
    """
    kept = sessions[
        (sessions["system"] == system)
        & ~sessions["excluded"].astype(bool)
        & sessions["night"].notna()
    ]
    found: dict[date, dict[str, set[str]]] = {}
    columns = (kept[name] for name in ("night", "versions", "image", "nodes", "fingerprint"))
    for moment, versions, image, nodes, fingerprint in zip(*columns, strict=True):
        night = found.setdefault(moment.date(), {})
        for what, value in json.loads(versions).items():
            night.setdefault(str(what), set()).add(str(value))
        night.setdefault("image", set()).update({image} - {""})
        night.setdefault("nodes", set()).update(nodes.split())
        night.setdefault("system file", set()).update({fingerprint} - {""})
    return {
        night: {what: frozenset(values) for what, values in there.items()}
        for night, there in found.items()
    }


_LAST = ("image", "nodes", "system file")


def _differences(before: Served, after: Served) -> Iterator[StackDifference]:
    """Return what differs, but for what only one of the nights has recorded at all."""
    names = sorted({*before, *after} - set(_LAST)) + list(_LAST)
    for what in names:
        old, new = before.get(what, frozenset()), after.get(what, frozenset())
        if old and new and old != new:
            yield StackDifference(what=what, before=tuple(sorted(old)), after=tuple(sorted(new)))
