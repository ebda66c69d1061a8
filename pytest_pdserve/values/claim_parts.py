"""Parts of claims: regimes, relations, and the entry of a file."""

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
    """Arrival of requests in a regime."""

    request_rate: Annotated[float, Meta(gt=0)] | None = None
    """Open-loop arrival rate, req/s; None for any."""
    max_concurrency: Concurrency | None = None
    """Largest number of requests in flight; None for any."""

    def admits(self, workload: Workload) -> bool:
        """Return whether *workload* arrives at this rate and concurrency."""
        return self.request_rate in (None, workload.request_rate) and (
            self.max_concurrency in (None, workload.max_concurrency)
        )


def saturated(workload: Workload) -> bool:
    """Return whether *workload* sends all requests at once, without a limit on concurrency."""
    bound, prompts = workload.max_concurrency, workload.num_prompts
    unbounded = bound is None or (
        isinstance(bound, int) and isinstance(prompts, int) and bound >= prompts
    )
    return workload.request_rate is None and workload.ramp_up is None and unbounded


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Points of a sweep, by panel and lengths."""

    panel: Panel
    """Panel of the article; ``both`` for the points of either."""
    input_lens: Lengths = ()
    """Input lengths of the article; empty for all of the panel."""
    output_lens: Lengths = ()
    """Output lengths of the article; empty for all of the panel."""

    def admits(self, point: Point) -> bool:
        """Return whether *point* is one of them, by its lengths in the article."""
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
    """Points of a sweep and arrival of requests for which a claim is made."""

    load: Load | Literal["saturated"] | None = None
    """Arrival of requests; ``saturated`` for all at once; None for any."""

    def admits(self, point: Point) -> bool:
        """Return whether *point* is in the regime."""
        return super().admits(point) and self._admits_load(point.workload)

    def _admits_load(self, workload: Workload) -> bool:
        if self.load == "saturated":
            return saturated(workload)
        return self.load is None or self.load.admits(workload)

    def axis(self, point: Point) -> int:
        """Return the position of *point* on the panel's axis: its prompt or output length.

        :raises ValueError: for a point without lengths, which no regime admits.
        """
        if point.article_lengths is None:
            raise ValueError(f"{point.id} has no lengths")
        return point.article_lengths[0 if self.panel == "prefill" else 1]


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A relation that must hold; most claims have one, a joint claim has several."""

    kind: Kind | None = None
    """Kind of relation; None for an undecidable claim."""
    metric: str = ""
    """One of :func:`quantities`."""
    subject: str | None = None
    """Topology that is compared with :attr:`others`; None for kinds that have no others."""
    others: _Topologies = ()
    """Topologies with which the subject is compared."""
    topologies: _Topologies = ()
    """Topologies of kinds without a subject."""
    margin: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Minimum advantage, as a fraction: 0.05 requires 5 % better."""
    low: float | None = None
    """Smallest allowed ratio, difference, value or rank."""
    high: float | None = None
    """Largest allowed one."""
    direction: Literal["rises", "falls", "smaller", "larger"] | None = None
    """Direction of a monotone sweep or a spread."""
    better_at: Lengths = ()
    """Points of the panel's axis at which the subject is better."""
    worse_at: Lengths = ()
    """Points at which it is worse."""
    versus: Cells | None = None
    """Cells whose spread is compared."""
    measure: Literal["difference", "ratio"] = "difference"
    """How a spread is computed: difference or ratio of the largest and the smallest value."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subject, or the topologies of kinds without one."""
        return self.topologies if self.subject is None else (self.subject,)

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest allowed value; infinite if not limited."""
        return (
            -math.inf if self.low is None else self.low,
            math.inf if self.high is None else self.high,
        )

    @property
    def named(self) -> tuple[str, ...]:
        """All topologies of the relation, each once."""
        return tuple(dict.fromkeys((*self.subjects, *self.others)))

    @property
    def helped(self) -> tuple[str, ...]:
        """Topologies whose lower value could make the relation hold."""
        if self.kind in ("monotone", "spread"):
            return ()
        if self.kind in ("below", "lowest", "best"):
            return self.subjects
        return self.others if self.kind in ("above", "highest") else self.named


@dataclass(frozen=True, kw_only=True)
class Statement:
    """Statement of a claim, its reason and its source."""

    id: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]*$")]
    """Short name, used as test id."""
    text: _Text
    """The statement in words."""
    reason: _Text
    """Why it should hold."""
    source: _Text
    """Source of the statement."""
    per: Literal["gpu"] | None = None
    """``gpu`` divides throughput by the GPUs of its topology, to compare topologies of different
    sizes; None compares measured values, of topologies of equal size only."""
    number: Annotated[int, Meta(ge=1)] | None = None
    """Number of the statement in its source."""
    undecidable: _Text | None = None
    """Why measurements cannot decide it; such a claim is shown, not judged."""


@dataclass(frozen=True, kw_only=True)
class ClaimEntry(Statement, Relation):
    """A claim as in its file, where statement, regime and relation are in one table."""

    panel: Panel | None = None
    """As in :class:`Regime`; the next three fields too."""
    input_lens: Lengths = ()
    output_lens: Lengths = ()
    load: Load | Literal["saturated"] | None = None
    relations: Annotated[tuple[Relation, ...], Meta(min_length=2)] = ()
    """Relations of a joint claim."""
