"""Claims: what topologies are said to do in a stated regime, and what each kind consists of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Literal
from typing import Self

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.quantities import QUANTITIES
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

Panel = Literal["prefill", "decode", "both"]

CAUTION = (
    "ITL of a disaggregated topology by itself: at an infinite rate it also falls where decode "
    "instances starve; join it with throughput or TTFT, or state a load (docs/claims.md)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How requests arrive in a regime."""

    saturated: bool = False
    """All requests at once: infinite rate, no bound on those in flight."""
    request_rate: float | None = None
    """Open-loop arrival rate, req/s; None admits any."""
    max_concurrency: int | None = None
    """Requests in flight at most; None admits any."""

    def admits(self, workload: Workload) -> bool:
        """Tell whether *workload* arrives like that."""
        bound = workload.max_concurrency
        if self.saturated:
            unbounded = bound is None or bound >= workload.num_prompts
            return math.isinf(workload.request_rate) and unbounded
        return self.request_rate in (None, workload.request_rate) and (
            self.max_concurrency in (None, bound)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """The cells that a claim speaks of."""

    panel: Panel
    """Which of the article's panels; ``both`` is the cells of either."""
    input_lens: tuple[int, ...] = ()
    """Article input lengths; empty is all of the panel."""
    output_lens: tuple[int, ...] = ()
    """Article output lengths; empty is all of the panel."""
    load: Load | None = None
    """How requests arrive; None admits any load."""

    def admits(self, workload: Workload) -> bool:
        """Tell whether *workload* lies in the regime, by the article's own lengths."""
        input_len, output_len = article_lengths(workload)
        return (
            (self.panel in workload.panels or (self.panel == "both" and bool(workload.panels)))
            and input_len in (self.input_lens or (input_len,))
            and output_len in (self.output_lens or (output_len,))
            and (self.load is None or self.load.admits(workload))
        )

    def point(self, workload: Workload) -> int:
        """Where *workload* lies on the panel's axis: its prompt length, or its output length."""
        return article_lengths(workload)[0 if self.panel == "prefill" else 1]

    @classmethod
    def from_toml(cls, data: Mapping[str, Any], load: Load | None) -> Self:
        """Build a regime from keys that the schema has admitted."""
        return cls(
            panel=data["panel"],
            input_lens=tuple(data.get("input_lens", ())),
            output_lens=tuple(data.get("output_lens", ())),
            load=load,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """One thing that must hold; most claims are one, a joint claim is several."""

    kind: str
    """One of :data:`SHAPES`."""
    metric: str
    """One of ``QUANTITIES``."""
    topologies: tuple[str, ...]
    """What it is about; where there are others, the one subject."""
    others: tuple[str, ...] = ()
    """What the subject is compared with."""
    margin: float = 0.0
    """Least advantage, as a fraction: 0.05 asks for 5 % better."""
    low: float = -math.inf
    """Least ratio, difference, value or rank that is admitted."""
    high: float = math.inf
    """Largest that is admitted."""
    direction: str = ""
    """``rises``, ``falls``; ``smaller``, ``larger``."""
    better_at: tuple[int, ...] = ()
    """Points of the panel's axis where the subject is better."""
    worse_at: tuple[int, ...] = ()
    """Points where it is worse."""
    versus: Regime | None = None
    """Cells that a spread is compared with."""
    measure: str = "difference"
    """What a spread is: ``difference`` or ``ratio`` of the largest and the least."""

    @property
    def named(self) -> tuple[str, ...]:
        """Every topology that takes part, once."""
        return tuple(dict.fromkeys((*self.topologies, *self.others)))

    @property
    def helped(self) -> tuple[str, ...]:
        """Topologies that could make it hold by a lower value."""
        if self.kind in ("monotone", "spread"):
            return ()
        if self.kind in ("below", "lowest", "best"):
            return self.topologies
        return self.others if self.kind in ("above", "highest") else self.named


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownIssue:
    """Cells in which a claim is known not to hold."""

    cells: tuple[str, ...]
    """Their names, as :func:`cell_name` writes them."""
    why: str
    """What is known of it."""
    systems: tuple[str, ...] = ()
    """Systems on which it is known; empty is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One statement about topologies; files below ``suites/claims`` hold them."""

    id: str
    """Short name, used as test id."""
    text: str
    """The statement in words."""
    kind: str
    """How topologies relate; empty for what cannot be decided."""
    regime: Regime
    """Where it is said to hold."""
    relations: tuple[Relation, ...]
    """What must hold in every cell; empty for what cannot be decided."""
    reason: str
    """Why it should hold."""
    source: str
    """Who says so."""
    number: int | None = None
    """Number of the statement in the list that it was taken from."""
    undecidable: str | None = None
    """Why no measurement of this kind can tell; such a claim is shown, never judged."""
    known_issue: KnownIssue | None = None
    """Cells that contradict it; strict."""

    @property
    def topologies(self) -> tuple[str, ...]:
        """Every topology that takes part, once."""
        return tuple(dict.fromkeys(t for relation in self.relations for t in relation.named))

    def admits(self, workload: Workload) -> bool:
        """Tell whether *workload* lies in the claim's regime."""
        return self.regime.admits(workload)

    def looks_at(self, workload: Workload) -> bool:
        """Tell whether *workload* lies in the regime, or among cells that it is compared with."""
        beside = (relation.versus for relation in self.relations)
        return self.admits(workload) or any(r.admits(workload) for r in beside if r is not None)

    def expected(self, system: str) -> KnownIssue | None:
        """The known issue, if it is one of *system*."""
        issue = self.known_issue
        return issue if issue and system in (issue.systems or (system,)) else None

    @property
    def caution(self) -> str | None:
        """What to keep in mind of a claim that its regime does not guard against starvation."""
        load = self.regime.load
        if load is not None and not load.saturated:
            return None
        if not all("itl" in r.metric or "tpot" in r.metric for r in self.relations):
            return None
        helped = {name for relation in self.relations for name in relation.helped}
        return CAUTION if any(Topology.parse(name).disaggregated for name in helped) else None

    @classmethod
    def from_toml(cls, data: Mapping[str, Any], *, source: str) -> Self:
        """Build a claim that the schema has admitted.

        :raises ConfigError: if something is unknown, lacks, or does not belong to its kind.
        """
        where = f"{source}: claim {data['id']!r}"
        kind = data.get("kind", "")
        regime = Regime.from_toml({"panel": "both", **data}, _load(data.get("load"), where))
        if "undecidable" in data:
            extra = next((key for key in _RELATIONAL if key in data), None)
            if extra:
                raise ConfigError(f"{where}: it is undecidable, so it takes no {extra!r}")
        elif not kind:
            raise ConfigError(f"{where}: needs 'kind', or 'undecidable' with the reason")
        elif "panel" not in data:
            raise ConfigError(f"{where}: needs 'panel'")
        return cls(
            id=data["id"],
            text=data["text"],
            kind=kind,
            regime=regime,
            relations=_relations(data, regime, where) if kind else (),
            reason=data["reason"],
            source=data["source"],
            number=data.get("number"),
            undecidable=data.get("undecidable"),
            known_issue=_known_issue(data.get("known_issue")),
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

_RELATIONAL = (
    *("kind", *_SIDES, "topologies", "margin", *_BOUNDS, "direction", "better_at", "worse_at"),
    *("versus", "measure", "relations", "known_issue"),
)
_OWN = frozenset(_RELATIONAL) - {"kind", "known_issue"}
_DIRECTIONS = {"monotone": ("rises", "falls"), "spread": ("smaller", "larger")}


def article_lengths(workload: Workload) -> tuple[int, int]:
    """Input and output length of the article's cell, or the workload's own."""
    return workload.article_lengths or (workload.input_len, workload.output_len)


def cell_name(workload: Workload) -> str:
    """Name of a cell in known issues, in the article's lengths: ``512-256``, ``512-256-rate8``."""
    load = workload.lengths.removeprefix(f"{workload.input_len}-{workload.output_len}")
    input_len, output_len = article_lengths(workload)
    return f"{input_len}-{output_len}{load}"


def _load(said: Any, where: str) -> Load | None:
    if said is None:
        return None
    if said == "saturated":
        return Load(saturated=True)
    rate = said.get("request_rate")
    if rate is not None and not math.isfinite(rate):
        raise ConfigError(f'{where}: load.request_rate is {rate}; write load = "saturated"')
    return Load(
        request_rate=None if rate is None else float(rate),
        max_concurrency=said.get("max_concurrency"),
    )


def _known_issue(said: Mapping[str, Any] | None) -> KnownIssue | None:
    if said is None:
        return None
    return KnownIssue(
        cells=tuple(said["cells"]), why=said["why"], systems=tuple(said.get("systems", ()))
    )


def _relations(data: Mapping[str, Any], regime: Regime, where: str) -> tuple[Relation, ...]:
    if data["kind"] != "joint":
        return (_relation(data, regime, where),)
    _check_keys(data, SHAPES["joint"], where)
    for part in data["relations"]:
        if not SHAPES[part["kind"]].cellwise:
            raise ConfigError(
                f"{where}: {part['kind']!r} speaks of several cells, so it cannot be part of a "
                "joint claim"
            )
    return tuple(_relation(part, regime, where) for part in data["relations"])


def _relation(data: Mapping[str, Any], regime: Regime, where: str) -> Relation:
    kind = data["kind"]
    _check_keys(data, SHAPES[kind], where)
    _check_metric(data["metric"], where)
    subjects = tuple(data["topologies"] if "topologies" in data else [data["subject"]])
    others = tuple(data.get("others", ()))
    _check_topologies(subjects, others, where)
    low, high = _bounds(data, where)
    if kind in ("ratio", "within") and any(data.get(key, 1) <= 0 for key in _BOUNDS):
        raise ConfigError(f"{where}: 'low' and 'high' of kind {kind!r} must be above 0")
    _check_direction(data, regime, where)
    return Relation(
        kind=kind,
        metric=data["metric"],
        topologies=subjects,
        others=others,
        margin=data.get("margin", 0.0),
        low=low,
        high=high,
        direction=data.get("direction", ""),
        better_at=tuple(data.get("better_at", ())),
        worse_at=tuple(data.get("worse_at", ())),
        versus=Regime.from_toml(data["versus"], regime.load) if "versus" in data else None,
        measure=data.get("measure", "difference"),
    )


def _check_keys(data: Mapping[str, Any], shape: Shape, where: str) -> None:
    kind = data["kind"]
    for key in shape.needs:
        if key not in data:
            raise ConfigError(f"{where}: kind {kind!r} needs {key!r}")
    if shape.bounded and not set(_BOUNDS) & set(data):
        raise ConfigError(f"{where}: kind {kind!r} needs 'low' or 'high'")
    for key in data:
        if key in _OWN and key not in (*shape.needs, *shape.may):
            raise ConfigError(f"{where}: kind {kind!r} takes no {key!r}")


def _check_metric(name: str, where: str) -> None:
    metric = QUANTITIES.get(name)
    if metric is None:
        raise ConfigError(f"{where}: unknown metric {name!r}; known are {', '.join(QUANTITIES)}")


def _check_topologies(subjects: tuple[str, ...], others: tuple[str, ...], where: str) -> None:
    for topology in (*subjects, *others):
        try:
            Topology.parse(topology)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    for subject in subjects:
        if subject in others:
            raise ConfigError(f"{where}: {subject!r} is compared with itself")


def _bounds(data: Mapping[str, Any], where: str) -> tuple[float, float]:
    for key in _BOUNDS:
        if not math.isfinite(data.get(key, 0)):
            raise ConfigError(f"{where}: {key!r} is {data[key]}; leave it out for no bound")
    low, high = float(data.get("low", -math.inf)), float(data.get("high", math.inf))
    if low > high:
        raise ConfigError(f"{where}: low = {low:g} is above high = {high:g}, so nothing can hold")
    if data["kind"] == "rank":
        ranks = len(data["others"]) + 1
        for key in _BOUNDS:
            if key in data and data[key] not in range(1, ranks + 1):
                raise ConfigError(f"{where}: {key!r} is {data[key]}, but ranks are 1 to {ranks}")
    return low, high


def _check_direction(data: Mapping[str, Any], regime: Regime, where: str) -> None:
    kind = data["kind"]
    if kind in ("monotone", "crossover") and regime.panel == "both":
        raise ConfigError(f"{where}: kind {kind!r} needs one panel, whose axis it follows")
    if kind in _DIRECTIONS and data["direction"] not in _DIRECTIONS[kind]:
        known = " or ".join(map(repr, _DIRECTIONS[kind]))
        raise ConfigError(f"{where}: direction {data['direction']!r} must be {known}")
    if kind == "spread" and len(data["topologies"]) < 2:
        raise ConfigError(f"{where}: a spread needs two topologies or more")
    both = set(data.get("better_at", ())) & set(data.get("worse_at", ()))
    if both:
        raise ConfigError(f"{where}: {min(both)} stands in better_at and in worse_at")
