"""The output of ``pdserve baseline diff``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pdserve.judge.cells import References
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

    client: str
    """Kind of the benchmark client."""
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
    """Yield all metrics of all cells of two baselines, by kind of client."""
    for client in sorted({*(old.clients if old else ()), *new.clients}):
        before = _references(old.of_client(client), floors) if old else {}
        after = _references(new.of_client(client), floors)
        for key in sorted({*before, *after}):
            one, other = before.get(key, {}), after.get(key, {})
            for name in {**one, **other}:
                yield Difference(
                    client=client, key=key, metric=name, old=one.get(name), new=other.get(name)
                )


def _references(baseline: Baseline, floors: Mapping[str, float]) -> dict[Key, References]:
    cells = {key: baseline.cells[key[0]][key[1]] for key in baseline.keys}
    return {key: references_of(cell, floors) for key, cell in cells.items()}


def difference_lines(
    old: Baseline | None, new: Baseline, floors: Mapping[str, float], *, everything: bool
) -> list[str]:
    """Return a table of what differs, and how many metrics do not.

    :param floors: changes below these, as fractions, are shown only with *everything*.
    """
    found = list(differences(old, new, floors))
    large = [
        d for d in found if d.worse is not None and abs(d.worse) > math.log1p(floors[d.metric])
    ]
    gone = [d for d in found if d.new is None]
    several = len({d.client for d in found}) > 1
    shown = found if everything else [*large, *gone]
    rows = [
        (
            *(*((d.client,) if several else ()), *d.key, d.metric, METRICS[d.metric].unit),
            *(_value(d.metric, d.old), _value(d.metric, d.new), _change(d)),
        )
        for d in shown
    ]
    columns = (
        *(("client",) if several else ()),
        "topology",
        "workload",
        "metric",
        "unit",
        "old",
        "new",
        "change",
    )
    worse = sum((d.worse or 0) > 0 for d in large)
    return [
        *(text_table(columns, rows, "l" * several + "llllrrr") if rows else []),
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
