"""A project: its folders, and settings from pytest's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.rules import RULE

if TYPE_CHECKING:
    from pytest_pdserve.values.system import System

DEFAULT_TOPOLOGY = "1p3d"
DEFAULT_SYSTEM = "local-cpu"
DEFAULT_RUNS = "runs"
DEFAULT_HISTORY = "history"
NIGHTLY = ("nightly_suites", "nightly_notify")
"""Ini keys of ``pdserve nightly``; each is a list."""
INI_LISTS = ("instance_url", *NIGHTLY)
"""Ini keys that are lists."""
COUNTS = ("repeats", "first_runs")
_MAX_DIGITS = 4
"""Digits of a number of runs, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Folders and defaults of a project, the same for ``pytest`` and ``pdserve``."""

    rootdir: Path
    """pytest's rootdir, without symbolic links; contains the project's ``baselines/``."""
    runs: Path
    """Folder of run folders."""
    system: str
    """Name of the system."""
    topology: str
    """Topologies, as ``--topology`` takes them."""
    chosen: frozenset[str] = frozenset()
    """Which of ``system`` and ``topology`` were set by a flag or an ini key."""
    history: Path | None = None
    """Folder of the history: set by a flag or an ini key (it may not exist), else ``history`` in
    rootdir; None if that does not exist."""
    counts: Mapping[str, object] = field(default_factory=dict)
    """``repeats`` and ``first_runs``, if set by a flag or an ini key; not validated."""

    nightly_suites: tuple[str, ...] = ()
    """Paths that ``pdserve nightly`` runs, relative to rootdir; empty for ``suites``."""
    nightly_notify: tuple[str, ...] = ()
    """Command that gets the events of a night, as an argument list; empty for none."""
    until: str | None = None
    """Text of the ini key for the time when a session must have ended; None if not set."""

    @property
    def baseline_folders(self) -> tuple[Path, ...]:
        """Folders with a folder per system; of several with the same system, the first counts."""
        from pytest_pdserve.results.folders import baseline_folders

        return baseline_folders(self.rootdir)

    def repeats(self, system: System) -> int:
        """Return the runs of a cell on each start of its servers.

        :raises ConfigError: if a flag or an ini key is not a number.
        """
        return _number("repeats", self.counts.get("repeats", system.sweep.repeats or 1))

    @property
    def first_runs(self) -> int:
        """Number of starts on which a cell without a reference is measured.

        :raises ConfigError: as :meth:`repeats`.
        """
        return _number("first-runs", self.counts.get("first_runs", RULE.first_starts))

    def describe(self, system: System) -> str:
        """Return a text about the folders of *system*, relative to rootdir if they are in it."""
        from pytest_pdserve.results.baselines import state_folder
        from pytest_pdserve.results.folders import own_folder

        own = own_folder(system, self.rootdir)
        if system.judgement.gpu_references:
            own = own / "<GPU model>"
        elif system.judgement.host_references:
            own = state_folder() / "baselines" / system.name
        baseline, runs = self._below(own), self._below(self.runs)
        return f"rootdir {self.rootdir}, baseline in {baseline}, records in {runs}"

    def _below(self, path: Path) -> Path:
        return path.relative_to(self.rootdir) if path.is_relative_to(self.rootdir) else path


def project_of(config: pytest.Config, options: Any) -> Project:
    """Return the project of a pytest configuration.

    A flag on the command line overrides an ini key. A folder in a flag is relative to the current
    directory, in an ini key to rootdir.

    :param options: has ``pdserve_system``, ``pdserve_topology``, ``pdserve_runs``,
        ``pdserve_history``, ``pdserve_repeats`` and ``pdserve_first_runs``, each None if the flag
        was not given.
    :raises ConfigError: if a flag is empty, or an ini key has a wrong type.
    """
    rootdir = config.rootpath.resolve()
    runs = rootdir / (ini_value(config, "runs") or DEFAULT_RUNS)
    if (flag := flag_value(options, "runs")) is not None:
        runs = config.invocation_params.dir / flag
    given = {}
    for name in ("system", "topology"):
        flag = flag_value(options, name)
        if flag == "":
            raise ConfigError(f"--{name} '' is empty: name one, or leave it out")
        given[name] = flag or ini_value(config, name)
    return Project(
        rootdir=rootdir,
        runs=runs,
        history=_history(config, options, rootdir),
        chosen=frozenset(name for name, value in given.items() if value),
        counts={
            name: value for name in COUNTS if (value := _setting(config, options, name)) is not None
        },
        system=given["system"] or DEFAULT_SYSTEM,
        topology=given["topology"] or DEFAULT_TOPOLOGY,
        **{name: tuple(ini_value(config, name) or ()) for name in NIGHTLY},
        until=ini_value(config, "until"),
    )


def _history(config: pytest.Config, options: Any, rootdir: Path) -> Path | None:
    flag, ini = flag_value(options, "history"), ini_value(config, "history")
    if flag is not None:
        if str(flag) == "":
            raise ConfigError("--pdserve-history '' is empty: name a folder, or leave it out")
        return config.invocation_params.dir / str(flag)
    own = rootdir / DEFAULT_HISTORY
    if ini is not None:
        return rootdir / str(ini)
    return own if own.is_dir() else None


def _setting(config: pytest.Config, options: Any, name: str) -> object:
    flag = flag_value(options, name)
    return ini_value(config, name) if flag is None else flag


def _number(option: str, text: object) -> int:
    digits = str(text).lstrip("0")
    if not (digits.isascii() and digits.isdecimal()):
        raise ConfigError(f"--pdserve-{option} {text!r:.80} is not a whole number of at least 1")
    if len(digits) > _MAX_DIGITS:
        raise ConfigError(f"--pdserve-{option} {text!r:.80}: expected at most {'9' * _MAX_DIGITS}")
    return int(digits)


def flag_value(options: Any, name: str) -> Any:
    """Return the value of the flag ``pdserve_<name>``; None if it was not given.

    :raises ConfigError: if it is ``--``, which argparse before Python 3.13 turns into a list.
    """
    value = getattr(options, f"pdserve_{name}")
    if value == [] or (isinstance(value, list) and [] in value):
        flag = name if name in ("system", "topology") else f"pdserve-{name.replace('_', '-')}"
        raise ConfigError(f"--{flag} '--' is not a value: give one, or leave the option out")
    return value


def ini_value(config: pytest.Config, name: str) -> Any:
    """Return the value of the ini key ``pdserve_<name>``; None if it is not set.

    :raises ConfigError: if it has a wrong type.
    """
    key, where = f"pdserve_{name}", f" of {config.inipath}" if config.inipath else ""
    try:
        value = config.getini(key)
    except (pytest.UsageError, TypeError, ValueError) as error:  # before pytest 9 the last two
        message = str(error)
        if key not in message:  # of an invalid boolean; pytest's other messages name the key
            message = f"ini key {key}{where}: {message}, expected true or false"
        raise ConfigError(message) from error
    if isinstance(value, list | dict) and name not in INI_LISTS:
        raise ConfigError(f"ini key {key}{where}: {value!r:.80}, expected a string")
    return None if value in ("", []) else value
