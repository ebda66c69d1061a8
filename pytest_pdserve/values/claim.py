"""Claims: what topologies are said to do in a stated regime, and what each kind consists of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
from typing import Annotated
from typing import Any
from typing import Literal
from typing import Self
from typing import TypeVar

import msgspec
from msgspec import Meta

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.quantities import quantities
from pytest_pdserve.values.sweep import Lengths
from pytest_pdserve.values.sweep import Point
from pytest_pdserve.values.topology import Topology
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
T = TypeVar("T")

CAUTION = (
    "ITL of a disaggregated topology by itself: at an infinite rate it also falls where decode "
    "instances starve; join it with throughput or TTFT, or state a load (docs/claims.md)"
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownIssue:
    """Cells in which a claim is known not to hold."""

    cells: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[0-9]+-[0-9]+(-rate[0-9.e+-]+)?$")], ...], _Unique
    ]
    """Their names, as :attr:`Point.name` writes them."""
    why: _Text
    """What is known of it."""
    systems: Annotated[tuple[_Text, ...], _Unique] = ()
    """Systems on which it is known; empty is all."""


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
    number: Annotated[int, Meta(ge=1)] | None = None
    """Number of the statement in the list that it was taken from."""
    undecidable: _Text | None = None
    """Why no measurement of this kind can tell; such a claim is shown, never judged."""
    known_issue: KnownIssue | None = None
    """Cells that contradict it; strict."""


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


@dataclass(frozen=True, kw_only=True)
class ClaimsFile:
    """A file of claims."""

    claim: Annotated[tuple[ClaimEntry, ...], Meta(min_length=1)]
    """The claims."""


@dataclass(frozen=True, kw_only=True)
class Claim(Statement):
    """One statement about topologies; files below ``suites/claims`` hold them."""

    kind: Kind | None
    """How topologies relate; None for what cannot be decided."""
    regime: Regime
    """Where it is said to hold."""
    relations: tuple[Relation, ...]
    """What must hold in every cell; empty for what cannot be decided."""

    @property
    def topologies(self) -> tuple[str, ...]:
        """Every topology that takes part, once."""
        return tuple(dict.fromkeys(t for relation in self.relations for t in relation.named))

    def admits(self, point: Point) -> bool:
        """Tell whether *point* lies in the claim's regime."""
        return self.regime.admits(point)

    def looks_at(self, point: Point) -> bool:
        """Tell whether *point* lies in the regime, or among cells that it is compared with."""
        compared = (relation.versus for relation in self.relations)
        return self.admits(point) or any(r.admits(point) for r in compared if r is not None)

    def expected(self, system: str) -> KnownIssue | None:
        """Return the known issue, if it is one of *system*."""
        issue = self.known_issue
        return issue if issue and system in (issue.systems or (system,)) else None

    @property
    def caution(self) -> str | None:
        """What to keep in mind of a claim that its regime does not guard against starvation."""
        if self.regime.load not in (None, "saturated"):
            return None
        if not all("itl" in r.metric or "tpot" in r.metric for r in self.relations):
            return None
        helped = {name for relation in self.relations for name in relation.helped}
        return CAUTION if any(Topology.parse(name).disaggregated for name in helped) else None

    @classmethod
    def from_toml(cls, data: Mapping[str, Any], *, source: str) -> Self:
        """Build a claim from the table of its file that the schema has admitted.

        :raises ConfigError: if something is unknown, lacks, or does not belong to its kind.
        """
        return cls.of(msgspec.convert(data, ClaimEntry), source=source)

    @classmethod
    def of(cls, entry: ClaimEntry, *, source: str) -> Self:
        """Build a claim from its entry in the file *source*.

        :raises ConfigError: if something is unknown, lacks, or does not belong to its kind.
        """
        where = f"{source}: claim {entry.id!r}"
        if entry.undecidable is not None:
            if extra := next(iter(_given(entry, _RELATIONAL)), None):
                raise ConfigError(f"{where}: it is undecidable, so it takes no {extra!r}")
        elif entry.kind is None:
            raise ConfigError(f"{where}: needs 'kind', or 'undecidable' with the reason")
        elif entry.panel is None:
            raise ConfigError(f"{where}: needs 'panel'")
        if isinstance(entry.load, Load) and entry.load == Load():
            raise ConfigError(f"{where}: load needs 'request_rate' or 'max_concurrency'")
        if isinstance(entry.load, Load) and not math.isfinite(entry.load.request_rate or 0.0):
            raise ConfigError(
                f'{where}: load.request_rate is {entry.load.request_rate}; write load = "saturated"'
            )
        regime = _picked(Regime, replace(entry, panel=entry.panel or "both"))
        return cls(
            **{each.name: getattr(entry, each.name) for each in fields(Statement)},
            kind=entry.kind,
            regime=regime,
            relations=tuple(_relations(entry, regime, where)) if entry.kind else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Which keys a kind of claim takes."""

    needs: tuple[str, ...]
    """Keys that must be there."""
    may: tuple[str, ...] = ()
    """Further keys."""
    bounded: bool = False
    """Whether one of ``low`` and ``high`` must be there."""
    cellwise: bool = True
    """Whether it says something of each cell by itself, so that it may be part of a joint claim."""


_SIDES = ("metric", "subject", "others")
_BOUNDS = ("low", "high")
SHAPES = {
    "below": Shape(needs=_SIDES, may=("margin",)),
    "above": Shape(needs=_SIDES, may=("margin",)),
    "lowest": Shape(needs=_SIDES, may=("margin",)),
    "highest": Shape(needs=_SIDES, may=("margin",)),
    "best": Shape(needs=_SIDES, may=("margin",)),
    "ratio": Shape(needs=_SIDES, may=_BOUNDS, bounded=True),
    "difference": Shape(needs=_SIDES, may=_BOUNDS, bounded=True),
    "within": Shape(needs=("metric", "topologies"), may=_BOUNDS, bounded=True),
    "rank": Shape(needs=_SIDES, may=_BOUNDS, bounded=True),
    "monotone": Shape(needs=("metric", "topologies", "direction"), may=("margin",), cellwise=False),
    "crossover": Shape(needs=(*_SIDES, "better_at", "worse_at"), may=("margin",), cellwise=False),
    "spread": Shape(
        needs=("metric", "topologies", "direction", "versus"),
        may=("margin", "measure"),
        cellwise=False,
    ),
    "joint": Shape(needs=("relations",), cellwise=False),
}
"""Every kind of claim."""

_OWN = tuple(each.name for each in fields(Relation) if each.name != "kind")
_RELATIONAL = ("kind", *_OWN, "relations", "known_issue")
_DIRECTIONS = {"monotone": ("rises", "falls"), "spread": ("smaller", "larger")}


def _given(entry: Relation, names: Iterable[str]) -> Iterator[str]:
    """Those of *names* that an entry of a file sets."""
    defaults = {each.name: each.default for each in fields(type(entry))}
    return (name for name in names if getattr(entry, name) != defaults[name])


def _picked(kind: type[T], entry: Any) -> T:
    """A *kind* of the fields of *entry* that have its names."""
    return kind(**{each.name: getattr(entry, each.name) for each in fields(kind)})  # type: ignore[arg-type]


def _relations(entry: ClaimEntry, regime: Regime, where: str) -> Iterator[Relation]:
    _check_keys(entry, where)
    if entry.kind != "joint":
        yield _checked(_picked(Relation, entry), regime, where)
        return
    for number, part in enumerate(entry.relations):
        if part.kind is None:
            raise ConfigError(f"{where}: relation {number + 1} needs 'kind'")
        if not SHAPES[part.kind].cellwise:
            raise ConfigError(
                f"{where}: {part.kind!r} speaks of several cells, so it cannot be part of a "
                "joint claim"
            )
        _check_keys(part, where)
        yield _checked(part, regime, where)


def _checked(relation: Relation, regime: Regime, where: str) -> Relation:
    """*relation*, whose cells to compare with arrive as the claim's own do."""
    _check_metric(relation.metric, where)
    _check_topologies(relation.subjects, relation.others, where)
    _check_bounds(relation, where)
    _check_direction(relation, regime, where)
    if relation.versus is None:
        return relation
    cells = {each.name: getattr(relation.versus, each.name) for each in fields(Cells)}
    return replace(relation, versus=Regime(**cells, load=regime.load))


def _check_keys(entry: Relation, where: str) -> None:
    assert entry.kind is not None
    shape = SHAPES[entry.kind]
    own = (*_OWN, "relations") if isinstance(entry, ClaimEntry) else _OWN
    given = set(_given(entry, own))
    for key in shape.needs:
        if key not in given:
            raise ConfigError(f"{where}: kind {entry.kind!r} needs {key!r}")
    if shape.bounded and not set(_BOUNDS) & given:
        raise ConfigError(f"{where}: kind {entry.kind!r} needs 'low' or 'high'")
    for key in own:
        if key in given and key not in (*shape.needs, *shape.may):
            raise ConfigError(f"{where}: kind {entry.kind!r} takes no {key!r}")


def _check_metric(name: str, where: str) -> None:
    if name not in quantities():
        raise ConfigError(f"{where}: unknown metric {name!r}; known are {', '.join(quantities())}")


def _check_topologies(subjects: tuple[str, ...], others: tuple[str, ...], where: str) -> None:
    for topology in (*subjects, *others):
        try:
            Topology.parse(topology)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    for subject in subjects:
        if subject in others:
            raise ConfigError(f"{where}: {subject!r} is compared with itself")


def _check_bounds(relation: Relation, where: str) -> None:
    given = {key: value for key in _BOUNDS if (value := getattr(relation, key)) is not None}
    for key, value in given.items():
        if not math.isfinite(value):
            raise ConfigError(f"{where}: {key!r} is {value}; leave it out for no bound")
        if relation.kind in ("ratio", "within") and value <= 0:
            raise ConfigError(
                f"{where}: 'low' and 'high' of kind {relation.kind!r} must be above 0"
            )
        ranks = len(relation.others) + 1
        if relation.kind == "rank" and value not in range(1, ranks + 1):
            raise ConfigError(f"{where}: {key!r} is {value:g}, but ranks are 1 to {ranks}")
    low, high = relation.bounds
    if low > high:
        raise ConfigError(f"{where}: low = {low:g} is above high = {high:g}, so nothing can hold")


def _check_direction(relation: Relation, regime: Regime, where: str) -> None:
    kind = relation.kind
    if kind in ("monotone", "crossover") and regime.panel == "both":
        raise ConfigError(f"{where}: kind {kind!r} needs one panel, whose axis it follows")
    if kind in _DIRECTIONS and relation.direction not in _DIRECTIONS[kind]:
        known = " or ".join(map(repr, _DIRECTIONS[kind]))
        raise ConfigError(f"{where}: direction {relation.direction!r} must be {known}")
    if kind == "spread" and len(relation.topologies) < 2:
        raise ConfigError(f"{where}: a spread needs two topologies or more")
    both = set(relation.better_at) & set(relation.worse_at)
    if both:
        raise ConfigError(f"{where}: {min(both)} stands in better_at and in worse_at")
