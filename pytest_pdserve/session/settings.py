"""What a session was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pytest_pdserve.session.project import Project
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user asked for."""

    topologies: tuple[Topology, ...]
    """Topologies to measure, in order."""
    system: System
    """What to measure on; model path as in its file."""
    project: Project
    """Root, runs folder, and what its settings say."""
    repeats: int
    """Runs of a cell on each start of its servers; the first is judged."""
    first_runs: int
    """Fresh starts on which a cell without a reference is measured."""
    record: bool
    """Whether nights join the baseline."""
    strict: bool
    """Whether an unmet requirement or unproven check fails."""
    job_id: str | None = None
    """Running job whose nodes are used."""
    until: datetime | None = None
    """When the session must have ended; None without a deadline."""
    report: Path | None = None
    """File that the report is written to, beside the one in the run folder."""
