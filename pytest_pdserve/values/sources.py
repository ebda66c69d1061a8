"""Describe differences between two hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

_MAX_SHOWN = 4
"""Largest number of differences in a sentence."""


class Measured(Protocol):
    """Something that was measured on a host."""

    @property
    def fingerprint(self) -> str | None:
        """Digest of :attr:`host`."""

    @property
    def host(self) -> Mapping[str, str]:
        """Hardware and settings of the system file."""


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return the differences between two hosts, a phrase each; empty if one is not known."""
    if not (old and new):
        return []
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{k} was {old.get(k, 'not set')}, is {new.get(k, 'not set')}" for k in keys]


def unlike(sources: Measured, fingerprint: str, host: Mapping[str, str]) -> str:
    """Return the differences between the host of *sources* and another host, as text."""
    phrases = changes(sources.host, host)
    more = [f"and {len(phrases) - _MAX_SHOWN} more"] if len(phrases) > _MAX_SHOWN else []
    if not phrases:
        return f"fingerprint {sources.fingerprint}, here {fingerprint}"
    return "; ".join([*phrases[:_MAX_SHOWN], *more])
