"""Changes of versions, images, nodes and the system file between two nights, or near them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from pytest_pdserve.history.served import Served
from pytest_pdserve.history.served import differences
from pytest_pdserve.values.trend import NEARBY
from pytest_pdserve.values.trend import StackChange


def stack_changes(served: Mapping[date, Served], nights: tuple[date, date]) -> StackChange | None:
    """Return what changed between two nights, or else on the nearest night with a change.

    :param served: versions, image and nodes of each night (:func:`.history.served.served_on`).
    :param nights: the last night of the old level, and the first of the new one.
    """
    old, new = nights
    recorded = sorted(served)
    if old in served and new in served:
        between = tuple(differences(served[old], served[new]))
        if between:
            return StackChange(night=new, nights_off=0, differences=between)
    if new not in served:
        return None
    place = recorded.index(new)
    for off in sorted(range(-NEARBY, NEARBY + 1), key=lambda off: (abs(off), off)):
        if off and 0 < place + off < len(recorded):
            before, night = recorded[place + off - 1], recorded[place + off]
            between = tuple(differences(served[before], served[night]))
            if between:
                return StackChange(night=night, nights_off=off, differences=between)
    return None


def nodes_known(served: Mapping[date, Served], nights: tuple[date, date]) -> bool:
    """Return whether the nodes of both nights are recorded."""
    return all(served.get(night, {}).get("nodes") for night in nights)
