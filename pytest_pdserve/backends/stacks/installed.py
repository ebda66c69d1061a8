"""Reads which packages a Python environment has, by running its Python."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pytest_pdserve.backends.hosts import versions
from pytest_pdserve.backends.hosts.facts import program_path
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System

_ANSWER_S = 60.0
_PACKAGES = """\
import json
from importlib import metadata
found = {}
for each in metadata.distributions():
    found.setdefault(each.metadata["Name"], each.version)
print(json.dumps(found))
"""
"""Of two distributions with the same name, the first is the one that is imported."""
_VERSION = "import json, platform; print(json.dumps({'python': platform.python_version()}))"


def python_of_system(system: System) -> str | None:
    """Return the Python of the environment that *system* serves from; None if not found.

    It is in the folder of the program ``vllm``.
    """
    program = program_path(system.programs.vllm)
    python = None if program is None else Path(program).parent / "python"
    return str(python) if python is not None and python.is_file() else None


def versions_of_system(system: System) -> Mapping[str, str]:
    """Return the versions that *system* serves with now; missing packages are absent."""
    python = python_of_system(system)
    return {} if python is None else versions_at(python)


@functools.cache
def versions_at(python: str) -> Mapping[str, str]:
    """Return the versions of the serving packages of *python*; missing packages are absent.

    :raises ConfigError: if that Python does not run.
    """
    return _ask(python, str(versions.__file__))


@functools.cache
def python_version_at(python: str) -> str:
    """Return the version of the interpreter *python*, e.g. ``3.11.2``.

    :raises ConfigError: if it does not run.
    """
    return _ask(python, "-c", _VERSION)["python"]


def packages_at(python: str) -> Mapping[str, str]:
    """Return the version of every distribution of *python*, by name.

    :raises ConfigError: if that Python does not run.
    """
    return _ask(python, "-c", _PACKAGES)


def _ask(python: str, *argv: str) -> Mapping[str, str]:
    try:
        output = subprocess.run(
            [python, "-I", *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=True,
        ).stdout
        versions_by_name = json.loads(output.strip().rpartition("\n")[2])
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ConfigError(
            f"{python} cannot list its packages ({error!s:.120}); expected the Python of an "
            "environment that has vLLM"
        ) from error
    return {str(name): str(version) for name, version in versions_by_name.items()}
