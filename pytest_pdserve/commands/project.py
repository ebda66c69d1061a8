"""Find the project of a ``pdserve`` command, as pytest finds it."""

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

    pytest itself finds it, with ``addopts`` and ``PYTEST_ADDOPTS``, but without other plugins and
    conftest.py.

    :raises ConfigError: with the message of pytest, if pytest cannot use its settings.
    """
    arguments = ["-s", "--disable-plugin-autoload", "-p", _plugin()]
    if options.config_file is not None:
        if not os.path.isfile(options.config_file):
            raise ConfigError(f"--config-file {options.config_file}: expected a file that exists")
        arguments += ["-c", options.config_file]
    if options.rootdir is not None:
        arguments += ["--rootdir", options.rootdir]
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            pytest.main(arguments, plugins=[_Finder(options)])
    except _FoundProject as found:
        return found.project
    except (OSError, ValueError) as error:  # e.g. an ini file that is not UTF-8 text
        raise ConfigError(f"pytest cannot use its settings: {error}") from error
    raise ConfigError(
        f"pytest cannot use its settings: {stderr.getvalue().strip().removeprefix('ERROR: ')}"
    )


def system_in(project: Project) -> System:
    """Read the project's system; print the folders in use on standard error.

    :raises ConfigError: if there is none, or it is malformed.
    """
    from pytest_pdserve.backends.systems import load_system
    from pytest_pdserve.serving.model import with_model_path

    system = with_model_path(load_system(project.system, project.baseline_folders))
    print(f"pdserve: {project.describe(system)}", file=sys.stderr)
    return system


class _FoundProject(Exception):
    """Raised to stop pytest as soon as it has found the project."""

    def __init__(self, project: Project) -> None:
        super().__init__()
        self.project = project


class _Finder:
    """A plugin that only reads the root and the ini keys."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config) -> None:
        """Read the settings, and stop pytest.

        :raises _FoundProject: always.
        """
        arguments = early_config.known_args_namespace
        for name in ("system", "topology", "runs", "history"):
            given = getattr(self._options, name, None)
            if given is not None:
                setattr(arguments, f"pdserve_{name}", given)
        raise _FoundProject(project_of(early_config, arguments))


def _plugin() -> str:
    """Return the plugin's name for ``-p``: that of its entry point, to avoid loading it twice.

    There is no entry point if the package is only on ``PYTHONPATH``.
    """
    return "pdserve" if [*metadata.entry_points(group="pytest11", name="pdserve")] else _PLUGIN
