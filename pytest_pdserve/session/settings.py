"""Settings of a session, from options and ini keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pytest_pdserve.session.project import Project
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a session."""

    topologies: tuple[Topology, ...]
    """Topologies to measure, in order."""
    system: System
    """System to measure; model path as in its file."""
    project: Project
    """Project, with its folders and defaults."""
    repeats: int
    """Runs of a cell on each start of its servers; only the first is judged."""
    first_runs: int
    """Fresh starts on which a cell without a reference is measured."""
    record: bool
    """True if runs may join the baseline."""
    strict: bool
    """True if an unmet requirement or an unproven check fails the session."""
    job_id: str | None = None
    """Id of a running job whose nodes are used; None to acquire nodes."""
    until: datetime | None = None
    """When the session must have ended; None without a deadline."""
    report: Path | None = None
    """Further file for the report, in addition to the one in the run folder; None for none."""
