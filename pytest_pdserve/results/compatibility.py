"""Versions of other packages that this version works with, and the installed versions."""

from __future__ import annotations

import functools
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from pytest_pdserve.results.files import load_toml
from pytest_pdserve.results.kinds import parse_table
from pytest_pdserve.values.compatibility import Package

FILE = Path(__file__).with_name("compatibility.toml")
"""Source of the docs page, of ``pdserve doctor`` and of the header."""
_BOUND = re.compile(r"([\w.-]+)(?:\[[\w,]*\])?>=([\d.]+)")


def load_packages(path: Path) -> dict[str, Package]:
    """Read a table of versions; packages by name, in the file's order.

    :raises ConfigError: if it is malformed.
    """
    found = parse_table(tuple[Package, ...], load_toml(path).get("package"), path, "package")
    return {package.name: package for package in found}


@functools.cache
def known_packages() -> Mapping[str, Package]:
    """Return the table of this version's packages, by name."""
    return load_packages(FILE)


def installed_version(package: Package) -> str | None:
    """Return the version of *package* in this Python, without importing it.

    None if it is not installed, or is not a Python package.
    """
    if package.name == "Python":
        return platform.python_version()
    for name in package.distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


@functools.cache
def oldest_versions() -> Mapping[str, str]:
    """Return the oldest accepted version of each distribution, and of ``Python``.

    Read from this package's metadata; empty if the package is not installed.
    """
    try:
        own = metadata.metadata("pytest-pdserve")
    except metadata.PackageNotFoundError:
        return {}
    lines = [*(own.get_all("Requires-Dist") or ()), f"Python{own['Requires-Python'] or ''}"]
    return {match[1]: match[2] for line in lines if (match := _BOUND.match(line))}
