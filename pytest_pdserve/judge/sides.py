"""Sides of claims: one topology's value in one cell, and where it comes from."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.figures import Figures
from pytest_pdserve.values.numbers import LARGEST
from pytest_pdserve.values.quantities import DERIVED
from pytest_pdserve.values.quantities import Derived
from pytest_pdserve.values.quantities import quantities
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import values_of
from pytest_pdserve.values.topology import Size
from pytest_pdserve.values.workload import Workload

NOT_MEASURED = "was not measured"
HERE = "this session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One quantity of one topology in one cell."""

    topology: str
    """Topology id."""
    workload: str
    """Workload id."""
    metric: str
    """Quantity."""
    value: float | None
    """In the quantity's unit; None if it was not measured, or must not be judged."""
    origin: str
    """``this session``, or the figures it was read off."""
    runs: tuple[float, ...] = ()
    """The value of each run of tonight, one of each start."""
    nights: tuple[float | None, ...] = ()
    """The value in each session of the baseline, None where it has none."""
    last_night: tuple[float, ...] = ()
    """The value in the last night before tonight; empty where there is none."""
    floor: float = 0.0
    """Least limit of the quantity, as a fraction."""
    cells: tuple[Key, ...] = ()
    """Cells that it was measured in."""
    uncertainty: float = 0.0
    """How far :attr:`value` may be off for another reason than run-to-run noise."""
    size: Size | None = None
    """Nodes and GPUs of the topology; None where they are not known."""
    why: str = NOT_MEASURED
    """What to say where :attr:`value` is None."""
    trouble: str = ""
    """The ERROR of this session that lost it, if one did; then there is nothing to judge."""

    @property
    def missing(self) -> str | None:
        """Why there is nothing to judge, or None."""
        if self.value is None:
            return f"{self.metric} of {self.topology} {self.why}"
        numbers = (self.value, *self.runs)
        if not all(1 / LARGEST <= number <= LARGEST for number in numbers):
            return f"{self.metric} of {self.topology} = {self.value:g}, which is no measurement"
        return None


Lookup = Callable[[str, Workload, str], Side]
"""Returns the side of a topology and a workload in a quantity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Everything that sides are taken from: this session, or the figures."""

    measured: Mapping[Key, Sequence[Record]] = field(default_factory=dict)
    """Valid runs of tonight by topology and workload id, one of each start."""
    last_night: Mapping[Key, Sequence[Record]] = field(default_factory=dict)
    """The same of the last night before."""
    baseline: Baseline | None = None
    """The stored baseline: its nights tell how far pairs spread."""
    floors: Mapping[str, float] = field(default_factory=dict)
    """Least limit by metric, as a fraction, where it is not the metric's own."""
    here: str = HERE
    """What to call where :attr:`measured` comes from."""
    figures: Figures | None = None
    """What was read off plots, where the system is nothing else."""
    broken: Collection[str] = ()
    """Topologies that ended in an ERROR in this session."""
    invalid: Collection[tuple[str, str]] = ()
    """Cells whose runs of this session are invalid."""
    sizes: Mapping[str, Size] = field(default_factory=dict)
    """Nodes and GPUs by topology, as far as they are known."""
    per_gpu: bool = False
    """Whether throughput is divided by the GPUs of its topology."""

    def side(self, topology: str, workload: Workload, metric: str) -> Side:
        """The side of *topology* and *workload* in *metric*, a metric or a derived quantity."""
        derived = DERIVED.get(metric)
        if derived is None:
            side = self._plain(topology, workload, metric)
        else:
            parts = [self._plain(topology, workload, name) for name in derived.needs]
            side = derive(derived, parts, workload)
        side = replace(side, size=self.sizes.get(topology))
        return _per_gpu(side) if self.per_gpu and quantities()[metric].is_throughput else side

    def _plain(self, topology: str, workload: Workload, metric: str) -> Side:
        key = (topology, workload.id)
        side = Side(
            topology=topology,
            workload=workload.id,
            metric=metric,
            value=None,
            origin="nowhere",
            nights=tuple(self._nights(key, metric)),
            last_night=values_of(self.last_night.get(key, ())[:1], metric) or (),
            floor=self.floors.get(metric, quantities()[metric].floor),
            cells=(key,),
        )
        if key in self.measured:
            return _measured(replace(side, origin=self.here), self.measured[key])
        if trouble := self._trouble(topology, workload):
            return replace(side, why=f"was lost: {trouble}", trouble=trouble)
        if self.figures is not None:
            reading = self.figures.cells.get(key, {}).get(metric)
            return replace(
                side,
                value=reading.value if reading else None,
                uncertainty=reading.uncertainty if reading else 0.0,
                origin=self.figures.origin,
                why="is not in the figures",
            )
        return side

    def _nights(self, key: Key, metric: str) -> Iterator[float | None]:
        """The value in each session of the baseline."""
        cell = self.baseline.cell(key) if self.baseline else None
        if self.baseline is None or cell is None:
            return
        by_session = {night.session: night.values.get(metric) for night in cell.nights}
        for source in self.baseline.sessions:
            yield by_session.get(source.id)

    def _trouble(self, topology: str, workload: Workload) -> str:
        """What lost the side, if anything; a stored value in its place would hide that."""
        if (topology, workload.id) in self.invalid:
            return f"the run of {workload.id} on {topology} is invalid in this session"
        return f"{topology} ended in an ERROR in this session" if topology in self.broken else ""


def _per_gpu(side: Side) -> Side:
    """The side with its throughput divided by its GPUs."""
    if side.size is None:
        return _without_value(side, "has no known number of GPUs")
    gpus = side.size.gpus
    return replace(
        side,
        value=None if side.value is None else side.value / gpus,
        uncertainty=side.uncertainty / gpus,
        runs=tuple(run / gpus for run in side.runs),
        nights=tuple(None if night is None else night / gpus for night in side.nights),
        last_night=tuple(night / gpus for night in side.last_night),
    )


def derive(derived: Derived, parts: Sequence[Side], workload: Workload) -> Side:
    """The side that follows from those of the metrics that *derived* needs, in their order."""
    first = next((part for part in parts if part.missing), parts[0])
    side = replace(first, metric=derived.metric.name)
    if first.missing:
        return _without_value(side, f"cannot be had: {first.missing}")
    if (lengths := workload.lengths) is None:
        return _without_value(side, f"cannot be had: the lengths of {workload.id} are not known")
    made = combine(side, parts, lambda values: derived.formula(values, lengths))
    values = [part.value for part in parts if part.value is not None]
    off = sum(part.uncertainty / value for part, value in zip(parts, values, strict=True))
    return replace(
        made,
        uncertainty=(made.value or 0.0) * off,
        floor=max(part.floor for part in parts),
    )


def combine(
    side: Side, parts: Sequence[Side], formula: Callable[[tuple[float, ...]], float]
) -> Side:
    """Return *side* with what *formula* makes of its parts, none of which is missing.

    The value is the median of the runs, as that of every side is; parts that ran unequally often
    make one run of their medians.
    """
    values = tuple(part.value for part in parts if part.value is not None)
    runs: tuple[float, ...] = ()
    if len({len(part.runs) for part in parts}) == 1:
        runs = tuple(map(formula, zip(*(part.runs for part in parts), strict=True)))
    elif all(part.runs for part in parts):
        runs = (formula(values),)
    last = _each_night([part.last_night for part in parts], formula)
    return replace(
        side,
        value=statistics.median(runs) if runs else formula(values),
        runs=runs,
        nights=tuple(_each_night([part.nights for part in parts], formula)),
        last_night=tuple(night for night in last if night is not None),
    )


def _each_night(
    nights: Sequence[Sequence[float | None]], formula: Callable[[tuple[float, ...]], float]
) -> Iterator[float | None]:
    for night in zip(*nights, strict=False):
        values = tuple(value for value in night if value is not None)
        yield formula(values) if len(values) == len(nights) else None


def _without_value(side: Side, why: str) -> Side:
    return replace(side, value=None, runs=(), nights=(), last_night=(), uncertainty=0.0, why=why)


def _measured(side: Side, records: Sequence[Record]) -> Side:
    if any(side.metric in record.voided for record in records):
        return replace(side, why="must not be judged in this cell, as sanity says")
    runs = values_of(records, side.metric)
    if runs is None:
        return side
    if min(runs) <= 0:
        return replace(side, why=f"is {min(runs):g}, which is no measurement")
    return replace(side, value=statistics.median(runs), runs=runs)
