"""Where the values of a stored file come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Annotated

from msgspec import Meta

from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.text import Day
from pytest_pdserve.values.text import Line
from pytest_pdserve.values.text import Word

_MOST_SAID = 4
"""Differences that one sentence names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Sessions, versions and hardware that stored values come from."""

    date: Day
    """When the file was made or accepted."""
    runs: Annotated[
        tuple[SessionRef, ...], Meta(min_length=1, extra_json_schema={"uniqueItems": True})
    ]
    """Sessions, in the order of the values."""
    fingerprint: Word | None
    """Digest of hardware and system file; None where the values hold on any."""
    versions: Mapping[Word, Line]
    """Package or component and version, of the newest session."""
    note: Annotated[str, Meta(pattern=r"^[^\ud800-\udfff]*(?![\s\S])")] | None = None
    """What whoever accepted it wrote."""
    approver: Word | None = None
    """Who answers for it."""
    nodes: tuple[str, ...] = ()
    """Nodes that served."""
    host: Mapping[str, str] = field(default_factory=dict)
    """What the fingerprint was made of: hardware, and settings of the system file."""
    seeds: tuple[int, ...] = ()
    """Seeds of the client."""

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Ids of the sessions."""
        return tuple(run.id for run in self.runs)


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return what differs between two hosts, a phrase each; nothing where one is not known."""
    if not (old and new):
        return []
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{k} was {old.get(k, 'not set')}, is {new.get(k, 'not set')}" for k in keys]


def unlike(sources: Sources, fingerprint: str, host: Mapping[str, str]) -> str:
    """Return in words why values of *sources* are not those of a host of another fingerprint."""
    said = changes(sources.host, host)
    more = [f"and {len(said) - _MOST_SAID} more"] if len(said) > _MOST_SAID else []
    if not said:
        return f"fingerprint {sources.fingerprint}, here {fingerprint}"
    return "; ".join([*said[:_MOST_SAID], *more])
