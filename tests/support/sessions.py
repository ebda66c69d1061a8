"""Sessions on ``p5-efa`` without servers, and cells that they could have measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.store import RECORD_SUFFIX
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.session.cell import Cell
from pytest_pdserve.session.project import Project
from pytest_pdserve.session.session import Session
from pytest_pdserve.session.settings import Settings
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from tests.support.records import SESSION

RUN = SESSION.id
CELL, LONGER = "random-512-256-n4", "random-1024-256-n4"


def project_in(folder: Path) -> Project:
    """Return a project of which only the folders matter."""
    return Project(rootdir=folder, runs=folder / "runs", system="p5-efa", topology="1p3d")


def session_in(
    folder: Path,
    p5_efa: System,
    *,
    record: bool = True,
    host: bool = False,
    shared_host: bool = False,
    first_runs: int = 1,
    fingerprint: str = "here",
    session: SessionRef = SESSION,
) -> Session:
    """Return a session whose runs and baselines lie in *folder*."""
    system = replace(
        p5_efa,
        source=str(folder / "baselines" / "p5-efa" / "system.toml"),
        judgement=replace(p5_efa.judgement, host_references=host),
        sweep=replace(p5_efa.sweep, num_prompts=4),
        cluster=replace(p5_efa.cluster, shared_host=shared_host),
    )
    settings = Settings(
        topologies=(Topology.parse("1p3d"),),
        system=system,
        project=project_in(folder),
        repeats=1,
        first_runs=first_runs,
        record=record,
        strict=False,
    )
    return Session(
        settings=settings,
        system=system,
        store=RunStore(folder=folder / "runs" / RUN, session=session),
        provenance=Provenance(
            versions={}, host={}, fingerprint=fingerprint, cluster={"kind": "slurm"}
        ),
        state=folder / "state",
    )


def cell_in(
    folder: Path,
    make_record: Callable[..., Record],
    metrics: dict[str, float] | None = None,
    **fields: Any,
) -> Cell:
    """Return a cell of one run."""
    record = make_record(metrics, **fields)
    name = f"{record.workload.id}.0{RECORD_SUFFIX}"
    path = folder / "runs" / RUN / record.topology / name
    return Cell(records=(record,), paths=(path,))
