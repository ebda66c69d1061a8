"""Baselines: values of past nights of one suite on one system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import Annotated
from typing import Self

from msgspec import Meta

from pytest_pdserve.values.numbers import LARGEST
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import UNNAMED_CLIENT
from pytest_pdserve.values.text import Day
from pytest_pdserve.values.text import Line
from pytest_pdserve.values.text import Utc
from pytest_pdserve.values.text import Word

Positive = Annotated[float, Meta(gt=0, le=LARGEST)]
Count = Annotated[float, Meta(ge=0, le=LARGEST)]
Key = tuple[str, str]
"""Topology and workload id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """Values of one cell on one night."""

    session: Word
    """Id of its session, one of the baseline's."""
    starts: Annotated[int, Meta(ge=1, le=1000)] = 1
    """Number of starts of which each value is the median."""
    values: Annotated[Mapping[Word, Positive], Meta(min_length=1)]
    """Value by metric, in the metric's unit."""
    client: Word = UNNAMED_CLIENT
    """Kind of the benchmark client, as of :attr:`.record.Record.client_kind`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellBaseline:
    """The baseline of one cell."""

    counts: Mapping[Word, Count] = field(default_factory=dict)
    """Counts that must be the same in every run, such as tokens and KV transfers."""
    nights: Annotated[tuple[Night, ...], Meta(min_length=1)]
    """Nights, oldest first."""

    def starts(self, metric: str) -> int:
        """Return the number of starts of the first night that has a value of *metric*.

        :raises StopIteration: if no night has one.
        """
        return next(night.starts for night in self.nights if metric in night.values)

    def values(self, metric: str) -> tuple[float, ...]:
        """Return the value of *metric* in each night that has one, oldest first."""
        return tuple(night.values[metric] for night in self.nights if metric in night.values)

    @property
    def clients(self) -> tuple[str, ...]:
        """Kinds of client with which nights were measured."""
        return tuple(dict.fromkeys(night.client for night in self.nights))

    def of_client(self, kind: str) -> CellBaseline | None:
        """Return the nights of one kind of client; None if there is none.

        Counts belong to the first night's kind of client: another may send other prompts.
        """
        nights = tuple(night for night in self.nights if night.client == kind)
        if not nights:
            return None
        counts = self.counts if self.nights[0].client == kind else {}
        return replace(self, nights=nights, counts=counts)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that at least one night has a value of."""
        return tuple(dict.fromkeys(name for night in self.nights for name in night.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A session that nights of a baseline come from."""

    id: Word
    """Name of its run folder."""
    started_at: Utc | None = None
    """As in :class:`SessionRef`; the next field too."""
    simulated_night: int | None = None
    versions: Mapping[Word, Line] = field(default_factory=dict)
    """Version by package or component."""
    nodes: tuple[Word, ...] = ()
    """Nodes of its servers."""

    @property
    def session(self) -> SessionRef:
        """Reference to the session."""
        return SessionRef(
            id=self.id, started_at=self.started_at, simulated_night=self.simulated_night
        )


Cells = Mapping[Word, Mapping[Word, CellBaseline]]
"""Baseline of each cell, by topology and workload id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Values of past nights of one suite on one system."""

    system: Word
    """Name of the system."""
    suite: Word
    """Name of the suite, e.g. ``sweep``."""
    source: str
    """File it was read from, or will be written to."""
    fingerprint: Word | None = None
    """Digest of :attr:`host`; None if the values are valid for any hardware."""
    host: Mapping[str, str] = field(default_factory=dict)
    """Hardware and settings of the system file."""
    approver: Word | None = None
    """Person who accepted it; None if all nights joined automatically."""
    accepted_on: Day | None = None
    """Day of the acceptance."""
    note: Line | None = None
    """Comment of the approver."""
    sessions: tuple[Source, ...] = ()
    """Sessions that nights come from, oldest first."""
    cells: Cells = field(default_factory=dict)
    """Baselines of cells, by topology and workload id."""

    def cell(self, key: Key) -> CellBaseline | None:
        """Return the baseline of one cell; None if there is none."""
        return self.cells.get(key[0], {}).get(key[1])

    def of_client(self, kind: str) -> Self:
        """Return the baseline with only the nights of one kind of client, and their sessions."""
        cells: dict[str, dict[str, CellBaseline]] = {}
        for topology, workload in self.keys:
            cell = self.cells[topology][workload].of_client(kind)
            if cell is not None:
                cells.setdefault(topology, {})[workload] = cell
        kept = [cell for workloads in cells.values() for cell in workloads.values()]
        used = {night.session for cell in kept for night in cell.nights}
        sessions = tuple(source for source in self.sessions if source.id in used)
        return replace(self, cells=cells, sessions=sessions)

    @property
    def clients(self) -> tuple[str, ...]:
        """Kinds of client with which nights were measured."""
        cells = (cell for workloads in self.cells.values() for cell in workloads.values())
        return tuple(sorted({kind for cell in cells for kind in cell.clients}))

    def with_other_clients(self, other: Baseline) -> Self:
        """Return the baseline with nights of *other* added for kinds of client that it lacks."""
        cells = {topology: dict(workloads) for topology, workloads in self.cells.items()}
        sources = {source.id: source for source in self.sessions}
        for kind in (kind for kind in other.clients if kind not in self.clients):
            theirs = other.of_client(kind)
            sources = {**{source.id: source for source in theirs.sessions}, **sources}
            for topology, workload in theirs.keys:
                cell = theirs.cells[topology][workload]
                ours = cells.setdefault(topology, {}).get(workload)
                nights = (*(ours.nights if ours else ()), *cell.nights)
                cells[topology][workload] = replace(ours or cell, nights=nights)
        sessions = sorted(sources.values(), key=lambda source: source.started_at or "")
        return replace(self, cells=cells, sessions=tuple(sessions))

    @property
    def keys(self) -> tuple[Key, ...]:
        """Topology and workload id of every cell."""
        return tuple(
            (topology, workload) for topology, cells in self.cells.items() for workload in cells
        )

    @property
    def newest(self) -> Source | None:
        """Newest session; None without sessions."""
        return self.sessions[-1] if self.sessions else None

    @property
    def origin(self) -> str:
        """File, versions and approver, for messages."""
        versions = self.newest.versions if self.newest else {}
        facts = [f"{label} {versions[key]}" for key, label in LABELS if key in versions]
        if self.approver is not None:
            facts.append(f"accepted by {self.approver} on {self.accepted_on}")
        return f"{self.source} ({', '.join(facts)})" if facts else self.source

    def with_night(
        self, key: Key, night: Night, counts: Mapping[str, float], source: Source
    ) -> Self:
        """Return the baseline with one more night of a cell.

        It is unchanged if the cell already has the night, or ``RULE.max_nights`` nights of its kind
        of client.
        """
        old = self.cell(key)
        nights = old.nights if old else ()
        alike = [each for each in nights if each.client == night.client]
        if len(alike) >= RULE.max_nights or any(n.session == night.session for n in alike):
            return self
        cell = CellBaseline(counts=(old.counts if old else counts), nights=(*nights, night))
        cells = {topology: dict(workloads) for topology, workloads in self.cells.items()}
        cells.setdefault(key[0], {})[key[1]] = cell
        has_source = any(each.id == source.id for each in self.sessions)
        sessions = self.sessions if has_source else (*self.sessions, source)
        return replace(self, cells=cells, sessions=sessions)


LABELS = (("vllm", "vLLM"), ("nixl", "NIXL"), ("vllm-router", "router"))
"""Components that messages name, with their labels."""
