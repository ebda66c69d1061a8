"""A command: argument list, node and environment of a process."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Argument list, node and environment of one process."""

    name: str
    """Name of the process, e.g. ``decode[1]`` or ``router``."""
    role: str = ""
    """Role of a server: that of an instance, or ``router``; empty for other commands."""
    node: str
    """Node that runs it."""
    argv: tuple[str, ...]
    """Argument list; never a shell string."""
    env: tuple[tuple[str, str], ...] = ()
    """Environment in addition to the inherited one; no secrets."""
    secrets: tuple[str, ...] = ()
    """Names of variables that carry the session's API key; the value is added at start."""
    passed: tuple[str, ...] = ()
    """Names of variables whose values come from the session's environment; added at start."""
    ports: tuple[int, ...] = ()
    """Ports that its node must have free before it starts."""
    watched: bool = False
    """True if its CPU time is sampled."""
    step_args: tuple[str, ...] = ()
    """Further arguments of its Slurm step, if Slurm creates the container (pyxis)."""
    cleanup: tuple[tuple[str, ...], ...] = ()
    """Commands that its node runs after it has ended, for whatever reason."""
    pid_argv: tuple[str, ...] = ()
    """Command that prints the id of the process to sample, if it is not a child (docker)."""

    @property
    def unwritten(self) -> tuple[str, ...]:
        """Names of all variables whose values are never written to files or arguments."""
        return (*self.secrets, *self.passed)

    @property
    def file_name(self) -> str:
        """Name as part of file names, e.g. ``decode-1``."""
        return self.name.replace("[", "-").replace("]", "").replace("/", "-")

    @property
    def log_name(self) -> str:
        """File name of its log, e.g. ``decode-1.log``."""
        return f"{self.file_name}.log"

    def render(self) -> str:
        """Return the command as typed in a shell, one variable or option per line."""
        env = [f"{key}={shlex.quote(value)}" for key, value in self.env]
        env += [f"{key}=<session API key>" for key in self.secrets]
        env += [f"{key}=<passed through>" for key in self.passed]
        lines: list[str] = []
        for word in self.argv:
            if word.startswith("--") or not lines:
                lines.append(shlex.quote(word))
            else:
                lines[-1] += " " + shlex.quote(word)
        return " \\\n    ".join([*env, *lines])


def value_of(args: Sequence[str], flag: str) -> str | None:
    """Return the last value of *flag* in *args*; None if it is not given."""
    value = None
    for word, following in itertools.zip_longest(args, args[1:], fillvalue=""):
        if word == flag:
            value = following
        elif word.startswith(f"{flag}="):
            value = word.partition("=")[2]
    return value


def options_of(args: Sequence[str]) -> Mapping[str, str]:
    """Return the values in *args* by flag without dashes; the empty string for a switch."""
    options: dict[str, str] = {}
    for word, following in itertools.zip_longest(args, args[1:], fillvalue=""):
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
            alone = following.startswith("--")
            options[name.replace("_", "-")] = value if equals else "" if alone else following
    return options
