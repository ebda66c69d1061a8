"""Entries of a history that exclude a session, or include it again."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_pdserve.values.text import Line
from pytest_pdserve.values.text import Utc
from pytest_pdserve.values.text import Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """An entry; the latest one of a session counts."""

    system: Word
    """System of the session."""
    session: Word
    """Id of the session."""
    excluded: bool
    """True to exclude it, False to include it again."""
    reason: Line
    """Reason, for people."""
    at: Utc
    """Time of the entry."""

    @property
    def key(self) -> tuple[str, str]:
        """System and session id."""
        return self.system, self.session
