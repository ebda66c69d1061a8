"""Sessions as records and baselines name them, and the night that each belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta

from pytest_pdserve.values.text import Utc
from pytest_pdserve.values.text import Word


def utc_text(moment: datetime) -> str:
    """Return *moment* as records hold it, to the millisecond."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRef:
    """One pytest session, or one import of result files."""

    id: Word
    """Name of its run folder, e.g. ``20260822T101500-p5-efa``."""
    started_at: Utc | None = None
    """When it began; None where nothing says it."""
    simulated_night: int | None = None
    """Night that a simulated system named; None for others."""

    @property
    def began(self) -> datetime | None:
        """:attr:`started_at` as a moment."""
        return None if self.started_at is None else datetime.fromisoformat(self.started_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRef:
    """What a run folder says of itself before any record lies in it."""

    session: SessionRef
    """The session."""
    system: Word
    """Name of the system that it measures."""


def night_of(session: SessionRef, newest: SessionRef) -> str:
    """Return the night of *session* by its date, counted back from *newest* in steps of 24 h.

    Sessions that began nearer than half a day to such a step are of one night: they have more in
    common than others. A simulated night is the one that the system file named; a session whose
    time is not known is a night of its own.
    """
    if session.simulated_night is not None:
        return f"simulated night {session.simulated_night}"
    began, last = session.began, newest.began
    if began is None or last is None:
        return session.id
    return (last - timedelta(days=round((last - began) / timedelta(days=1)))).date().isoformat()
