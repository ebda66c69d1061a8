"""What is said of each test of a night: the arrays of :mod:`.night`, row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pytest_pdserve.judge.estimation import as_fraction
from pytest_pdserve.judge.estimation import directions
from pytest_pdserve.judge.evidence import memberships
from pytest_pdserve.judge.night import Judged
from pytest_pdserve.judge.night import State
from pytest_pdserve.judge.verdict import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class TestVerdict:
    """What is said of one test, or of a metric over a whole topology."""

    __test__ = False  # pytest collects what is called Test

    cell: str
    """Cell, or topology."""
    metric: str
    """Metric."""
    status: Status
    """PASS, FAIL or INCONCLUSIVE."""
    fired: tuple[str, ...]
    """Parts of the budget that found a regression."""
    runs: int
    """Runs tonight, of all cells together for a topology."""
    p: float
    """Smallest one-sided p of its parts, before any correction for many tests; NaN without runs."""
    shift: float
    """Tonight's change, as a fraction; positive is worse."""
    lasting: float
    """Change over the widest window that was worse; tonight's where none was."""
    open: bool
    """Whether tonight's median run lies outside the envelope, or nights before were worse and
    tonight is not: no PASS, however narrow the bound."""
    bound: float
    """Upper confidence bound of tonight's change, as a fraction."""
    visible: float
    """Smallest change that could have been seen, as a fraction; NaN for a topology."""


def rows(
    judged: Judged, state: State, *, cells: Sequence[str], families: Sequence[str]
) -> tuple[TestVerdict, ...]:
    """One row a test, then one a topology and metric; of a single night, without leading axes."""
    return (*_test_rows(judged, state, cells), *_family_rows(judged, state, families))


def _test_rows(judged: Judged, state: State, cells: Sequence[str]) -> Iterator[TestVerdict]:
    envelopes, shares, night = state.envelopes, state.limits.shares, judged.night
    p = special.stdtr(envelopes.df, -judged.t)
    p = np.where(np.all(np.isnan(p), axis=0), np.nan, np.nan_to_num(p, nan=1.0).min(axis=0))
    signs = directions(envelopes.metrics)
    shift, bound, visible = (
        as_fraction(values, signs) for values in (night.shift, judged.bound, judged.visible)
    )
    visible = np.where(np.isinf(judged.visible), np.inf, visible)
    shifts = as_fraction(judged.shifts, signs)
    for c, cell in enumerate(cells):
        for m, metric in enumerate(envelopes.metrics):
            fired = tuple(s.part for s, f in zip(shares, judged.fired[:, c, m], strict=False) if f)
            widest = np.flatnonzero(judged.worse[:, c, m])[-1:].sum()
            passed = judged.passed[c, m]
            yield TestVerdict(
                cell=cell,
                metric=metric,
                status=Status.FAIL if fired else Status.PASS if passed else Status.INCONCLUSIVE,
                fired=fired,
                runs=int(night.runs[c, m]),
                p=float(p[c, m]),
                shift=float(shift[c, m]),
                lasting=float(shifts[widest, c, m]),
                open=bool(judged.open[c, m]),
                bound=float(bound[c, m]),
                visible=float(visible[c, m]),
            )


def _family_rows(judged: Judged, state: State, families: Sequence[str]) -> Iterator[TestVerdict]:
    family, member = judged.family, memberships(state.envelopes.families)
    p = special.stdtr(family.df, -family.t)
    signs = directions(state.envelopes.metrics)
    shift, bound = (as_fraction(values, signs) for values in (family.shift, judged.family_bound))
    runs = member @ np.where(np.isnan(judged.night.z), 0.0, judged.night.runs)
    for f, name in enumerate(families):
        for m, metric in enumerate(state.envelopes.metrics):
            if np.isnan(family.t[f, m]):
                continue
            fired = bool(judged.family_fired[f, m])
            passed = judged.family_bound[f, m] < state.envelopes.margin[m]
            yield TestVerdict(
                cell=name,
                metric=metric,
                status=Status.FAIL if fired else Status.PASS if passed else Status.INCONCLUSIVE,
                fired=(state.limits.shares[-1].part,) if fired else (),
                runs=int(runs[f, m]),
                p=float(p[f, m]),
                shift=float(shift[f, m]),
                lasting=float(shift[f, m]),
                open=False,
                bound=float(bound[f, m]),
                visible=math.nan,
            )
