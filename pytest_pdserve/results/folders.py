"""Where baselines and system files lie."""

from __future__ import annotations

from pathlib import Path

from pytest_pdserve.values.errors import ConfigError

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
