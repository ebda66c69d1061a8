"""System files: where they lie and how they are read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

from pytest_pdserve.results.files import load_toml
from pytest_pdserve.results.kinds import SYSTEM
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.simulation import with_preset
from pytest_pdserve.values.system import System

_PACKAGE = Path(__file__).parents[1]
SHIPPED = tuple(
    folder for folder in (_PACKAGE / "baselines", _PACKAGE.parent / "baselines") if folder.is_dir()
)[:1]
"""Baselines of the installed package, or of the checkout it is developed in."""


def baseline_folders(rootdir: Path) -> tuple[Path, ...]:
    """Folders that hold one folder per system: the project's own before the shipped ones."""
    own = rootdir / "baselines"
    return tuple(dict.fromkeys([*([own] if own.is_dir() else []), *SHIPPED]))


def check_own(path: Path) -> None:
    """Refuse to keep what somebody measured inside the installed package.

    The next version replaces it there, and no repository of theirs knows it.

    :param path: system file, or what is to be written beside it.
    :raises ConfigError: with what to copy where.
    """
    if _PACKAGE in path.parents:
        raise ConfigError(
            f"{path} lies inside the installed package, so nothing of yours can be kept beside it; "
            f"make the system your own: mkdir -p baselines && cp -r {path.parent} baselines/"
        )


def load_system(name: str, folders: Sequence[Path]) -> System:
    """Read the system called *name*.

    :raises ConfigError: if no folder knows it, or its file is malformed.
    """
    for folder in folders:
        path = folder / name / "system.toml"
        if os.path.lexists(path):
            data = load_toml(path)
            if isinstance(table := data.get("simulation"), dict):
                data["simulation"] = with_preset(table)
            system = SYSTEM.parse(data, path, name=name, source=str(path))
            _check_rooms(system.judgement.rtol, path)
            try:
                system.check()
            except ConfigError as error:
                raise ConfigError(f"{path}: {error}") from error
            return system
    known = sorted(
        {file.parent.name for folder in folders for file in folder.glob("*/system.toml")}
    )
    raise ConfigError(
        f"system {name!r} is unknown; known are {', '.join(known) or 'none'} "
        f"({', '.join(f'{folder}/<system>/system.toml' for folder in folders)})"
    )


def _check_rooms(rtol: Mapping[str, float], path: Path) -> None:
    for name, room in rtol.items():
        where = f"{path}: /judgement/rtol/{name}"
        if name not in METRICS.measured:
            known = ", ".join(METRICS.measured)
            raise ConfigError(f"{where}: unknown metric {name!r}; known are {known}")
        if METRICS[name].better == "higher" and room >= 1:
            raise ConfigError(f"{where}: {room:g} admits every value; must be below 1")
