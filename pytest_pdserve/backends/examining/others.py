"""Rows of ``pdserve doctor`` about what only other systems need."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from collections.abc import Collection

from pytest_pdserve.backends.examining import machine
from pytest_pdserve.backends.examining import software
from pytest_pdserve.backends.hosts.facts import list_gpus
from pytest_pdserve.results.compatibility import installed_version
from pytest_pdserve.results.compatibility import known_packages
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.prerequisites import unneeded
from pytest_pdserve.values.system import System


def unneeded_rows(system: System, have: Collection[str]) -> list[Prerequisite]:
    """Return a row for each thing that other systems need and *system* does not.

    :param have: names of the rows that already exist.
    """
    makers: dict[str, Callable[[], Prerequisite]] = {
        **{name: functools.partial(_package_row, name) for name in ("vLLM", "router", "NIXL")},
        **{
            software.plugin_name(name): functools.partial(software.other_plugin_row, name, system)
            for name in software.PLUGINS
        },
        machine.GPUS: lambda: machine.gpus_row(0, list_gpus()),
        machine.FABRIC: lambda: machine.fabric_row(False, *machine.fabric_facts()),
        machine.ENGINE: lambda: machine.engine_row(system),
        machine.SLURM_COMMANDS: lambda: unneeded(
            machine.SLURM_COMMANDS, "on PATH" if shutil.which("sbatch") else "none"
        ),
    }
    return [make() for what, make in makers.items() if what not in have]


def _package_row(name: str) -> Prerequisite:
    return unneeded(name, installed_version(known_packages()[name]) or "none")
