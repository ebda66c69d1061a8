"""A command line with its place and environment: what planning yields and a cluster runs."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One process: where it runs, its argument list and its environment."""

    name: str
    """Who it is, e.g. ``decode[1]`` or ``router``."""
    node: str
    """Node that runs it."""
    argv: tuple[str, ...]
    """Argument list; never a shell string."""
    env: tuple[tuple[str, str], ...] = ()
    """Environment beside the inherited one; no secrets."""
    secrets: tuple[str, ...] = ()
    """Names of variables that carry the session's API key; the value is added at start."""
    passed: tuple[str, ...] = ()
    """Names of variables whose values come from the session's own environment; likewise."""
    ports: tuple[int, ...] = ()
    """Ports that its node must have free before it starts."""
    watched: bool = False
    """Whether its use of the CPU is watched."""
    step_args: tuple[str, ...] = ()
    """Further arguments of the Slurm step that runs it, where Slurm makes the container (pyxis)."""
    cleanup: tuple[tuple[str, ...], ...] = ()
    """Commands that its node runs once it has ended, however it ended."""
    pid_argv: tuple[str, ...] = ()
    """Command that prints the id of the process to account for, where that is no child (docker)."""

    @property
    def unwritten(self) -> tuple[str, ...]:
        """Names of all variables whose values stand in no file and no argument."""
        return (*self.secrets, *self.passed)

    @property
    def file_name(self) -> str:
        """Name in file names, e.g. ``decode-1``."""
        return self.name.replace("[", "-").replace("]", "").replace("/", "-")

    @property
    def log_name(self) -> str:
        """File name of its log, e.g. ``decode-1.log``."""
        return f"{self.file_name}.log"

    def render(self) -> str:
        """The command as a person would type it, one variable or option a line."""
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
    """Return the last value that *args* give to *flag*; None if they do not."""
    found = None
    for word, following in itertools.zip_longest(args, args[1:], fillvalue=""):
        if word == flag:
            found = following
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found


def options_of(args: Sequence[str]) -> Mapping[str, str]:
    """Return what *args* set, by flag without dashes; a switch is the empty string."""
    found: dict[str, str] = {}
    for word, following in itertools.zip_longest(args, args[1:], fillvalue=""):
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
            alone = following.startswith("--")
            found[name.replace("_", "-")] = value if equals else "" if alone else following
    return found
