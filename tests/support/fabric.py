"""Folders as ``pdserve fabric install`` leaves them, with a stand-in for NIXL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pytest_pdserve.backends.fabric.folder import MANIFEST
from pytest_pdserve.backends.fabric.folder import fabric_digest
from pytest_pdserve.values.system import System
from tests.support.wheelhouse import AGENT
from tests.support.wheelhouse import FI_INFO
from tests.support.wheelhouse import program

VERSIONS = {"libfabric": "2.2.0-impi", "nixl": "1.4.1"}


def fabric_folder(folder: Path, *, agent: str = AGENT, digest: str | None = None) -> Path:
    """Write a folder.

    :param agent: source of ``nixl._api``.
    :param digest: of what it was made from; None for that of this pdserve.
    """
    program(folder / "bin" / "fi_info", FI_INFO)
    package = folder / "python" / "nixl"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_api.py").write_text(agent)
    stored = {"digest": digest or fabric_digest(), "versions": VERSIONS}
    (folder / MANIFEST).write_text(json.dumps(stored))
    return folder


def using(system: System, libraries: Path, env: Mapping[str, str] | None = None) -> System:
    """Return *system* with the libraries of a folder, and further variables for its servers."""
    transfer = replace(system.kv_transfer, libraries=str(libraries))
    return replace(system, kv_transfer=transfer, pd_env={**system.pd_env, **(env or {})})
