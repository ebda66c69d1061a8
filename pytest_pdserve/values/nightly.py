"""The nights of a system: what changed from one to the next, and what is kept for the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from datetime import date
from typing import Annotated
from typing import Literal
from typing import get_args

from msgspec import Meta

from pytest_pdserve.values.text import Day
from pytest_pdserve.values.text import Line
from pytest_pdserve.values.text import Utc
from pytest_pdserve.values.text import Word

Step = Literal["run", "report", "history", "notify"]
"""What a night does."""
STEPS: tuple[Step, ...] = get_args(Step)
"""Every step, in order."""
EventKind = Literal["new", "still", "gone", "cluster-trouble", "cluster-ok"]
"""What became of a regression, or of the machines:

- ``new``: a regression is confirmed that was not there before;
- ``still``: it is there tonight too;
- ``gone``: two nights that measured it found nothing, or it has not been measured for long;
- ``cluster-trouble``: machines, servers or the network failed tonight;
- ``cluster-ok``: they no longer do.
"""
Group = Literal["speed", "counts", "claim", "answers"]
"""What of a cell is worse: latencies and throughputs, which move together; counts that must not
change, or values that are missing; a claim; the answers that a smoke test got."""
NightCount = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of state, as a notifier reads it on standard input: JSON, one event a call.

    What is in it may come from servers and logs: a notifier must escape it.
    """

    kind: EventKind
    """What happened."""
    key: Word
    """The same for every event of one regression, and for no other; of trouble with machines the
    same for every night of it."""
    title: Line
    """What it is about, in one line."""
    system: Word
    """Name of the system."""
    topology: str = ""
    """Topology id; several, with commas, of a claim; empty of trouble with machines."""
    cells: tuple[str, ...] = ()
    """Topology and workload of each cell that it is about."""
    metrics: tuple[str, ...] = ()
    """Metrics that are worse."""
    since: date
    """First night on which it was suspicious, or on which machines failed."""
    night: date
    """This night."""
    evidence: tuple[str, ...] = ()
    """What was seen tonight, a sentence each."""
    changed: tuple[str, ...] = ()
    """Versions, images and nodes that changed on the night of :attr:`since`, a sentence each."""
    confirmed: str = ""
    """How it was confirmed, one sentence; empty where nothing needed to be."""
    records: tuple[str, ...] = ()
    """Paths of the records that show it."""
    expected: tuple[str, ...] = ()
    """Entries of expected.toml that cover it, with who set them and until when."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A regression, or a suspicion of one, that is followed from night to night."""

    key: Word
    """As :attr:`Event.key`."""
    title: Line
    """As :attr:`Event.title`."""
    topology: str
    """As :attr:`Event.topology`."""
    group: Group
    """What is worse."""
    whole: bool = False
    """Whether it is a topology as a whole."""
    cells: tuple[str, ...] = ()
    """As :attr:`Event.cells`."""
    metrics: tuple[str, ...] = ()
    """As :attr:`Event.metrics`."""
    since: date
    """First night on which it was suspicious."""
    changed: tuple[str, ...] = ()
    """What changed on that night."""
    confirmed: bool = False
    """Whether it is a regression; False of a suspicion."""
    nights_gone: NightCount = 0
    """Nights in a row that measured it and found nothing."""
    nights_unmeasured: NightCount = 0
    """Nights in a row that did not measure it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlyState:
    """What a night leaves for the next one."""

    system: Word
    """Name of the system."""
    night: Day | None = None
    """The newest night whose report was read; None before the first."""
    session: str = ""
    """Session of that report; empty where it measured nothing."""
    begun: Day | None = None
    """Night that has begun and whose report has not been read yet; None between nights."""
    ended_at: Utc | None = None
    """When the state was written."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the newest night that measured anything."""
    nodes: tuple[str, ...] = ()
    """Nodes of that night."""
    followed: tuple[Followed, ...] = ()
    """Regressions and suspicions."""
    trouble_since: date | None = None
    """First night of trouble with machines; None without."""
    undelivered: tuple[Event, ...] = ()
    """Events that the notifier did not take, oldest first: they are sent again."""
