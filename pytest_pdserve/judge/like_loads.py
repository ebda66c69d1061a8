"""Which cells of two sides are of one load, so that they can be compared. Pure."""

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
"""Fields of a load, and what messages call them; options and counted tokens are compared apart."""
_WITHOUT = {
    "input_len": "of the data set",
    "output_len": "of the data set",
    "request_rate": "all at once",
    "ramp_up": "none",
    "max_concurrency": "no bound",
}
"""What None stands for."""
_TOLERANCE = 0.1
"""By how much prompts that were counted may be off those that were asked, as a fraction: a server
adds tokens of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadDifferences:
    """How two loads differ."""

    unlike: tuple[str, ...] = ()
    """What is another, a phrase each."""
    unsure: tuple[str, ...] = ()
    """What one of them does not say, so that it may be another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPair:
    """A cell of each side."""

    a: MeasuredCell
    b: MeasuredCell
    loads: LoadDifferences
    """How their loads differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """The cells of two sides, as far as they have a counterpart."""

    pairs: tuple[CellPair, ...]
    """In the order of A."""
    only_a: tuple[MeasuredCell, ...]
    """Cells of A without one of B."""
    only_b: tuple[MeasuredCell, ...]
    """Cells of B without one of A."""

    @property
    def unlike(self) -> tuple[str, ...]:
        """How loads differ, so that nothing can be compared; empty if a cell has a counterpart."""
        alike = [pair for pair in self.pairs if not pair.loads.unlike]
        if alike:
            return ()
        said = [phrase for pair in self.pairs for phrase in pair.loads.unlike]
        return tuple(dict.fromkeys(said)) or tuple(_in_common(self.only_a, self.only_b))

    @property
    def unsure(self) -> tuple[str, ...]:
        """What is not known of the loads of cells that are compared, each phrase once."""
        said = (phrase for pair in self.pairs for phrase in pair.loads.unsure)
        return tuple(dict.fromkeys(said))


def match_cells(a: Cells, b: Cells) -> Matched:
    """Return the cells of two sides in pairs.

    Cells of the same topology and load are pairs. Of what is left, a cell whose topology or load is
    partly unknown has the only one as counterpart that it may be; where each side has one topology,
    these may differ. A single cell of each side is a pair in any case: its loads are unlike then.
    """
    pairs = [CellPair(a=a[key], b=b[key], loads=_own(a[key])) for key in a if key in b]
    left_a = [cell for key, cell in a.items() if key not in b]
    left_b = [cell for key, cell in b.items() if key not in a]
    one_topology = len({key[0] for key in a}) == 1 == len({key[0] for key in b})
    for pair in _possible(left_a, left_b, one_topology=one_topology):
        pairs.append(pair)
        left_a.remove(pair.a)
        left_b.remove(pair.b)
    if not pairs and len(left_a) == 1 == len(left_b):
        (one,), (other,) = left_a, left_b
        pairs, left_a, left_b = [_pair(one, other)], [], []
    order = {key: place for place, key in enumerate(a)}
    pairs.sort(key=lambda pair: order[pair.a.runs[0].key])
    return Matched(pairs=tuple(pairs), only_a=tuple(left_a), only_b=tuple(left_b))


def _own(cell: MeasuredCell) -> LoadDifferences:
    """Return what neither of two cells of one id says of its load."""
    if cell.workload is None:
        return LoadDifferences()
    return load_differences(cell.workload, cell.workload)


def _pair(a: MeasuredCell, b: MeasuredCell) -> CellPair:
    if a.workload is None or b.workload is None:
        phrases = () if a.workload_id == b.workload_id else (f"{a.workload_id} | {b.workload_id}",)
        return CellPair(a=a, b=b, loads=LoadDifferences(unlike=phrases))
    return CellPair(a=a, b=b, loads=load_differences(a.workload, b.workload))


def _possible(
    left_a: Sequence[MeasuredCell], left_b: Sequence[MeasuredCell], *, one_topology: bool
) -> list[CellPair]:
    """Return pairs that may be of one load, where neither cell may be that of another too."""
    found = [
        pair
        for one, other in itertools.product(left_a, left_b)
        if one_topology
        or one.topology == other.topology
        or UNKNOWN in (one.topology, other.topology)
        if not (pair := _pair(one, other)).loads.unlike
    ]
    return [
        pair
        for pair in found
        if sum(each.a is pair.a for each in found) == 1
        if sum(each.b is pair.b for each in found) == 1
    ]


def _may_be_alike(a: str, b: str) -> bool:
    return a == b or UNKNOWN in (a, b)


def load_differences(a: Workload, b: Workload) -> LoadDifferences:
    """Return how two loads differ: what is another, and what one of them does not say.

    Output tokens that were counted may be others of the same load, as outputs end by themselves.
    """
    unlike: list[str] = []
    unsure: list[str] = []
    for name, called in _FIELDS.items():
        one, other = _value(a, name), _value(b, name)
        if UNKNOWN in (one, other):
            unsure.append(f"{called}: {_shown(name, one)} | {_shown(name, other)}")
        elif one != other:
            unlike.append(f"{called}: {_shown(name, one)} | {_shown(name, other)}")
    if isinstance(a.options, str) or isinstance(b.options, str):
        unsure.append(f"options: {_options(a)} | {_options(b)}")
    else:
        unlike += _other_options(a.options, b.options)
    ones, others = _prompt_tokens(a), _prompt_tokens(b)
    asked = isinstance(a.input_len, int) and isinstance(b.input_len, int)
    if not asked and ones and others and not _near(ones, others):
        unlike.append(f"prompt tokens of a request: {ones:.0f} | {others:.0f}")
    if a.counted_tokens and b.counted_tokens:
        (prompts, outputs), (other_prompts, other_outputs) = a.counted_tokens, b.counted_tokens
        if prompts != other_prompts:
            unlike.append(f"prompt tokens in all: {prompts} | {other_prompts}")
        elif outputs != other_outputs:
            unsure.append(f"output tokens in all: {outputs} | {other_outputs}")
    return LoadDifferences(unlike=tuple(unlike), unsure=tuple(unsure))


def _prompt_tokens(workload: Workload) -> float | None:
    """Return the tokens of a prompt, as asked, or as counted on average; None if not known."""
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
    said = (f"{flag}={value}" if value else flag for flag, value in workload.options.items())
    return ", ".join(said) or "none"


def _other_options(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[str]:
    for flag in sorted({*a, *b}):
        if a.get(flag) != b.get(flag):
            yield f"option {flag}: {a.get(flag, 'not set')} | {b.get(flag, 'not set')}"


def _in_common(only_a: Sequence[MeasuredCell], only_b: Sequence[MeasuredCell]) -> Iterator[str]:
    """Return what all loads of A have in common, and all of B too, but otherwise; or that nothing.

    A side without cells is told by its caller.
    """
    found = False
    for name, called in _FIELDS.items():
        ones, others = (
            {_shown(name, _value(cell.workload, name)) for cell in cells if cell.workload}
            for cells in (only_a, only_b)
        )
        if len(ones) == 1 == len(others) and ones != others and UNKNOWN not in ones | others:
            found = True
            yield f"{called}: {ones.pop()} | {others.pop()}"
    topologies = [", ".join(dict.fromkeys(c.topology for c in cells)) for cells in (only_a, only_b)]
    if topologies[0] != topologies[1]:
        found = True
        yield f"topology: {' | '.join(topologies)}"
    if not found:
        yield "no cell has the topology and load of a cell of the other side"
