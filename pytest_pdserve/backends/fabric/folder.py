"""The folder of fabric libraries: its path, its content, and the environment that uses it."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.kinds import parse_table
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import FABRIC_LIBRARIES
from pytest_pdserve.values.system import System

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
"""Packages that contain the libraries, pinned with hashes."""
STUB = Path(__file__).with_name("libcuda_stub.c")
"""Source of the stand-in for NVIDIA's driver."""
MANIFEST = "installed.json"
"""Written last, so a folder that has it is complete."""
LIBRARIES, PACKAGES, FI_INFO = "lib", "python", "bin/fi_info"
"""Parts of a folder: shared libraries, Python packages, and libfabric's own program."""
_PLUGINS = f"{PACKAGES}/.nixl_cu13.mesonpy.libs/plugins"
_RECIPE = 1
"""Version of the installation steps; a new one makes existing folders invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The manifest of an installed folder."""

    digest: str
    """Of everything from which the folder was made; see :func:`fabric_digest`."""
    versions: Mapping[str, str]
    """Of ``libfabric`` and ``nixl``."""


def fabric_digest() -> str:
    """Return the digest of everything from which a folder is made, for this Python and machine."""
    python = ".".join(map(str, sys.version_info[:2]))
    head = f"{_RECIPE} {python} {platform.machine()}\n".encode()
    return hashlib.sha256(head + REQUIREMENTS.read_bytes() + STUB.read_bytes()).hexdigest()[:12]


def default_folder() -> Path:
    """Return where ``pdserve fabric install`` puts the libraries: in the user's cache folder.

    Each version of pdserve or Python has its own folder there.
    """
    cache = Path(platformdirs.user_cache_dir("pytest-pdserve", appauthor=False))
    return cache / f"fabric-{fabric_digest()}"


def fabric_folder(system: System) -> Path | None:
    """Return the folder of the libraries of *system*; None if it uses those of the environment."""
    libraries = system.kv_transfer.libraries
    if libraries is None:
        return None
    return default_folder() if libraries == FABRIC_LIBRARIES else Path(libraries)


def find_installed(folder: Path) -> Installed | None:
    """Return the manifest of *folder*; None if missing, or if this pdserve would make another."""
    path = folder / MANIFEST
    if not is_there(path):
        return None
    try:
        found: Installed = parse_table(Installed, load_json(path), path, "")
    except ConfigError:
        return None
    return found if found.digest == fabric_digest() else None


def library_env(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that put *folder* before all other paths of *environ*."""

    def prepended(part: str, name: str) -> str:
        return os.pathsep.join(filter(None, (str(folder / part), environ.get(name))))

    return {
        "LD_LIBRARY_PATH": prepended(LIBRARIES, "LD_LIBRARY_PATH"),
        "PYTHONPATH": prepended(PACKAGES, "PYTHONPATH"),
        "FI_PROVIDER_PATH": str(folder / LIBRARIES),
        "NIXL_PLUGIN_DIR": str(folder / _PLUGINS),
    }


def transfer_env(system: System, environ: Mapping[str, str]) -> dict[str, str]:
    """Return :func:`library_env` of the system's folder; empty if it has none."""
    folder = fabric_folder(system)
    return {} if folder is None else library_env(folder, environ)


def library_versions(system: System) -> Mapping[str, str]:
    """Return the versions of the system's own libraries; empty if none are installed."""
    folder = fabric_folder(system)
    installed = find_installed(folder) if folder is not None else None
    return {} if installed is None else installed.versions
