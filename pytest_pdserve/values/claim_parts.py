"""What claims consist of: where they hold, what must hold there, and the entry of a file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated
from typing import Literal

from msgspec import Meta

from pytest_pdserve.values.sweep import Lengths
from pytest_pdserve.values.sweep import Point
from pytest_pdserve.values.workload import Concurrency
from pytest_pdserve.values.workload import Workload

Kind = Literal[
    "below",
    "above",
    "lowest",
    "highest",
    "best",
    "ratio",
    "difference",
    "within",
    "rank",
    "monotone",
    "crossover",
    "spread",
    "joint",
]
_Text = Annotated[str, Meta(min_length=1)]
_Unique = Meta(min_length=1, extra_json_schema={"uniqueItems": True})
_Topologies = Annotated[tuple[str, ...], _Unique]

Panel = Literal["prefill", "decode", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How requests arrive in a regime."""

    request_rate: Annotated[float, Meta(gt=0)] | None = None
    """Open-loop arrival rate, req/s; None admits any."""
    max_concurrency: Concurrency | None = None
    """Requests in flight at most; None admits any."""

    def admits(self, workload: Workload) -> bool:
        """Tell whether *workload* arrives like that."""
        return self.request_rate in (None, workload.request_rate) and (
            self.max_concurrency in (None, workload.max_concurrency)
        )


def saturated(workload: Workload) -> bool:
    """Tell whether *workload* sends all requests at once, with no bound on those in flight."""
    bound, prompts = workload.max_concurrency, workload.num_prompts
    unbounded = bound is None or (
        isinstance(bound, int) and isinstance(prompts, int) and bound >= prompts
    )
    return workload.request_rate is None and workload.ramp_up is None and unbounded


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Points of a sweep, by panel and lengths."""

    panel: Panel
    """Which of the article's panels; ``both`` is the points of either."""
    input_lens: Lengths = ()
    """Article input lengths; empty is all of the panel."""
    output_lens: Lengths = ()
    """Article output lengths; empty is all of the panel."""

    def admits(self, point: Point) -> bool:
        """Tell whether *point* is one of them, by the article's own lengths."""
        if point.article_lengths is None:
            return False
        input_len, output_len = point.article_lengths
        return (
            (self.panel in point.panels or (self.panel == "both" and bool(point.panels)))
            and input_len in (self.input_lens or (input_len,))
            and output_len in (self.output_lens or (output_len,))
        )


@dataclass(frozen=True, kw_only=True)
class Regime(Cells):
    """The points of a sweep that a claim speaks of, and how requests arrive there."""

    load: Load | Literal["saturated"] | None = None
    """How requests arrive; None admits any load."""

    def admits(self, point: Point) -> bool:
        """Tell whether *point* lies in the regime."""
        return super().admits(point) and self._admits_load(point.workload)

    def _admits_load(self, workload: Workload) -> bool:
        if self.load == "saturated":
            return saturated(workload)
        return self.load is None or self.load.admits(workload)

    def axis(self, point: Point) -> int:
        """Return where *point* lies on the panel's axis: its prompt length, or its output length.

        :raises ValueError: of a point without lengths, which no regime admits.
        """
        if point.article_lengths is None:
            raise ValueError(f"{point.id} has no lengths")
        return point.article_lengths[0 if self.panel == "prefill" else 1]


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One thing that must hold; most claims are one, a joint claim is several."""

    kind: Kind | None = None
    """How topologies relate; None for what cannot be decided."""
    metric: str = ""
    """One of :func:`quantities`."""
    subject: str | None = None
    """What it is about, where it is compared with others."""
    others: _Topologies = ()
    """What the subject is compared with."""
    topologies: _Topologies = ()
    """What it is about, where nothing is compared with others."""
    margin: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Least advantage, as a fraction: 0.05 asks for 5 % better."""
    low: float | None = None
    """Least ratio, difference, value or rank that is admitted."""
    high: float | None = None
    """Largest that is admitted."""
    direction: Literal["rises", "falls", "smaller", "larger"] | None = None
    """Where a sweep or a spread goes."""
    better_at: Lengths = ()
    """Points of the panel's axis where the subject is better."""
    worse_at: Lengths = ()
    """Points where it is worse."""
    versus: Cells | None = None
    """Cells that a spread is compared with."""
    measure: Literal["difference", "ratio"] = "difference"
    """What a spread is: difference or ratio of the largest and the least."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """What it is about; where there are others, the one subject."""
        return self.topologies if self.subject is None else (self.subject,)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest that are admitted."""
        return (
            -math.inf if self.low is None else self.low,
            math.inf if self.high is None else self.high,
        )

    @property
    def named(self) -> tuple[str, ...]:
        """Every topology that takes part, once."""
        return tuple(dict.fromkeys((*self.subjects, *self.others)))

    @property
    def helped(self) -> tuple[str, ...]:
        """Topologies that could make it hold by a lower value."""
        if self.kind in ("monotone", "spread"):
            return ()
        if self.kind in ("below", "lowest", "best"):
            return self.subjects
        return self.others if self.kind in ("above", "highest") else self.named


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a claim says in words, and who says it."""

    id: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]*$")]
    """Short name, used as test id."""
    text: _Text
    """The statement in words."""
    reason: _Text
    """Why it should hold."""
    source: _Text
    """Who says so."""
    per: Literal["gpu"] | None = None
    """``gpu`` divides throughput by the GPUs of its topology, so that topologies of unequal size
    can be compared; None compares as measured, topologies of equal size only."""
    number: Annotated[int, Meta(ge=1)] | None = None
    """Number of the statement in the list that it was taken from."""
    undecidable: _Text | None = None
    """Why no measurement of this kind can tell; such a claim is shown, never judged."""


@dataclass(frozen=True, kw_only=True)
class ClaimEntry(Statement, Relation):
    """A claim as its file has it: regime and relation are keys beside the statement."""

    panel: Panel | None = None
    """As of :class:`Regime`, as the next three."""
    input_lens: Lengths = ()
    output_lens: Lengths = ()
    load: Load | Literal["saturated"] | None = None
    relations: Annotated[tuple[Relation, ...], Meta(min_length=2)] = ()
    """What must hold together; of a joint claim."""
