"""An entry of a history that takes a session out of it, or back in."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_pdserve.values.text import Line
from pytest_pdserve.values.text import Utc
from pytest_pdserve.values.text import Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """One entry; of several for one session the latest counts."""

    system: Word
    """System of the session."""
    session: Word
    """Id of the session."""
    excluded: bool
    """Whether it is taken out, or back in."""
    reason: Line
    """Why."""
    at: Utc
    """When the entry was made."""

    @property
    def key(self) -> tuple[str, str]:
        """System and session id."""
        return self.system, self.session
