"""What a session needs of the machine that it is started on: one row for each thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "missing", "untested", "not checked", "not needed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prerequisite:
    """One thing that sessions may need: what is there, what is needed, what to do."""

    what: str
    """Its name, e.g. ``NIXL``; no two rows of a table have the same."""
    found: str
    """What is there; ``none`` if nothing is."""
    needed: str
    """What the system needs of it; ``not needed`` if nothing."""
    status: Status
    """``missing``: the system needs it, and it is not there, or too old. ``untested``: there, but
    nobody has run pdserve with this version. ``not checked``: cannot be seen from here."""
    advice: str = ""
    """What to do, a sentence in the imperative; empty where nothing is to be done."""


def required(what: str, *, found: str, needed: str, there: bool, advice: str) -> Prerequisite:
    """Return the row of a thing that the system needs.

    :param there: whether what was found is what is needed.
    :param advice: what to do where it is not.
    """
    status: Status = "ok" if there else "missing"
    said = "" if there else advice
    return Prerequisite(what=what, found=found, needed=needed, status=status, advice=said)


def unneeded(what: str, found: str) -> Prerequisite:
    """Return the row of a thing that the system does not need; it informs only."""
    return Prerequisite(what=what, found=found, needed="not needed", status="not needed")


def unchecked(what: str, *, found: str, needed: str, advice: str = "") -> Prerequisite:
    """Return the row of a thing that the system needs, and that cannot be seen from here."""
    return Prerequisite(what=what, found=found, needed=needed, status="not checked", advice=advice)
