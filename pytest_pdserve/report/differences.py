"""What ``pdserve baseline diff`` shows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pdserve.judge.cells import references_of
from pytest_pdserve.judge.limits import Reference
from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.judge.wording import number
from pytest_pdserve.judge.wording import percent
from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.metrics import METRICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One metric of one cell in two baselines."""

    key: Key
    """Topology and workload id."""
    metric: str
    """Metric."""
    old: Reference | None
    """None where it is new."""
    new: Reference | None
    """None where it is gone."""

    @property
    def worse(self) -> float | None:
        """How much worse the reference is, signed log; None without two."""
        return None if self.old is None or self.new is None else self.new.median - self.old.median


def differences(
    old: Baseline | None, new: Baseline, floors: Mapping[str, float]
) -> Iterator[Difference]:
    """All metrics of all cells of two baselines."""
    for key in sorted({*(old.keys if old else ()), *new.keys}):
        cells = [baseline.cell(key) if baseline else None for baseline in (old, new)]
        before, after = (references_of(cell, floors) if cell else {} for cell in cells)
        for name in {**before, **after}:
            yield Difference(key=key, metric=name, old=before.get(name), new=after.get(name))


def difference_lines(
    old: Baseline | None, new: Baseline, floors: Mapping[str, float], *, everything: bool
) -> list[str]:
    """A table of what differs, and how many metrics do not.

    :param floors: changes below these, as fractions, are shown only with *everything*.
    """
    found = list(differences(old, new, floors))
    large = [
        d for d in found if d.worse is not None and abs(d.worse) > math.log1p(floors[d.metric])
    ]
    gone = [d for d in found if d.new is None]
    shown = found if everything else [*large, *gone]
    rows = [
        (
            *(*d.key, d.metric, METRICS[d.metric].unit),
            *(_value(d.metric, d.old), _value(d.metric, d.new), _change(d)),
        )
        for d in shown
    ]
    columns = ("topology", "workload", "metric", "unit", "old", "new", "change")
    worse = sum((d.worse or 0) > 0 for d in large)
    return [
        *(text_table(columns, rows, "llllrrr") if rows else []),
        f"{worse} metrics worse and {len(large) - worse} better by more than their floor, "
        f"{sum(d.old is None for d in found)} new, {len(gone)} gone, {len(found)} in all"
        + ("" if len(shown) == len(found) else "; the others with --all"),
    ]


def _value(metric: str, reference: Reference | None) -> str:
    if reference is None:
        return "-"
    value = number(as_value(reference.median, METRICS[metric].better))
    return f"{value} ({reference.nights} nights)"


def _change(difference: Difference) -> str:
    if difference.worse is None:
        return "new" if difference.old is None else "gone"
    return percent(as_change(difference.worse, METRICS[difference.metric].better))
