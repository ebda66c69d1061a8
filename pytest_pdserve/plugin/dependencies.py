"""What pytest-pdserve itself depends on, looked for before it is imported."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from importlib import metadata

from pytest_pdserve.values.errors import ConfigError

_NAME = re.compile(r"[\w.-]+")
_MODULES = {"nvidia-ml-py": "pynvml", "pyyaml": "yaml"}
"""Packages whose module has another name."""


def check_dependencies() -> None:
    """Refuse an environment that lacks a package which every session needs; import none.

    :raises ConfigError: naming all that are missing, and what to do.
    """
    missing = [f"'{requirement}'" for requirement in _requirements() if _is_missing(requirement)]
    if missing:
        raise ConfigError(
            f"pytest-pdserve needs {', '.join(missing)}, not installed for {sys.executable}; run "
            f"{sys.executable} -m pip install {' '.join(missing)}"
        )


def _requirements() -> Iterator[str]:
    """What this package's own metadata says, extras left out; none where it runs uninstalled."""
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
