"""Transfers measured without a model, kept for later sessions in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import TRANSFER
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.transfer import TransferRecord
from pytest_pdserve.values.transfer import TransferShape

_VERSIONS = ("nixl", "libfabric", "driver", "efa")
"""Components whose versions are part of a measurement's key."""


def bare_folder() -> Path:
    """Return the cache folder of transfers measured without a model."""
    cache = Path(platformdirs.user_cache_dir("pytest-pdserve", appauthor=False))
    return cache / "transfers"


@dataclass(frozen=True, slots=True, kw_only=True)
class BareKey:
    """Everything that a transfer without a model depends on."""

    hosts: Sequence[str]
    """Machines of the reader and of the source; one if all nodes are slots of the same machine."""
    fingerprint: str
    """Digest of the hardware and of the system file, with the environment of its instances."""
    backend: str
    """NIXL backend."""
    provider: str
    """Transport, as set by the environment."""
    versions: Mapping[str, str]
    """Package to version, of the session."""
    shape: TransferShape
    """Shape of the transfer."""

    @property
    def path(self) -> Path:
        """File of the measurement."""
        versions = {name: self.versions[name] for name in _VERSIONS if name in self.versions}
        data = [
            *(list(self.hosts), self.fingerprint, self.backend, self.provider, versions),
            asdict(self.shape),
        ]
        text = json.dumps(data, sort_keys=True)
        return bare_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def load_bare(key: BareKey) -> TransferRecord | None:
    """Read the stored measurement; None if there is none, or it cannot be read."""
    path = key.path
    if not is_there(path):
        return None
    try:
        return TRANSFER.parse(load_json(path), path)
    except ConfigError:
        return None


def keep_bare(key: BareKey, record: TransferRecord) -> None:
    """Store a measurement, in place of an earlier one.

    :raises StoreError: if it cannot be written.
    """
    write_json(key.path, TRANSFER.dump(record, key.path))
