"""The project that a command of ``pdserve`` works in: the one that pytest would find."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.session.project import Project
from pytest_pdserve.session.project import project_of
from pytest_pdserve.values.errors import ConfigError

if TYPE_CHECKING:
    from pytest_pdserve.values.system import System

_PLUGIN = "pytest_pdserve.plugin.hooks"


def find_project(options: argparse.Namespace) -> Project:
    """Return the project of the working folder, or the one that *options* names.

    pytest itself looks for it, with ``addopts`` and ``PYTEST_ADDOPTS``; it loads no other plugin
    and no conftest.py.

    :raises ConfigError: if pytest cannot use its settings, with its own sentence.
    """
    arguments = ["-s", "--disable-plugin-autoload", "-p", _plugin()]
    if options.config_file is not None:
        if not os.path.isfile(options.config_file):
            raise ConfigError(f"--config-file {options.config_file}: expected a file that exists")
        arguments += ["-c", options.config_file]
    if options.rootdir is not None:
        arguments += ["--rootdir", options.rootdir]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            pytest.main(arguments, plugins=[_Finder(options)])
    except _FoundProject as found:
        return found.project
    except (OSError, ValueError) as error:  # e.g. an ini file that is not UTF-8 text
        raise ConfigError(f"pytest cannot use its settings: {error}") from error
    raise ConfigError(
        f"pytest cannot use its settings: {said.getvalue().strip().removeprefix('ERROR: ')}"
    )


def system_in(project: Project) -> System:
    """Read the project's system, and say on standard error which folders are used.

    :raises ConfigError: if there is none, or it is malformed.
    """
    from pytest_pdserve.backends.systems import load_system
    from pytest_pdserve.serving.model import with_model_path

    system = with_model_path(load_system(project.system, project.baseline_folders))
    print(f"pdserve: {project.describe(system)}", file=sys.stderr)
    return system


class _FoundProject(Exception):
    """Ends pytest as soon as it has found the project."""

    def __init__(self, project: Project) -> None:
        super().__init__()
        self.project = project


class _Finder:
    """A plugin that wants nothing of pytest but its root and its ini keys."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config) -> None:
        """Read the settings, and go no further.

        :raises _FoundProject: always.
        """
        known = early_config.known_args_namespace
        for name in ("system", "topology", "runs", "history"):
            given = getattr(self._options, name, None)
            if given is not None:
                setattr(known, f"pdserve_{name}", given)
        raise _FoundProject(project_of(early_config, known))


def _plugin() -> str:
    """The plugin's name for ``-p``: that of its entry point, under which it may be loaded already.

    It has none where the package is only on ``PYTHONPATH``.
    """
    return "pdserve" if [*metadata.entry_points(group="pytest11", name="pdserve")] else _PLUGIN
