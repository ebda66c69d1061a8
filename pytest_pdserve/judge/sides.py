"""Sides of claims: the value of one topology in one cell, and its source."""

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
    """Name of the quantity."""
    value: float | None
    """In the quantity's unit; None if it was not measured, or is void."""
    origin: str
    """``this session``, or the figures that the value was read off."""
    runs: tuple[float, ...] = ()
    """The value of each of tonight's runs, one run of each start."""
    nights: tuple[float | None, ...] = ()
    """The value in each session of the baseline; None for a session without it."""
    last_night: tuple[float, ...] = ()
    """The value in the last night before tonight; empty without one."""
    floor: float = 0.0
    """Smallest limit of the quantity, as a fraction."""
    cells: tuple[Key, ...] = ()
    """Cells that it was measured in."""
    uncertainty: float = 0.0
    """Possible error of :attr:`value` besides run-to-run noise, in its unit."""
    size: Size | None = None
    """Nodes and GPUs of the topology; None if unknown."""
    why: str = NOT_MEASURED
    """Why :attr:`value` is None; completes the sentence that begins with metric and topology."""
    trouble: str = ""
    """The ERROR of this session that prevented the measurement; empty without one."""

    @property
    def missing(self) -> str | None:
        """Why the side cannot be judged; None if it can."""
        if self.value is None:
            return f"{self.metric} of {self.topology} {self.why}"
        for number in (self.value, *self.runs):
            if not 1 / LARGEST <= number <= LARGEST:
                return (
                    f"{self.metric} of {self.topology} = {number:g}, expected {1 / LARGEST:g} to "
                    f"{LARGEST:g}"
                )
        return None


Lookup = Callable[[str, Workload, str], Side]
"""Returns the side of a topology and a workload in a quantity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideSources:
    """The measurements, the baseline or the figures that sides are taken from."""

    measured: Mapping[Key, Sequence[Record]] = field(default_factory=dict)
    """Valid runs of tonight by topology and workload id, one of each start."""
    last_night: Mapping[Key, Sequence[Record]] = field(default_factory=dict)
    """Valid runs of the last night before tonight, in the same form."""
    baseline: Baseline | None = None
    """The stored baseline: its nights give the spread of pairs."""
    floors: Mapping[str, float] = field(default_factory=dict)
    """Smallest limit by metric, as a fraction, if it is not the metric's own."""
    here: str = HERE
    """Origin of :attr:`measured` in messages."""
    figures: Figures | None = None
    """Values that were read off plots; only for a system that consists of these."""
    broken: Collection[str] = ()
    """Topologies that ended in an ERROR in this session."""
    invalid: Collection[tuple[str, str]] = ()
    """Cells whose runs of this session are invalid."""
    sizes: Mapping[str, Size] = field(default_factory=dict)
    """Nodes and GPUs by topology; topologies of unknown size are absent."""
    per_gpu: bool = False
    """True if throughput is divided by the GPUs of its topology."""

    def side(self, topology: str, workload: Workload, metric: str) -> Side:
        """Return the side of a topology and a workload in a metric or a derived quantity."""
        derived = DERIVED.get(metric)
        if derived is None:
            side = self._of_metric(topology, workload, metric)
        else:
            parts = [self._of_metric(topology, workload, name) for name in derived.needs]
            side = derive(derived, parts, workload)
        side = replace(side, size=self.sizes.get(topology))
        return _per_gpu(side) if self.per_gpu and quantities()[metric].is_throughput else side

    def _of_metric(self, topology: str, workload: Workload, metric: str) -> Side:
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
        """Yield the value in each session of the baseline; None for a session without it."""
        cell = self.baseline.cell(key) if self.baseline else None
        if self.baseline is None or cell is None:
            return
        by_session = {night.session: night.values.get(metric) for night in cell.nights}
        for source in self.baseline.sessions:
            yield by_session.get(source.id)

    def _trouble(self, topology: str, workload: Workload) -> str:
        """Return the ERROR of this session that prevented the measurement; empty without one.

        A stored value instead of the side would hide the ERROR.
        """
        if (topology, workload.id) in self.invalid:
            return f"the run of {workload.id} on {topology} is invalid in this session"
        return f"{topology} ended in an ERROR in this session" if topology in self.broken else ""


def _per_gpu(side: Side) -> Side:
    """Return the side with its throughput divided by its GPUs."""
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
    """Return the side of a derived quantity.

    :param parts: sides of the metrics that *derived* needs, in their order.
    """
    first = next((part for part in parts if part.missing), parts[0])
    side = replace(first, metric=derived.metric.name)
    if first.missing:
        return _without_value(side, f"cannot be computed: {first.missing}")
    if (lengths := workload.lengths) is None:
        return _without_value(side, f"cannot be computed: the lengths of {workload.id} are unknown")
    combined = combine(side, parts, lambda values: derived.formula(values, lengths))
    values = [part.value for part in parts if part.value is not None]
    relative = sum(part.uncertainty / value for part, value in zip(parts, values, strict=True))
    return replace(
        combined,
        uncertainty=(combined.value or 0.0) * relative,
        floor=max(part.floor for part in parts),
    )


def combine(
    side: Side, parts: Sequence[Side], formula: Callable[[tuple[float, ...]], float]
) -> Side:
    """Return *side* with values that *formula* computes from its parts, none of which is missing.

    The value is the median of the runs, as of every side; parts with different numbers of runs give
    one run, computed from their medians.
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
        return replace(side, why="is void in this cell because of a sanity finding")
    runs = values_of(records, side.metric)
    if runs is None:
        return side
    if min(runs) <= 0:
        return replace(side, why=f"is {min(runs):g}, expected above 0")
    return replace(side, value=statistics.median(runs), runs=runs)
