"""Baselines: what the nights of one suite on one system showed."""

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
    """What one night showed of a cell."""

    session: Word
    """Id of the session, one of the baseline's."""
    starts: Annotated[int, Meta(ge=1, le=1000)] = 1
    """Fresh starts that each value is the median of."""
    values: Annotated[Mapping[Word, Positive], Meta(min_length=1)]
    """Value by metric, in the metric's unit."""
    client: Word = UNNAMED_CLIENT
    """Kind of the benchmark client, as of :attr:`.record.Record.client_kind`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellBaseline:
    """The baseline of one cell."""

    counts: Mapping[Word, Count] = field(default_factory=dict)
    """Counts that no run may change, such as tokens and KV transfers."""
    nights: Annotated[tuple[Night, ...], Meta(min_length=1)]
    """Oldest first."""

    def starts(self, metric: str) -> int:
        """Return the fresh starts of the first night that has a value of *metric*.

        :raises StopIteration: if no night has one.
        """
        return next(night.starts for night in self.nights if metric in night.values)

    def values(self, metric: str) -> tuple[float, ...]:
        """Return the value of *metric* in each night that has one, oldest first."""
        return tuple(night.values[metric] for night in self.nights if metric in night.values)

    @property
    def clients(self) -> tuple[str, ...]:
        """Kinds of client that nights were measured with."""
        return tuple(dict.fromkeys(night.client for night in self.nights))

    def of_client(self, kind: str) -> CellBaseline | None:
        """Return the nights of one kind of client; None if there is none.

        Counts are those of the first night: another client may send other prompts.
        """
        nights = tuple(night for night in self.nights if night.client == kind)
        if not nights:
            return None
        counts = self.counts if self.nights[0].client == kind else {}
        return replace(self, nights=nights, counts=counts)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that a night has a value of."""
        return tuple(dict.fromkeys(name for night in self.nights for name in night.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One session that nights come from."""

    id: Word
    """Name of its run folder."""
    started_at: Utc | None = None
    """As of :class:`SessionRef`, as the next."""
    simulated_night: int | None = None
    versions: Mapping[Word, Line] = field(default_factory=dict)
    """Package or component and version."""
    nodes: tuple[Word, ...] = ()
    """Nodes that served."""

    @property
    def session(self) -> SessionRef:
        """The session."""
        return SessionRef(
            id=self.id, started_at=self.started_at, simulated_night=self.simulated_night
        )


Cells = Mapping[Word, Mapping[Word, CellBaseline]]
"""Topology, workload id -> its baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What the nights of one suite on one system showed."""

    system: Word
    """System's name."""
    suite: Word
    """Suite, e.g. ``sweep``."""
    source: str
    """File it was read from, or will be written to."""
    fingerprint: Word | None = None
    """Digest of hardware and system file; None where the values hold on any."""
    host: Mapping[str, str] = field(default_factory=dict)
    """What the fingerprint was made of."""
    approver: Word | None = None
    """Who accepted it; None of nights that joined by themselves."""
    accepted_on: Day | None = None
    """When."""
    note: Line | None = None
    """What they wrote."""
    sessions: tuple[Source, ...] = ()
    """Sessions that nights come from, oldest first."""
    cells: Cells = field(default_factory=dict)
    """By topology and workload id."""

    def cell(self, key: Key) -> CellBaseline | None:
        """Return the baseline of one cell; None if there is none."""
        return self.cells.get(key[0], {}).get(key[1])

    def of_client(self, kind: str) -> Self:
        """Return what was measured with one kind of client: cells, and sessions of their nights."""
        cells: dict[str, dict[str, CellBaseline]] = {}
        for topology, workload in self.keys:
            cell = self.cells[topology][workload].of_client(kind)
            if cell is not None:
                cells.setdefault(topology, {})[workload] = cell
        nights = [n for there in cells.values() for cell in there.values() for n in cell.nights]
        used = {night.session for night in nights}
        sessions = tuple(source for source in self.sessions if source.id in used)
        return replace(self, cells=cells, sessions=sessions)

    @property
    def clients(self) -> tuple[str, ...]:
        """Kinds of client that nights were measured with."""
        cells = (cell for there in self.cells.values() for cell in there.values())
        return tuple(sorted({kind for cell in cells for kind in cell.clients}))

    def with_other_clients(self, other: Baseline) -> Self:
        """Return this with the nights of *other* that are of other kinds of client."""
        cells = {topology: dict(there) for topology, there in self.cells.items()}
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
        """The newest session; None of a baseline without any."""
        return self.sessions[-1] if self.sessions else None

    @property
    def origin(self) -> str:
        """File, versions and who accepted it, for messages."""
        versions = self.newest.versions if self.newest else {}
        said = [f"{label} {versions[key]}" for key, label in LABELS if key in versions]
        if self.approver is not None:
            said.append(f"accepted by {self.approver} on {self.accepted_on}")
        return f"{self.source} ({', '.join(said)})" if said else self.source

    def joined(self, key: Key, night: Night, counts: Mapping[str, float], source: Source) -> Self:
        """Return the baseline with one more night of a cell.

        Nothing changes where the cell has the night already, or all that join by themselves of one
        kind of client.
        """
        old = self.cell(key)
        nights = old.nights if old else ()
        alike = [each for each in nights if each.client == night.client]
        if len(alike) >= RULE.max_nights or any(n.session == night.session for n in alike):
            return self
        cell = CellBaseline(counts=(old.counts if old else counts), nights=(*nights, night))
        cells = {topology: dict(there) for topology, there in self.cells.items()}
        cells.setdefault(key[0], {})[key[1]] = cell
        known = any(each.id == source.id for each in self.sessions)
        sessions = self.sessions if known else (*self.sessions, source)
        return replace(self, cells=cells, sessions=sessions)


LABELS = (("vllm", "vLLM"), ("nixl", "NIXL"), ("vllm-router", "router"))
"""Components that messages name, and what they call them."""
