"""From a baseline and the records of nights to the arrays that :mod:`.night` judges."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property

import numpy as np

from pytest_pdserve.judge.estimation import Envelopes
from pytest_pdserve.judge.estimation import Floats
from pytest_pdserve.judge.estimation import envelopes_from_runs
from pytest_pdserve.judge.estimation import signed_log
from pytest_pdserve.judge.evidence import Nights
from pytest_pdserve.judge.evidence import night_of
from pytest_pdserve.judge.night import State
from pytest_pdserve.judge.night import next_cells
from pytest_pdserve.judge.night import undecided
from pytest_pdserve.judge.night import unsettled
from pytest_pdserve.judge.night import verdicts
from pytest_pdserve.judge.night_rows import TestVerdict
from pytest_pdserve.judge.night_rows import rows
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.rules import Rules

Key = tuple[str, str]
"""Topology and workload id."""
Runs = Mapping[Key, Sequence[Record]]
"""The valid runs of one night by cell, in the order they were made."""
Floor = Callable[[str], float]
"""Practical floor of a metric on this system, as a fraction."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """All tests of a baseline, whether measured tonight or not: they share the error budget."""

    keys: tuple[Key, ...]
    """Cells, along the arrays' first axis."""
    envelopes: Envelopes
    """Of these cells."""
    rules: Rules
    """Constants and budget."""
    past: Nights | None = None
    """Nights between the baseline and tonight, newest last."""

    @cached_property
    def topologies(self) -> tuple[str, ...]:
        """Names of the families."""
        return tuple(dict.fromkeys(topology for topology, _ in self.keys))

    def after(self, nights: Sequence[Runs]) -> Expectation:
        """The same, knowing *nights*, oldest first; windows look at the last of each test."""
        if not nights:
            return replace(self, past=None)
        seen = [
            night_of(
                signed_log(values_of(runs, self.keys, self.envelopes.metrics), self._metrics),
                self.envelopes,
                clip=self.rules.clip,
            )
            for runs in nights
        ]
        z, shift, made = (
            np.stack([getattr(night, name) for night in seen], axis=-1)
            for name in ("z", "shift", "runs")
        )
        return replace(self, past=Nights(z=z, shift=shift, runs=made))

    @property
    def icc(self) -> dict[str, float]:
        """What the runs of one night are taken to have in common, by metric."""
        shares = np.broadcast_to(self.envelopes.icc, (1, len(self._metrics)))[0]
        return {name: float(share) for name, share in zip(self._metrics, shares, strict=True)}

    @property
    def _metrics(self) -> tuple[str, ...]:
        return self.envelopes.metrics

    def state(self, tonight: Runs) -> State:
        """What is known after the runs of *tonight*."""
        runs = values_of(tonight, self.keys, self._metrics)
        return State.of(self.envelopes, runs, rules=self.rules, past=self.past)

    def knows(self, key: Key) -> bool:
        """Whether any metric of a cell is judged by nights."""
        return key in self.keys

    def suspicious(self, tonight: Runs, key: Key) -> tuple[str, ...]:
        """Metrics for which the cell *key* needs one more run on a fresh start; empty if none."""
        if key not in self.keys or not tonight.get(key):
            return ()
        state, place = self.state(tonight), self.keys.index(key)
        if not next_cells(state)[place]:
            return ()
        odd = unsettled(state)[place]
        return tuple(name for name, is_odd in zip(self._metrics, odd, strict=True) if is_odd)

    def undecided(self, tonight: Runs, nights: int) -> tuple[tuple[Key, str], ...]:
        """Cells and metrics that so many nights in a row, tonight the last, could not decide."""
        state = self.state(tonight)
        ran = ~np.all(np.isnan(state.logs), axis=-1)
        places = [(key, name) for key in self.keys for name in self._metrics]
        found = zip(places, (undecided(state, nights) & ran).ravel(), strict=True)
        return tuple(place for place, is_open in found if is_open)

    def judge(self, tonight: Runs) -> tuple[TestVerdict, ...]:
        """Verdicts of all tests, then of each metric over each topology.

        Tests that the baseline does not have are left out, not those without a run tonight.
        """
        state = self.state(tonight)
        names = [" ".join(key) for key in self.keys]
        given = {
            (name, metric)
            for name, has in zip(names, self.envelopes.given > 0, strict=True)
            for metric, there in zip(self._metrics, has, strict=True)
            if there
        } | {(topology, metric) for topology in self.topologies for metric in self._metrics}
        said = rows(verdicts(state), state, cells=names, families=self.topologies)
        return tuple(row for row in said if (row.cell, row.metric) in given)

    def of_cell(self, tonight: Runs, key: Key) -> tuple[TestVerdict, ...]:
        """Verdicts of the tests of one cell."""
        return tuple(row for row in self.judge(tonight) if row.cell == " ".join(key))

    def of_topology(self, tonight: Runs, topology: str) -> tuple[TestVerdict, ...]:
        """Verdicts of the metrics over a whole topology; empty with fewer than two cells."""
        return tuple(row for row in self.judge(tonight) if row.cell == topology)


def expectation_of(baseline: Baseline, *, floor: Floor, rules: Rules) -> Expectation | None:
    """What *baseline* leads to expect of every test that has values; None if none has.

    :param floor: practical floor of each metric.
    """
    keys, names, values = baseline_values(baseline)
    if not keys:
        return None
    topologies = list(dict.fromkeys(topology for topology, _ in keys))
    envelopes = envelopes_from_runs(
        values,
        names,
        np.array([topologies.index(topology) for topology, _ in keys], dtype=np.intp),
        rules=rules,
        floors=np.array([floor(name) for name in names]),
    )
    return Expectation(keys=keys, envelopes=envelopes, rules=rules)


def baseline_values(baseline: Baseline) -> tuple[tuple[Key, ...], tuple[str, ...], Floats]:
    """Cells and metrics of *baseline* that have values, and these.

    :returns: values of shape ``(cells, metrics, runs)``; NaN where there is none.
    """
    tests = {
        (topology, workload): {name: e.values for name, e in metrics.items() if e.values}
        for topology, workloads in baseline.cells.items()
        for workload, metrics in workloads.items()
    }
    keys = tuple(key for key, metrics in tests.items() if metrics)
    names = tuple(sorted({name for key in keys for name in tests[key]}))
    runs = max((len(values) for key in keys for values in tests[key].values()), default=0)
    found = np.full((len(keys), len(names), runs), np.nan)
    for c, key in enumerate(keys):
        for m, name in enumerate(names):
            given = tests[key].get(name) or ()
            found[c, m, : len(given)] = [np.nan if v is None else v for v in given]
    return keys, names, found


def values_of(runs: Runs, keys: Sequence[Key], metrics: Sequence[str]) -> Floats:
    """Values by cell, metric and run; NaN where a run lacks or voids one, or it is no timing."""
    most = max((len(records) for records in runs.values()), default=0)
    values = np.full((len(keys), len(metrics), max(most, 1)), np.nan)
    for c, key in enumerate(keys):
        for r, record in enumerate(runs.get(key, ())):
            for m, name in enumerate(metrics):
                value = record.value(name)
                if value is not None and np.isfinite(value) and value > 0:
                    values[c, m, r] = value
    return values
