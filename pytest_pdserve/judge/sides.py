"""Sides of claims: one topology's value in one cell, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

from pytest_pdserve.judge.stats import location
from pytest_pdserve.values.baseline import Baseline
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
    """The value of each run: of this session, then of earlier nights where these are judged."""
    nights: tuple[float | None, ...] = ()
    """The value in each night of the baseline, None where it has none: how far runs spread. Empty
    where nights are not judged."""
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


Look = Callable[[str, Workload, str], Side]
"""The side of a topology and a workload in a quantity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Everything that sides are taken from: this session, or the figures."""

    measured: Mapping[tuple[str, str], Sequence[Record]] = field(default_factory=dict)
    """Valid runs of this session by topology and workload id; of several nights where these are
    judged, the same place of each the same night."""
    baseline: Baseline | None = None
    """The stored baseline: only its nights are used, for the spread of runs."""
    nightly: bool = False
    """Whether the nights of :attr:`baseline` say how far runs spread."""
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

    def look(self, topology: str, workload: Workload, metric: str) -> Side:
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
        stored = self.baseline.envelopes(*key) if self.baseline else None
        envelope = (stored or {}).get(metric)
        side = Side(
            topology=topology,
            workload=workload.id,
            metric=metric,
            value=None,
            origin="nowhere",
            nights=(envelope.values or ()) if envelope and self.nightly else (),
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

    def _trouble(self, topology: str, workload: Workload) -> str:
        """What lost the side, if anything; a stored value in its place would hide that."""
        if (topology, workload.id) in self.invalid:
            return f"the run of {workload.id} on {topology} is invalid in this session"
        return f"{topology} ended in an ERROR in this session" if topology in self.broken else ""


def _per_gpu(side: Side) -> Side:
    """The side with its throughput divided by its GPUs."""
    if side.size is None:
        return replace(side, value=None, runs=(), why="has no known number of GPUs")
    gpus = side.size.gpus
    return replace(
        side,
        value=None if side.value is None else side.value / gpus,
        uncertainty=side.uncertainty / gpus,
        runs=tuple(run / gpus for run in side.runs),
        nights=tuple(None if night is None else night / gpus for night in side.nights),
    )


def derive(derived: Derived, parts: Sequence[Side], workload: Workload) -> Side:
    """The side that follows from those of the metrics that *derived* needs, in their order."""
    first = next((part for part in parts if part.missing), parts[0])
    side = replace(first, metric=derived.metric.name, value=None, runs=(), uncertainty=0.0)
    if first.missing:
        return replace(side, why=f"cannot be had: {first.missing}")
    if (lengths := workload.lengths) is None:
        return replace(side, why=f"cannot be had: the lengths of {workload.id} are not known")
    values = tuple(part.value for part in parts if part.value is not None)
    value = derived.formula(values, lengths)
    relative = sum(p.uncertainty / v for p, v in zip(parts, values, strict=True))
    runs: tuple[float, ...] = ()
    if len({len(part.runs) for part in parts}) == 1:
        runs = tuple(
            derived.formula(run, lengths) for run in zip(*(p.runs for p in parts), strict=True)
        )
    nights = tuple(_nightly(derived, parts, lengths))
    return replace(side, value=value, uncertainty=value * relative, runs=runs, nights=nights)


def _nightly(
    derived: Derived, parts: Sequence[Side], lengths: tuple[int, int]
) -> Iterator[float | None]:
    for night in zip(*(part.nights for part in parts), strict=False):
        values = tuple(value for value in night if value is not None)
        yield derived.formula(values, lengths) if len(values) == len(parts) else None


def _measured(side: Side, records: Sequence[Record]) -> Side:
    if any(side.metric in record.voided for record in records):
        return replace(side, why="must not be judged in this cell, as sanity says")
    runs = values_of(records, side.metric)
    if runs is None:
        return side
    try:
        value = location(runs, quantities()[side.metric].better)
    except ValueError:
        return replace(side, why=f"is {runs[0]:g}, which is no measurement")
    return replace(side, value=value, runs=runs)
