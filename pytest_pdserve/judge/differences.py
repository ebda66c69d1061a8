"""What one baseline says otherwise than another."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.metrics import METRICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One metric of one cell in two baselines."""

    cell: tuple[str, str]
    """Topology and workload id."""
    metric: str
    """Metric."""
    old: Envelope | None
    """None where it is new."""
    new: Envelope | None
    """None where it is gone."""

    @property
    def worse(self) -> float | None:
        """By which fraction the reference got worse, negative if better; None without two."""
        if self.old is None or self.new is None or not self.old.ref:
            return None
        change = self.new.ref / self.old.ref - 1
        return -change if self.new.better == "higher" else change

    @property
    def notable(self) -> bool:
        """Whether somebody must see it: new, gone, a count that changed, more than the floor."""
        if self.old is None or self.new is None or self.new.better == "equal":
            return self.old is None or self.new is None or self.old.ref != self.new.ref
        return self.worse is None or abs(self.worse) > METRICS[self.metric].floor


def differences(old: Baseline | None, new: Baseline) -> tuple[Difference, ...]:
    """All metrics of all cells of two baselines, by topology, workload, metric."""
    flat = [_flat(old), _flat(new)]
    return tuple(
        Difference(cell=key[:2], metric=key[2], old=flat[0].get(key), new=flat[1].get(key))
        for key in sorted({*flat[0], *flat[1]})
    )


def _flat(baseline: Baseline | None) -> dict[tuple[str, str, str], Envelope]:
    return {
        (topology, workload, metric): envelope
        for topology, workloads in (baseline.cells if baseline else {}).items()
        for workload, cell in workloads.items()
        for metric, envelope in cell.items()
    }
