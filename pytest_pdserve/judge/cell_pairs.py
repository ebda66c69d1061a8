"""Pairs of cells of two sides that have the same load, so that they can be compared. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.measurements import MeasuredCell
from pytest_pdserve.values.workload import UNKNOWN
from pytest_pdserve.values.workload import RampUp
from pytest_pdserve.values.workload import Workload

Cells = Mapping[Key, MeasuredCell]
_FIELDS = {
    "dataset": "data set",
    "input_len": "prompt length",
    "output_len": "output length",
    "num_prompts": "prompts",
    "request_rate": "request rate",
    "burstiness": "burstiness",
    "ramp_up": "ramp-up",
    "max_concurrency": "concurrency",
}
"""Fields of a load, and their names in messages; options and counted tokens are not among them."""
_WITHOUT = {
    "input_len": "of the data set",
    "output_len": "of the data set",
    "request_rate": "all at once",
    "ramp_up": "none",
    "max_concurrency": "no bound",
}
"""Meaning of None in messages, by field."""
_TOLERANCE = 0.1
"""Relative difference allowed between counted and requested prompt tokens: servers add tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadDifferences:
    """Differences between two loads."""

    unlike: tuple[str, ...] = ()
    """A phrase for each field that differs."""
    unsure: tuple[str, ...] = ()
    """A phrase for each field that is unknown for one of them, so that it may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPair:
    """A cell of each side, to be compared."""

    a: MeasuredCell
    b: MeasuredCell
    loads: LoadDifferences


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedCells:
    """The cells of two sides: those with a counterpart, and the others."""

    pairs: tuple[CellPair, ...]
    """In the order of A's cells."""
    only_a: tuple[MeasuredCell, ...]
    """Cells of A without one of B."""
    only_b: tuple[MeasuredCell, ...]
    """Cells of B without one of A."""

    @property
    def unlike(self) -> tuple[str, ...]:
        """How all loads differ, if no cells can be compared; empty if some can be."""
        alike = [pair for pair in self.pairs if not pair.loads.unlike]
        if alike:
            return ()
        phrases = [phrase for pair in self.pairs for phrase in pair.loads.unlike]
        return tuple(dict.fromkeys(phrases)) or tuple(_side_differences(self.only_a, self.only_b))

    @property
    def unsure(self) -> tuple[str, ...]:
        """What is unknown about the loads of compared cells, each phrase once."""
        phrases = (phrase for pair in self.pairs for phrase in pair.loads.unsure)
        return tuple(dict.fromkeys(phrases))


def match_cells(a: Cells, b: Cells) -> MatchedCells:
    """Return the cells of two sides in pairs.

    Cells of the same topology and load are pairs. Among the others, a cell whose topology or load
    is partly unknown is paired with the only cell of the other side that may have the same; if
    each side has one topology, the topologies may differ. If each side has a single cell, these are
    a pair in any case, even with different loads.
    """
    pairs = [CellPair(a=a[key], b=b[key], loads=_unknown_of(a[key])) for key in a if key in b]
    left_a = [cell for key, cell in a.items() if key not in b]
    left_b = [cell for key, cell in b.items() if key not in a]
    one_topology = len({key[0] for key in a}) == 1 == len({key[0] for key in b})
    for pair in _only_candidates(left_a, left_b, one_topology=one_topology):
        pairs.append(pair)
        left_a.remove(pair.a)
        left_b.remove(pair.b)
    if not pairs and len(left_a) == 1 == len(left_b):
        (one,), (other,) = left_a, left_b
        pairs, left_a, left_b = [_pair(one, other)], [], []
    order = {key: index for index, key in enumerate(a)}
    pairs.sort(key=lambda pair: order[pair.a.runs[0].key])
    return MatchedCells(pairs=tuple(pairs), only_a=tuple(left_a), only_b=tuple(left_b))


def _unknown_of(cell: MeasuredCell) -> LoadDifferences:
    """Return what is unknown about the load of two cells with the same id."""
    if cell.workload is None:
        return LoadDifferences()
    return load_differences(cell.workload, cell.workload)


def _pair(a: MeasuredCell, b: MeasuredCell) -> CellPair:
    if a.workload is None or b.workload is None:
        phrases = () if a.workload_id == b.workload_id else (f"{a.workload_id} | {b.workload_id}",)
        return CellPair(a=a, b=b, loads=LoadDifferences(unlike=phrases))
    return CellPair(a=a, b=b, loads=load_differences(a.workload, b.workload))


def _only_candidates(
    left_a: Sequence[MeasuredCell], left_b: Sequence[MeasuredCell], *, one_topology: bool
) -> list[CellPair]:
    """Return pairs of cells that may have the same load, and are each other's only candidate."""
    candidates = [
        pair
        for one, other in itertools.product(left_a, left_b)
        if one_topology
        or one.topology == other.topology
        or UNKNOWN in (one.topology, other.topology)
        if not (pair := _pair(one, other)).loads.unlike
    ]
    return [
        pair
        for pair in candidates
        if sum(other.a is pair.a for other in candidates) == 1
        if sum(other.b is pair.b for other in candidates) == 1
    ]


def _may_be_alike(a: str, b: str) -> bool:
    return a == b or UNKNOWN in (a, b)


def load_differences(a: Workload, b: Workload) -> LoadDifferences:
    """Return how two loads differ, and what is unknown about one of them.

    Counted output tokens may differ under the same load, because outputs may end early.
    """
    unlike: list[str] = []
    unsure: list[str] = []
    for name, label in _FIELDS.items():
        one, other = _value(a, name), _value(b, name)
        if UNKNOWN in (one, other):
            unsure.append(f"{label}: {_shown(name, one)} | {_shown(name, other)}")
        elif one != other:
            unlike.append(f"{label}: {_shown(name, one)} | {_shown(name, other)}")
    if isinstance(a.options, str) or isinstance(b.options, str):
        unsure.append(f"options: {_options(a)} | {_options(b)}")
    else:
        unlike += _option_differences(a.options, b.options)
    ones, others = _prompt_tokens(a), _prompt_tokens(b)
    both_set = isinstance(a.input_len, int) and isinstance(b.input_len, int)
    if not both_set and ones and others and not _near(ones, others):
        unlike.append(f"prompt tokens of a request: {ones:.0f} | {others:.0f}")
    if a.counted_tokens and b.counted_tokens:
        (prompts, outputs), (other_prompts, other_outputs) = a.counted_tokens, b.counted_tokens
        if prompts != other_prompts:
            unlike.append(f"prompt tokens in all: {prompts} | {other_prompts}")
        elif outputs != other_outputs:
            unsure.append(f"output tokens in all: {outputs} | {other_outputs}")
    return LoadDifferences(unlike=tuple(unlike), unsure=tuple(unsure))


def _prompt_tokens(workload: Workload) -> float | None:
    """Return the tokens of a prompt, as requested or counted on average; None if unknown."""
    if isinstance(workload.input_len, int):
        return float(workload.input_len)
    if workload.counted_tokens is None or not isinstance(workload.num_prompts, int):
        return None
    return workload.counted_tokens[0] / workload.num_prompts


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= _TOLERANCE * max(a, b)


def _value(workload: Workload, name: str) -> object:
    """Return a field of a load; lengths of an unknown data set are unknown if not given."""
    value: object = getattr(workload, name)
    if value is None and workload.dataset == UNKNOWN and name in ("input_len", "output_len"):
        return UNKNOWN
    return value


def _shown(name: str, value: object) -> str:
    if value is None:
        return _WITHOUT.get(name, "none")
    if isinstance(value, RampUp):
        return f"{value.strategy} from {value.start_rps} to {value.end_rps} req/s"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _options(workload: Workload) -> str:
    if isinstance(workload.options, str):
        return UNKNOWN
    options = (f"{flag}={value}" if value else flag for flag, value in workload.options.items())
    return ", ".join(options) or "none"


def _option_differences(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[str]:
    for flag in sorted({*a, *b}):
        if a.get(flag) != b.get(flag):
            yield f"option {flag}: {a.get(flag, 'not set')} | {b.get(flag, 'not set')}"


def _side_differences(
    only_a: Sequence[MeasuredCell], only_b: Sequence[MeasuredCell]
) -> Iterator[str]:
    """Yield the fields in which all loads of A differ from all of B; if none, one general phrase.

    The caller reports a side without cells.
    """
    any_differs = False
    for name, label in _FIELDS.items():
        ones, others = (
            {_shown(name, _value(cell.workload, name)) for cell in cells if cell.workload}
            for cells in (only_a, only_b)
        )
        if len(ones) == 1 == len(others) and ones != others and UNKNOWN not in ones | others:
            any_differs = True
            yield f"{label}: {ones.pop()} | {others.pop()}"
    topologies = [", ".join(dict.fromkeys(c.topology for c in cells)) for cells in (only_a, only_b)]
    if topologies[0] != topologies[1]:
        any_differs = True
        yield f"topology: {' | '.join(topologies)}"
    if not any_differs:
        yield "no cell has the topology and load of a cell of the other side"
