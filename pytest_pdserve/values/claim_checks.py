"""Checks of a claim's entry: allowed keys, known names, consistent bounds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
from typing import Any
from typing import TypeVar

from pytest_pdserve.values.claim_parts import Cells
from pytest_pdserve.values.claim_parts import ClaimEntry
from pytest_pdserve.values.claim_parts import Load
from pytest_pdserve.values.claim_parts import Regime
from pytest_pdserve.values.claim_parts import Relation
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.quantities import quantities
from pytest_pdserve.values.topology import Topology

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Keys of a kind of claim."""

    needs: tuple[str, ...]
    """Required keys."""
    may: tuple[str, ...] = ()
    """Optional keys."""
    bounded: bool = False
    """True if ``low`` or ``high`` is required."""
    cellwise: bool = True
    """True if it is about single cells, so that it may be part of a joint claim."""


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
"""Keys of every kind of claim."""

_OWN = tuple(each.name for each in fields(Relation) if each.name != "kind")
_RELATIONAL = ("kind", *_OWN, "relations")
_DIRECTIONS = {"monotone": ("rises", "falls"), "spread": ("smaller", "larger")}


def check_entry(entry: ClaimEntry, where: str) -> None:
    """Check what every claim needs: kind and panel, or a reason why it is undecidable.

    :raises ConfigError: if a key is missing or not allowed, or the load is empty.
    """
    if entry.undecidable is not None:
        if extra := next(iter(_given(entry, _RELATIONAL)), None):
            raise ConfigError(f"{where}: it is undecidable, so it takes no {extra!r}")
    elif entry.kind is None:
        raise ConfigError(f"{where}: needs 'kind', or 'undecidable' with the reason")
    elif entry.panel is None:
        raise ConfigError(f"{where}: needs 'panel'")
    if entry.per == "gpu" and not any(_throughput(r.metric) for r in (entry, *entry.relations)):
        raise ConfigError(
            f"{where}: per = 'gpu' divides throughput, but the claim has no throughput metric"
        )
    if isinstance(entry.load, Load) and entry.load == Load():
        raise ConfigError(f"{where}: load needs 'request_rate' or 'max_concurrency'")
    if isinstance(entry.load, Load) and not math.isfinite(entry.load.request_rate or 0.0):
        raise ConfigError(
            f'{where}: load.request_rate is {entry.load.request_rate}; write load = "saturated"'
        )


def _throughput(metric: str) -> bool:
    return metric in quantities() and quantities()[metric].is_throughput


def regime_of(entry: ClaimEntry) -> Regime:
    """Return the regime of *entry*; both panels if it names none."""
    return _picked(Regime, replace(entry, panel=entry.panel or "both"))


def relations_of(entry: ClaimEntry, regime: Regime, where: str) -> Iterator[Relation]:
    """Check the relations of *entry*, and yield them; none if it is undecidable.

    :raises ConfigError: if a key is unknown, missing, or not allowed for its kind.
    """
    if entry.kind is None:
        return
    _check_keys(entry, where)
    if entry.kind != "joint":
        yield _checked(_picked(Relation, entry), regime, where)
        return
    for number, part in enumerate(entry.relations):
        if part.kind is None:
            raise ConfigError(f"{where}: relation {number + 1} needs 'kind'")
        if not SHAPES[part.kind].cellwise:
            raise ConfigError(
                f"{where}: {part.kind!r} is about several cells, so it cannot be part of a joint "
                "claim"
            )
        _check_keys(part, where)
        yield _checked(part, regime, where)


def _given(entry: Relation, names: Iterable[str]) -> Iterator[str]:
    """Return the keys among *names* that *entry* sets."""
    defaults = {each.name: each.default for each in fields(type(entry))}
    return (name for name in names if getattr(entry, name) != defaults[name])


def _picked(kind: type[T], entry: Any) -> T:
    """Return a *kind* with the fields of *entry* that have its names."""
    return kind(**{each.name: getattr(entry, each.name) for each in fields(kind)})  # type: ignore[arg-type]


def _checked(relation: Relation, regime: Regime, where: str) -> Relation:
    """Check *relation* and return it; ``versus`` gets the load of *regime*."""
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
        allowed = " or ".join(map(repr, _DIRECTIONS[kind]))
        raise ConfigError(f"{where}: direction {relation.direction!r} must be {allowed}")
    if kind == "spread" and len(relation.topologies) < 2:
        raise ConfigError(f"{where}: a spread needs two topologies or more")
    both = set(relation.better_at) & set(relation.worse_at)
    if both:
        raise ConfigError(f"{where}: {min(both)} is in better_at and in worse_at")
