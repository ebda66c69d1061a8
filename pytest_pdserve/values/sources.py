"""What differs between two hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

_MOST_SAID = 4
"""Differences that one sentence names."""


class Measured(Protocol):
    """What was measured on a host."""

    @property
    def fingerprint(self) -> str | None:
        """Digest of :attr:`host`."""

    @property
    def host(self) -> Mapping[str, str]:
        """Hardware, and settings of the system file."""


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return what differs between two hosts, a phrase each; nothing where one is not known."""
    if not (old and new):
        return []
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{k} was {old.get(k, 'not set')}, is {new.get(k, 'not set')}" for k in keys]


def unlike(sources: Measured, fingerprint: str, host: Mapping[str, str]) -> str:
    """Return in words why values of *sources* are not those of a host of another fingerprint."""
    said = changes(sources.host, host)
    more = [f"and {len(said) - _MOST_SAID} more"] if len(said) > _MOST_SAID else []
    if not said:
        return f"fingerprint {sources.fingerprint}, here {fingerprint}"
    return "; ".join([*said[:_MOST_SAID], *more])
