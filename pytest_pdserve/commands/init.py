"""``pdserve init``: write a small project that runs without changes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from pytest_pdserve.commands.arguments import next_lines
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError

NAME = "init"
TEXT = "Write a small project that runs without changes: system, suite, claim, pytest settings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="Folder to write it to")


def run(options: argparse.Namespace) -> int:
    """Write the project, and print what was written.

    :raises ConfigError: if one of its files exists.
    :raises StoreError: if one cannot be written.
    """
    folder: Path = options.folder
    files = dict(_files(resources.files("pytest_pdserve") / "template"))
    existing = sorted(str(folder / name) for name in files if is_there(folder / name))
    if existing:
        raise ConfigError(
            f"{existing[0]} exists, and pdserve init does not overwrite files; name another folder"
        )
    for name, source in files.items():
        _write(folder / name, source.read_text(encoding="utf-8"))
    print("\n".join([f"wrote    {folder / name}" for name in files]))
    print("\n".join(next_lines(f"cd {folder} && pytest")))
    return 0


def _files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """Yield every file of a folder with its path in it, in order."""
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        name = f"{prefix}{entry.name}"
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _files(entry, f"{name}/")
        elif entry.is_file():
            yield name, entry


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a null character
        why = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{path} cannot be written: {why}") from error
