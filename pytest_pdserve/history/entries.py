"""Facts about a session that the store keeps beside its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.workload import Workload

FORM = 2
"""Form of rows that are written; from 2 on they contain the verdict and the nodes of instances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEntry:
    """One session of one system."""

    session: SessionRef
    system: str
    """Name of the system."""
    simulated: bool = False
    """True if it was simulated, without servers."""
    fingerprint: str
    """Digest of :attr:`host`."""
    host: Mapping[str, str] = field(default_factory=dict)
    """Hardware, and everything in the system file that affects a measurement."""
    client_kind: str
    """Kind of the benchmark client."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package or component to version."""
    nodes: tuple[str, ...] = ()
    """Nodes that served."""
    image: str = ""
    """Container image; empty without one."""
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    """Workload by its id."""
    runs: Mapping[str, int]
    """Number of runs by status: valid, unproven, invalid."""
    source: str
    """Run folder or file that it was imported from."""
    judged: bool = False
    """True if its rows have the verdicts of the session's own report."""
    form: int = 1
    """Form of its rows; :data:`FORM` is the newest."""

    @property
    def key(self) -> tuple[str, str]:
        """System and session id, which identify a session."""
        return self.system, self.session.id

    @property
    def run_count(self) -> int:
        """Number of its runs."""
        return sum(self.runs.values())

    @property
    def completeness(self) -> tuple[int, bool, int]:
        """Runs, verdicts and form; of two entries of one session the greater is used."""
        return self.run_count, self.judged, self.form
