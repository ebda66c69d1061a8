"""Provenance that all records of a session share, before nodes are acquired."""

from __future__ import annotations

from pathlib import Path

from pytest_pdserve.backends.hosts.versions import find_versions
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.registry import client_kind
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.client_offsets import load_offsets
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.serving.provenance import git_commit
from pytest_pdserve.serving.provenance import measured_on
from pytest_pdserve.values.system import System


def provenance_before(system: System, rootdir: Path) -> Provenance:
    """Return versions, hardware and client of a session, as far as they are known yet.

    :param rootdir: folder of the project.
    :raises ConfigError: if the client's offsets cannot be read.
    """
    hardware = {} if system.figures else backend_of(system).describe_hardware(system)
    versions = {k: v for k, v in find_versions().items() if k == "pytest-pdserve"}
    if (commit := git_commit(rootdir)) is not None:
        versions["commit"] = commit
    kind = client_kind(system)
    return Provenance(
        client_kind=kind,
        client_offsets=load_offsets(system, rootdir, kind),
        versions=versions,
        host=measured_on(hardware, system),
        fingerprint=fingerprint(hardware, system),
    )
