"""``pdserve nightly``: events of a night, and the state that is kept for the next."""

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
"""Steps of a night."""
STEPS: tuple[Step, ...] = get_args(Step)
"""All steps, in order."""
EventKind = Literal["new", "still", "gone", "cluster-trouble", "cluster-ok"]
"""Kinds of events, about a regression or about machines:

- ``new``: a new regression is confirmed;
- ``still``: a regression persists;
- ``gone``: two nights that measured it found nothing, or it has not been measured for long;
- ``cluster-trouble``: machines, servers or the network failed tonight;
- ``cluster-ok``: they work again.
"""
Group = Literal["speed", "counts", "claim", "answers"]
"""What is worse: latencies and throughputs (which change together); counts that must not change,
or missing values; a claim; answers in a smoke test."""
NightCount = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A change of state, which a notifier gets as JSON on standard input, one event per call.

    Its texts may come from servers and logs: a notifier must escape them.
    """

    kind: EventKind
    """Kind of event."""
    key: Word
    """Unique id of the regression, the same in all of its events; for trouble with machines, the
    same on all of its nights."""
    title: Line
    """Title, in one line."""
    system: Word
    """Name of the system."""
    topology: str = ""
    """Topology id; for a claim several, separated by commas; empty for trouble with machines."""
    cells: tuple[str, ...] = ()
    """Topology and workload of each affected cell."""
    metrics: tuple[str, ...] = ()
    """Metrics that are worse."""
    since: date
    """First night on which it was suspicious, or on which machines failed."""
    night: date
    """Night of the event."""
    evidence: tuple[str, ...] = ()
    """Evidence of this night, a sentence each."""
    changed: tuple[str, ...] = ()
    """Versions, images and nodes that changed on the night of :attr:`since`, a sentence each."""
    confirmed: str = ""
    """How it was confirmed, in one sentence; empty if confirmation was not needed."""
    records: tuple[str, ...] = ()
    """Paths of its records."""
    expected: tuple[str, ...] = ()
    """Entries of expected.toml that cover it, with owner and last day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A regression, or a suspicion of one, that is tracked from night to night."""

    key: Word
    """As in :attr:`Event.key`."""
    title: Line
    """As in :attr:`Event.title`."""
    topology: str
    """As in :attr:`Event.topology`."""
    group: Group
    """What is worse."""
    whole: bool = False
    """True if it is about a topology as a whole."""
    cells: tuple[str, ...] = ()
    """As in :attr:`Event.cells`."""
    metrics: tuple[str, ...] = ()
    """As in :attr:`Event.metrics`."""
    since: date
    """First night on which it was suspicious."""
    changed: tuple[str, ...] = ()
    """As in :attr:`Event.changed`."""
    confirmed: bool = False
    """True if it is a confirmed regression; False for a suspicion."""
    nights_gone: NightCount = 0
    """Nights in a row that measured it and found nothing."""
    nights_unmeasured: NightCount = 0
    """Nights in a row that did not measure it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlyState:
    """State that a night keeps for the next one."""

    system: Word
    """Name of the system."""
    night: Day | None = None
    """Newest night whose report was processed; None before the first."""
    session: str = ""
    """Session of that report; empty if it measured nothing."""
    begun: Day | None = None
    """Night that has begun but whose report is not processed yet; None between nights."""
    ended_at: Utc | None = None
    """Time at which the state was written."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the newest night that measured anything."""
    nodes: tuple[str, ...] = ()
    """Nodes of that night."""
    followed: tuple[Followed, ...] = ()
    """Regressions and suspicions."""
    trouble_since: date | None = None
    """First night of the present trouble with machines; None without any."""
    undelivered: tuple[Event, ...] = ()
    """Events for which the notifier failed, oldest first; they are sent again."""
