"""Files of client offsets: by how much a benchmark client measures too much or too little."""

from __future__ import annotations

from pathlib import Path

from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.folders import own_folder
from pytest_pdserve.results.kinds import CLIENT_OFFSETS
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.values.client_offsets import ClientOffsets
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System


def offsets_path(system: System, rootdir: Path, kind: str) -> Path:
    """Return the file of a kind of client: with the baseline, or of this host."""
    by_host = system.judgement.host_references
    folder = state_folder() / "baselines" / system.name if by_host else own_folder(system, rootdir)
    return folder / f"client.{kind}.json"


def load_offsets(system: System, rootdir: Path, kind: str) -> ClientOffsets | None:
    """Read the offsets of a kind of client; None if they were not measured.

    :raises ConfigError: if the file is malformed, or of another client.
    """
    path = offsets_path(system, rootdir, kind)
    if not is_there(path):
        return None
    found = CLIENT_OFFSETS.parse(load_json(path), path)
    if found.client != kind:
        raise ConfigError(f"{path}: /client: is {found.client!r}, expected {kind!r}")
    numbers = [row.streams for row in found.rows]
    if numbers != sorted(set(numbers)):
        raise ConfigError(
            f"{path}: /rows: streams {numbers}, expected each once, in ascending order"
        )
    return found


def write_offsets(offsets: ClientOffsets, system: System, rootdir: Path) -> Path:
    """Write the offsets of a kind of client; return the file.

    :raises StoreError: if it cannot be written.
    """
    path = offsets_path(system, rootdir, offsets.client)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, CLIENT_OFFSETS.dump(offsets, path))
    return path
