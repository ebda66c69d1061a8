"""A project: the folder that has baselines and records, and what its settings say."""

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
"""Ini keys of `pdserve nightly`, each a list."""
INI_LISTS = ("instance_url", *NIGHTLY)
"""Ini keys that may have several values."""
COUNTS = ("repeats", "first_runs")
_MAX_DIGITS = 4
"""Of a number of runs: ten thousand never end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Where things lie, and what is chosen where nothing is said: the same for both commands."""

    rootdir: Path
    """pytest's root, without symbolic links; the project's own ``baselines/`` lies in it."""
    runs: Path
    """Folder of run folders."""
    system: str
    """Name of the system."""
    topology: str
    """Topologies, as ``--topology`` takes them."""
    chosen: frozenset[str] = frozenset()
    """``system`` and ``topology``, as far as a flag or an ini key chose them."""
    history: Path | None = None
    """Folder of the history that a flag or an ini key names, which may not exist; else the root's
    own; None where there is none."""
    counts: Mapping[str, object] = field(default_factory=dict)
    """``repeats`` and ``first_runs``, as far as a flag or an ini key says them, unchecked."""

    nightly_suites: tuple[str, ...] = ()
    """What ``pdserve nightly`` runs, relative to the root; empty for ``suites``."""
    nightly_notify: tuple[str, ...] = ()
    """Command that events of a night are given to, as a list of arguments; empty for none."""
    until: str | None = None
    """When a session must have ended, as an ini key says it."""

    @property
    def baseline_folders(self) -> tuple[Path, ...]:
        """Folders that hold one folder per system, the first that has one counts."""
        from pytest_pdserve.results.folders import baseline_folders

        return baseline_folders(self.rootdir)

    def repeats(self, system: System) -> int:
        """Return the runs of a cell on each start of its servers.

        :raises ConfigError: if a flag or an ini key says anything but a number.
        """
        return _number("repeats", self.counts.get("repeats", system.sweep.repeats or 1))

    @property
    def first_runs(self) -> int:
        """Fresh starts on which a cell without a reference is measured.

        :raises ConfigError: as :meth:`repeats`.
        """
        return _number("first-runs", self.counts.get("first_runs", RULE.first_starts))

    def describe(self, system: System) -> str:
        """Return which folders a session of *system* uses, relative to the root below it."""
        from pytest_pdserve.results.baselines import state_folder
        from pytest_pdserve.results.folders import own_folder

        own = own_folder(system, self.rootdir)
        if system.judgement.host_references:
            own = state_folder() / "baselines" / system.name
        baseline, runs = self._below(own), self._below(self.runs)
        return f"rootdir {self.rootdir}, baseline in {baseline}, records in {runs}"

    def _below(self, path: Path) -> Path:
        return path.relative_to(self.rootdir) if path.is_relative_to(self.rootdir) else path


def project_of(config: pytest.Config, options: Any) -> Project:
    """Return the project of a pytest configuration.

    A flag on the command line comes before an ini key. A folder that a flag names is relative to
    the working folder, one that an ini key names to pytest's root.

    :param options: has ``pdserve_system``, ``pdserve_topology``, ``pdserve_runs``,
        ``pdserve_history``, ``pdserve_repeats`` and ``pdserve_first_runs``, each None where no flag
        was given.
    :raises ConfigError: if a flag is empty, or an ini key is of a wrong type.
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
            name: said for name in COUNTS if (said := _said(config, options, name)) is not None
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


def _said(config: pytest.Config, options: Any, name: str) -> object:
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
    """Return what the flag of ``pdserve_<name>`` says; None where it was not given.

    :raises ConfigError: if it says ``--``, which argparse before Python 3.13 makes a list of.
    """
    value = getattr(options, f"pdserve_{name}")
    if value == [] or (isinstance(value, list) and [] in value):
        flag = name if name in ("system", "topology") else f"pdserve-{name.replace('_', '-')}"
        raise ConfigError(f"--{flag} '--' says nothing: give it a value, or leave it out")
    return value


def ini_value(config: pytest.Config, name: str) -> Any:
    """Return what the ini key ``pdserve_<name>`` says; None where it says nothing.

    :raises ConfigError: if it is of a wrong type.
    """
    key, where = f"pdserve_{name}", f" of {config.inipath}" if config.inipath else ""
    try:
        value = config.getini(key)
    except (pytest.UsageError, TypeError, ValueError) as error:  # before pytest 9 the last two
        said = str(error)
        if key not in said:  # of a switch that is neither on nor off; other sentences name it
            said = f"ini key {key}{where}: {said}, expected true or false"
        raise ConfigError(said) from error
    if isinstance(value, list | dict) and name not in INI_LISTS:
        raise ConfigError(f"ini key {key}{where}: {value!r:.80}, expected one text")
    return None if value in ("", []) else value
