"""Prerequisites of a session on its machine, as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "missing", "untested", "not checked", "not needed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prerequisite:
    """A prerequisite of sessions: what was found, what is needed, what to do."""

    what: str
    """Name, e.g. ``NIXL``; unique in a table."""
    found: str
    """What was found; ``none`` if nothing was."""
    needed: str
    """What the system needs; ``not needed`` if nothing."""
    status: Status
    """``missing``: needed, but not found, or too old. ``untested``: found, but pdserve has not been
    tested with this version. ``not checked``: cannot be checked on this machine."""
    advice: str = ""
    """What to do, a sentence in the imperative; empty if nothing."""


def required(what: str, *, found: str, needed: str, there: bool, advice: str) -> Prerequisite:
    """Return the row of a prerequisite that the system needs.

    :param there: whether it was found as needed.
    :param advice: what to do if it was not.
    """
    status: Status = "ok" if there else "missing"
    to_do = "" if there else advice
    return Prerequisite(what=what, found=found, needed=needed, status=status, advice=to_do)


def unneeded(what: str, found: str) -> Prerequisite:
    """Return the row of a prerequisite that the system does not need."""
    return Prerequisite(what=what, found=found, needed="not needed", status="not needed")


def unchecked(what: str, *, found: str, needed: str, advice: str = "") -> Prerequisite:
    """Return the row of a needed prerequisite that cannot be checked on this machine."""
    return Prerequisite(what=what, found=found, needed=needed, status="not checked", advice=advice)
