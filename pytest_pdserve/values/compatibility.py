"""Versions of other software with which this version of pdserve works, and the evidence."""

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
"""Kinds of evidence, strongest first: this project ran it; tests parse its recorded output; its
source was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRelease:
    """A release with evidence."""

    release: Release
    """Prefix of its versions, e.g. ``0.32`` for 0.32.0 and 0.32.1."""
    versions: Annotated[tuple[Text, ...], Meta(min_length=1)]
    """Versions of it that were checked, e.g. ``0.32.0+cpu``."""
    how: How
    """Strongest kind of evidence."""
    evidence: Text
    """File or command with the evidence."""
    date: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d$")]
    """Day of the last check."""
    differs: str = ""
    """Difference from the release before, as far as it affects pdserve; empty for none."""

    def covers(self, version: str) -> bool:
        """Return whether *version* belongs to this release."""
        own = numbers(self.release)
        return numbers(version)[: len(own)] == own


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package and its known releases."""

    name: Text
    """Name for messages, e.g. ``vLLM``."""
    known: Annotated[tuple[KnownRelease, ...], Meta(min_length=1)]
    """Known releases, oldest first."""
    distributions: tuple[Text, ...] = ()
    """Names of Python distributions, the usual one first; empty if it is not a Python package."""
    listed: tuple[Release, Release] | None = None
    """First and last release in the documentation's table, both ``X.Y`` with the same X: untested
    releases between them are listed too. None lists only known releases."""

    @property
    def tested(self) -> tuple[str, ...]:
        """Versions that were run."""
        return tuple(v for each in self.known if each.how == "run here" for v in each.versions)

    def find(self, version: str) -> KnownRelease | None:
        """Return the known release of *version*; None if its release is untested."""
        return next((each for each in self.known if each.covers(version)), None)

    def untested_releases(self) -> tuple[str, ...]:
        """Return the releases between those of :attr:`listed` that are untested."""
        if self.listed is None:
            return ()
        (major, first), (_, last) = (numbers(each) for each in self.listed)
        between = [f"{major}.{minor}" for minor in range(first, last + 1)]
        return tuple(each for each in between if self.find(each) is None)


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (0, 32, 0) for ``0.32.0+cpu``."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def untested_text(installed: Iterable[tuple[Package, str]]) -> str | None:
    """Return a sentence about untested versions; None if there are none.

    :param installed: packages with their installed versions.
    """
    untested = [
        f"{package.name} {version} (tested: {', '.join(package.tested)})"
        for package, version in installed
        if package.find(version) is None
    ]
    if not untested:
        return None
    return f"untested with this version: {', '.join(untested)}; docs/compatibility.md"
