"""``rehearsal.json``: the results of a rehearsal, from which an interrupted one continues."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import REHEARSAL
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.rehearsal import Rehearsal

FILE = "rehearsal.json"
_ANOTHER = "choose another folder with --output"


def load_rehearsal(path: Path) -> Rehearsal:
    """Read a rehearsal.

    :raises ConfigError: if the file is malformed.
    """
    return REHEARSAL.parse(load_json(path), path)


def write_rehearsal(rehearsal: Rehearsal, folder: Path) -> Path:
    """Write a rehearsal into its folder, over what was written before; return the file.

    :raises StoreError: if the disk does not take it.
    """
    path = folder / FILE
    write_json(path, REHEARSAL.dump(rehearsal, path), otherwise=_ANOTHER)
    return path


def with_stored_results(wanted: Rehearsal, folder: Path) -> Rehearsal:
    """Return *wanted* with the results that are already in its folder.

    :raises ConfigError: if the folder has results of other stacks or models, or of another system.
    """
    path = folder / FILE
    if not is_there(path):
        return wanted
    found = load_rehearsal(path)
    for what, there, here in (
        ("stack A", found.a.digest, wanted.a.digest),
        ("stack B", found.b.digest, wanted.b.digest),
        ("the system", found.fingerprint, wanted.fingerprint),
        ("the models", dict(found.models), dict(wanted.models)),
    ):
        if there != here:
            raise ConfigError(
                f"{path}: {what} is {there}, expected {here}: results of another rehearsal cannot "
                f"be continued; {_ANOTHER}"
            )
    return replace(wanted, started_at=found.started_at, results=found.results)
