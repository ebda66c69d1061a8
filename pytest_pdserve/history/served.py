"""Software, nodes and system file of each night of a history, and how two nights differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING

from pytest_pdserve.values.trend import StackDifference

if TYPE_CHECKING:
    import pandas as pd

Served = Mapping[str, frozenset[str]]
"""Values of all sessions of one night, by name of a package, ``image`` (of containers), ``nodes``,
or ``system file`` (its fingerprint)."""
_NOT_PACKAGES = ("image", "nodes", "system file")


def served_on(sessions: pd.DataFrame, system: str) -> dict[date, Served]:
    """Return software, nodes and system file of each night; excluded sessions do not count.

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


def differences(before: Served, after: Served) -> Iterator[StackDifference]:
    """Yield what differs between two nights, packages first.

    What only one of the nights recorded is left out.
    """
    names = sorted({*before, *after} - set(_NOT_PACKAGES)) + list(_NOT_PACKAGES)
    for what in names:
        old, new = before.get(what, frozenset()), after.get(what, frozenset())
        if old and new and old != new:
            yield StackDifference(what=what, before=tuple(sorted(old)), after=tuple(sorted(new)))


def package_changes(served: Mapping[date, Served]) -> Iterator[tuple[date, str]]:
    """Yield each night on which packages have other versions than the night before, and which.

    The text is such as ``nixl 1.0.0, vllm 0.15.2``. The commit of the project is not a package.
    """
    nights = sorted(served)
    for last, night in pairwise(nights):
        changed = [
            f"{each.what} {' and '.join(each.after)}"
            for each in differences(served[last], served[night])
            if each.what not in (*_NOT_PACKAGES, "commit")
        ]
        if changed:
            yield night, ", ".join(changed)
