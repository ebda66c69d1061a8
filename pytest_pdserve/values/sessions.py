"""References to sessions, and the night of a session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta

from pytest_pdserve.values.text import Utc
from pytest_pdserve.values.text import Word


def utc_text(moment: datetime) -> str:
    """Return *moment* as ISO 8601 in UTC, with milliseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRef:
    """Reference to a pytest session, or to an import of result files."""

    id: Word
    """Name of its run folder, e.g. ``20260822T101500-p5-efa``."""
    started_at: Utc | None = None
    """Time of its begin; None if not known."""
    simulated_night: int | None = None
    """Number of the night of a simulated system; None for others."""

    @property
    def began(self) -> datetime | None:
        """:attr:`started_at` as a datetime."""
        return None if self.started_at is None else datetime.fromisoformat(self.started_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRef:
    """Session and system of a run folder, written before any record."""

    session: SessionRef
    """Session."""
    system: Word
    """Name of its system."""


def night_of(session: SessionRef, newest: SessionRef) -> str:
    """Return the date of the night of *session*, counted back from *newest* in steps of 24 h.

    Sessions that began within half a day of such a step belong to the same night. A simulated night
    is named by its number; a session without a time is a night of its own.
    """
    if session.simulated_night is not None:
        return f"simulated night {session.simulated_night}"
    began, last = session.began, newest.began
    if began is None or last is None:
        return session.id
    return (last - timedelta(days=round((last - began) / timedelta(days=1)))).date().isoformat()
