"""Versions of other software that this version is known to work with, and how that is known."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated
from typing import Literal

from msgspec import Meta

Text = Annotated[str, Meta(min_length=1)]
Release = Annotated[str, Meta(pattern=r"^\d+(\.\d+)*$")]
How = Literal["run here", "recorded text", "source read"]
"""From the strongest to the weakest: this project ran it; tests read a text that it wrote; its
source was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRelease:
    """One release that somebody looked at."""

    release: Release
    """Versions that begin so, e.g. ``0.32`` for 0.32.0 and 0.32.1."""
    versions: Annotated[tuple[Text, ...], Meta(min_length=1)]
    """Those of them that were looked at, e.g. ``0.32.0+cpu``."""
    how: How
    """The strongest way in which it is known."""
    evidence: Text
    """File or command that shows it."""
    date: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d$")]
    """When it was looked at last."""
    differs: str = ""
    """What is different in it from the release before, where pdserve has to do with it."""

    def covers(self, version: str) -> bool:
        """Tell whether *version* is one of this release."""
        own = numbers(self.release)
        return numbers(version)[: len(own)] == own


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package, and what is known of its releases."""

    name: Text
    """As people call it, e.g. ``vLLM``."""
    known: Annotated[tuple[KnownRelease, ...], Meta(min_length=1)]
    """From old to new."""
    distributions: tuple[Text, ...] = ()
    """Names under which Python's packages have it, the usual one first; empty where it is none."""
    listed: tuple[Release, Release] | None = None
    """First and last release that a reader may ask for, both ``X.Y`` of one X: those between that
    nobody looked at are listed as such. None lists only what is known."""

    @property
    def tested(self) -> tuple[str, ...]:
        """Versions that were run."""
        return tuple(v for each in self.known if each.how == "run here" for v in each.versions)

    def find(self, version: str) -> KnownRelease | None:
        """Return what is known of *version*; None if nobody looked at its release."""
        return next((each for each in self.known if each.covers(version)), None)

    def not_looked_at(self) -> tuple[str, ...]:
        """Return the releases of :attr:`listed` that nobody looked at."""
        if self.listed is None:
            return ()
        (major, first), (_, last) = (numbers(each) for each in self.listed)
        between = [f"{major}.{minor}" for minor in range(first, last + 1)]
        return tuple(each for each in between if self.find(each) is None)


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: (0, 32, 0) of ``0.32.0+cpu``."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def untested_text(installed: Iterable[tuple[Package, str]]) -> str | None:
    """Return one sentence on the versions that nobody looked at; None where there are none.

    :param installed: packages with the version that is installed.
    """
    said = [
        f"{package.name} {version} (tested: {', '.join(package.tested)})"
        for package, version in installed
        if package.find(version) is None
    ]
    return f"untested with this version: {', '.join(said)}; docs/compatibility.md" if said else None
