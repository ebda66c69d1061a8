"""Which flags the router of a system knows, before any node is acquired."""

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
"""Nothing is said meanwhile, and silence is never longer than 15 s."""


def check_router_args(system: System) -> None:
    """Refuse further arguments that the router of *system* does not know.

    :raises ConfigError: with file, JSON pointer and what the router is.
    """
    if not system.router.args:
        return
    known, router = _known_flags(system)
    known = {**known, **dict.fromkeys(system.router.extra_flags, ())}
    for position, said in unknown_router_args(system.router.args, known, router):
        raise ConfigError(f"{system.source}: /router/args/{position}: {said}")


def _known_flags(system: System) -> tuple[RouterFlags, str]:
    """Return the flags of the router, and which router that is: that of this machine if possible.

    In a container there may be another, so any release's flags are admitted.
    """
    path = None if system.container.contained else program_path(system.programs.router)
    if path is not None:
        release = _installed_release(path)
        if release in RELEASES:
            return flags_of_release(release), f"{_PACKAGE} {release}"
        if asked := _flags_by_help(path):
            return asked, path
    return flags_of_all_releases(), f"{_PACKAGE} {RELEASES[0]} to {RELEASES[-1]}"


def _installed_release(path: str) -> str:
    """Return the installed release, if *path* is its program; else the empty string."""
    if Path(path) != Path(sys.executable).parent / _PACKAGE:
        return ""
    try:
        return metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError:
        return ""


@functools.cache
def _flags_by_help(path: str) -> RouterFlags:
    """Ask a program for its flags; none if it does not tell them in time."""
    try:
        said = subprocess.run(
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
    return flags_in_help(said.stdout)
