"""Checks of the router's arguments, before any node is acquired."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from pytest_pdserve.backends.hosts.facts import program_path
from pytest_pdserve.plan.router_flags import RELEASES
from pytest_pdserve.plan.router_flags import RouterFlags
from pytest_pdserve.plan.router_flags import flags_in_help
from pytest_pdserve.plan.router_flags import flags_of_all_releases
from pytest_pdserve.plan.router_flags import flags_of_release
from pytest_pdserve.plan.router_flags import unknown_router_args
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System

_PACKAGE = "vllm-router"
_ANSWER_S = 14.0
"""Below 15 s, the longest time without a progress line."""


def check_router_args(system: System) -> None:
    """Raise if ``[router] args`` has a flag that the router of *system* does not have.

    :raises ConfigError: with file, JSON pointer and the router's version.
    """
    if not system.router.args:
        return
    flags, router = _flags_of_router(system)
    flags = {**flags, **dict.fromkeys(system.router.extra_flags, ())}
    for position, problem in unknown_router_args(system.router.args, flags, router):
        raise ConfigError(f"{system.source}: /router/args/{position}: {problem}")


def _flags_of_router(system: System) -> tuple[RouterFlags, str]:
    """Return the flags of the router and its name, from this machine if it is installed here.

    A container may have another router, so the flags of all releases are accepted.
    """
    path = None if system.container.contained else program_path(system.programs.router)
    if path is not None:
        release = _installed_release(path)
        if release in RELEASES:
            return flags_of_release(release), f"{_PACKAGE} {release}"
        if flags := _flags_by_help(path):
            return flags, path
    return flags_of_all_releases(), f"{_PACKAGE} {RELEASES[0]} to {RELEASES[-1]}"


def _installed_release(path: str) -> str:
    """Return the installed release of the router if *path* is its program; else empty."""
    if Path(path) != Path(sys.executable).parent / _PACKAGE:
        return ""
    try:
        return metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError:
        return ""


@functools.cache
def _flags_by_help(path: str) -> RouterFlags:
    """Return the flags in the output of ``--help``; empty if the program fails or times out."""
    try:
        done = subprocess.run(
            [path, "--help"],
            env={**os.environ, "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=True,
        )
    except (OSError, UnicodeDecodeError, subprocess.SubprocessError):
        return {}
    return flags_in_help(done.stdout)
