"""Check the dependencies of pytest-pdserve before they are imported."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from importlib import metadata

from pytest_pdserve.values.errors import ConfigError

_NAME = re.compile(r"[\w.-]+")
_MODULES = {"nvidia-ml-py": "pynvml", "pyyaml": "yaml"}
"""Module names of packages whose module has another name."""


def check_dependencies() -> None:
    """Raise if a package that every session needs is missing; import none.

    :raises ConfigError: with all missing packages, and what to do.
    """
    missing = [f"'{requirement}'" for requirement in _requirements() if _is_missing(requirement)]
    if missing:
        raise ConfigError(
            f"pytest-pdserve needs {', '.join(missing)}, not installed for {sys.executable}; run "
            f"{sys.executable} -m pip install {' '.join(missing)}"
        )


def _requirements() -> Iterator[str]:
    """Yield the requirements in this package's metadata, without extras."""
    try:
        found = metadata.requires("pytest-pdserve") or ()
    except metadata.PackageNotFoundError:
        return
    yield from (requirement for requirement in found if ";" not in requirement)


def _is_missing(requirement: str) -> bool:
    name = _NAME.match(requirement)
    assert name is not None
    module = _MODULES.get(name[0].lower(), name[0].replace("-", "_"))
    return importlib.util.find_spec(module) is None
