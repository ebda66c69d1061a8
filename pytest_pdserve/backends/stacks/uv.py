"""Runs uv, and turns its output into one sentence if it fails."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.backends.hosts.facts import program_path
from pytest_pdserve.results.redaction import environment_redactor
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import InstallError
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.stack import StackSpec

_UV_S = 1800.0
_IMPORT_S = 300.0
_LAST_LINES = 4
_KV = "vllm.distributed.kv_transfer.kv_connector.v1"
_IMPORTED = (
    *("vllm.entrypoints.cli.main", "vllm.entrypoints.openai.api_server", "vllm.v1.engine.core"),
    *("vllm.v1.engine.async_llm", "vllm.v1.core.sched.scheduler", "vllm.v1.worker.gpu_worker"),
    *("vllm.v1.worker.cpu_worker", "vllm.model_executor.models.llama", f"{_KV}.nixl.connector"),
    *(f"{_KV}.nixl_connector", "nixl", "vllm_router.router", "vllm_router.launch_router"),
)
"""Modules of servers; modules that a version does not have are skipped."""
_IMPORT = """\
import contextlib, importlib, sys
for name in sys.argv[1:]:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
"""


def find_uv() -> str:
    """Return the path of uv.

    :raises ConfigError: if it is missing.
    """
    found = program_path("uv")
    if found is None:
        raise ConfigError(
            f"uv is missing: it builds the environment of a stack, and is neither beside "
            f"{sys.executable} nor on PATH; install it (pip install uv), or name an environment "
            "that exists: python:PATH"
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Uv:
    """Runs uv to build the environment of a stack."""

    program: str
    """Path of uv."""
    stack: Stack
    spec: StackSpec
    """The system's ``[stack]`` table."""

    def make_environment(self, folder: Path, python: str) -> None:
        """Create an empty environment in *folder* with the same Python as *python*.

        :raises InstallError: if uv fails.
        """
        self._run(["venv", "--no-project", "--python", python, str(folder)], folder)

    def resolve(self, folder: Path, lock: str) -> None:
        """Pin every package in the file *lock*, which has the versions to keep if possible.

        :raises InstallError: if no set of versions is compatible.
        """
        self._run(
            [
                *("pip", "compile", str(folder / "requirements.in"), "-o", str(folder / lock)),
                *("--excludes", str(folder / "excludes.txt")),
                *("--overrides", str(folder / "overrides.txt")),
                *("--python", str(folder / "bin" / "python"), "--only-binary", ":all:"),
                *("--no-annotate", "--no-header", "--quiet", *self._find_links),
            ],
            folder,
        )

    def install(self, folder: Path, lock: str) -> None:
        """Install the packages of *lock*, without dependencies.

        :raises InstallError: if a package is not available.
        """
        self._run(
            [
                *("pip", "install", "--no-deps", "--python", str(folder / "bin" / "python")),
                *("--only-binary", ":all:", "-r", str(folder / lock), "--quiet"),
                *self._find_links,
            ],
            folder,
        )

    @property
    def _find_links(self) -> tuple[str, ...]:
        places = (*self.spec.find_links, *pip_find_links())
        return tuple(word for place in places for word in ("--find-links", place))

    def _run(self, argv: Sequence[str], folder: Path) -> None:
        """Run uv.

        :raises InstallError: with its last lines, if it fails.
        """
        what = f"the environment of stack {self.stack.text!r} cannot be built"
        try:
            done = subprocess.run(
                [self.program, *argv, "--color", "never", "--no-progress"],
                cwd=folder.parent,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_UV_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstallError(f"{what}: {error}") from error
        if done.returncode:
            raise InstallError(f"{what}: uv reports: {last_lines(done.stderr)}")


def last_lines(output: str) -> str:
    """Return the last lines of uv's output as one sentence, without box-drawing characters."""
    plain = environment_redactor().text(output)
    lines = [line.strip(" \t×╰─▶│├┬•") for line in plain.splitlines()]
    return " ".join([line for line in lines if line][-_LAST_LINES:]) or "nothing"


@functools.cache
def pip_find_links() -> tuple[str, ...]:
    """Return ``find-links`` of pip's configuration, which uv does not read."""
    if importlib.util.find_spec("pip") is None:
        return ()
    try:
        output = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_IMPORT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(dict.fromkeys(place for line in output.splitlines() for place in _places(line)))


def _places(line: str) -> Sequence[str]:
    """Return the places in a line of ``pip config list``: ``global.find-links='/wheels'``."""
    key, _, value = line.partition("=")
    return value.strip().strip("'\"").split() if key.endswith(".find-links") else ()


def import_once(folder: Path) -> None:
    """Import the modules of servers once, to write their bytecode; errors are ignored."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            [str(folder / "bin" / "python"), "-c", _IMPORT, *_IMPORTED],
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_IMPORT_S,
            check=False,
        )
