"""The nightly judgement: which cells to run again, then PASS, FAIL or INCONCLUSIVE. Pure.

A session asks :func:`next_cells` for cells until it names none, running each once more on a fresh
start in between, and then :func:`verdicts`. Shapes as in :mod:`.estimation`; leading axes are
nights that are judged side by side, as :mod:`.power` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pytest_pdserve.judge.estimation import Bools
from pytest_pdserve.judge.estimation import Envelopes
from pytest_pdserve.judge.estimation import Floats
from pytest_pdserve.judge.estimation import as_fraction
from pytest_pdserve.judge.estimation import directions
from pytest_pdserve.judge.estimation import median
from pytest_pdserve.judge.estimation import upper_t
from pytest_pdserve.judge.evidence import FamilyStatistic
from pytest_pdserve.judge.evidence import Nights
from pytest_pdserve.judge.evidence import family_statistic
from pytest_pdserve.judge.evidence import memberships
from pytest_pdserve.judge.evidence import night_of
from pytest_pdserve.judge.evidence import night_variance
from pytest_pdserve.judge.evidence import persistent
from pytest_pdserve.judge.evidence import tonight_statistic
from pytest_pdserve.judge.evidence import window_statistic
from pytest_pdserve.judge.evidence import with_tonight
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.rules import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that a night's judgement knows."""

    envelopes: Envelopes
    """What the baseline leads to expect."""
    logs: Floats
    """Tonight's runs in the order they were made, signed log; NaN where a cell has no further run.
    Shape ``(..., cells, metrics, runs)``."""
    past: Nights | None = None
    """Nights before, against the same baseline, on a last axis, newest last."""
    rules: Rules
    """Constants and budget."""

    @property
    def tests(self) -> int:
        """Tests of one night: cells x metrics with a baseline."""
        return _most(np.isfinite(self.envelopes.df))

    @property
    def family_tests(self) -> int:
        """Family tests of one night: topologies of two cells or more x metrics."""
        member = memberships(self.envelopes.families)
        return _most(member @ np.isfinite(self.envelopes.df).astype(np.float64) >= 2)

    @property
    def shares(self) -> tuple[Share, ...]:
        """The error budget of this night, a line a part: tonight, windows, family."""
        return self.rules.budget.shares(tests=self.tests, families=self.family_tests)


def _most(tests: Bools) -> int:
    return int(tests.sum(axis=(-2, -1)).max(initial=0))


def next_cells(state: State) -> Bools:
    """Cells that need one more run on a fresh start.

    A cell without a run needs its first. One whose first run was suspicious in a metric needs more
    until no suspicion is left, one has become a FAIL, or the runs are spent. A cell whose baseline
    is too short for a FAIL tonight is not run again.

    :returns: shape ``(..., cells)``.
    """
    rules, envelopes = state.rules, state.envelopes
    runs = np.sum(np.any(~np.isnan(state.logs), axis=-2), axis=-1)
    night = night_of(state.logs, envelopes, clip=rules.clip)
    t = tonight_statistic(night, envelopes, icc=rules.icc)
    suspected = suspicions(state)
    cleared = t < upper_t(envelopes.df, rules.clear_p)
    failed = np.any(_fails_tonight(state, night), axis=-1)
    open_ = np.any(suspected & ~cleared, axis=-1) & ~failed
    again: Bools = (runs == 0) | (open_ & (runs < rules.most_runs))
    return again


def suspicions(state: State) -> Bools:
    """Tests whose first run tonight lies outside its envelope.

    Metrics whose noise forbids a FAIL tonight are run again all the same: windows and families
    then know a slowed run for what it is.

    :returns: shape ``(..., cells, metrics)``.
    """
    rules, envelopes = state.rules, state.envelopes
    outside = state.logs[..., 0] - envelopes.location > envelopes.room(rules.suspect_p)
    suspicious: Bools = outside & (envelopes.given >= rules.least_baseline_runs)
    return suspicious


def _may_fail_tonight(state: State) -> Bools:
    envelopes = state.envelopes
    return (envelopes.given >= state.rules.least_baseline_runs) & envelopes.steady


def _fails_tonight(state: State, night: Nights) -> Bools:
    rules, envelopes = state.rules, state.envelopes
    t = tonight_statistic(night, envelopes, icc=rules.icc)
    failed: Bools = (
        (t > upper_t(envelopes.df, state.shares[0].level))
        & (night.runs >= rules.least_runs)
        & _may_fail_tonight(state)
        & (night.shift > envelopes.floor)
    )
    return failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The verdicts of a night, as arrays. Shapes ``(..., cells, metrics)`` unless they say so."""

    fired: Bools
    """Which part found a regression: tonight, then the windows. Shape ``(parts, ...)``."""
    passed: Bools
    """Whether the upper confidence bound lies below the margin, and nothing fired."""
    t: Floats
    """Statistic of each part; NaN where there was too little evidence. Shape ``(parts, ...)``."""
    bound: Floats
    """Upper confidence bound of tonight's shift, signed log."""
    visible: Floats
    """Smallest shift that tonight, with confirmation runs, or a window would have found with the
    rules' power, signed log; infinite where none would."""
    night: Nights
    """Tonight, for the windows of later nights."""
    family: FamilyStatistic
    """Statistic of each topology and metric."""
    family_fired: Bools
    """Topologies that are slower as a whole. Shape ``(..., families, metrics)``."""

    @property
    def failed(self) -> Bools:
        """Tests that FAIL."""
        failed: Bools = np.any(self.fired, axis=0)
        return failed


def verdicts(state: State) -> Judged:
    """Judge a night whose runs are all made."""
    rules, envelopes = state.rules, state.envelopes
    night = night_of(state.logs, envelopes, clip=rules.clip)
    together = with_tonight(state.past, night)
    *window_shares, family_share = state.shares[1:]
    ran = ~np.isnan(night.z)
    statistics = [tonight_statistic(night, envelopes, icc=rules.icc)]
    fired = [_fails_tonight(state, night)]
    visible = _visible_tonight(state)
    for share in window_shares:
        t = window_statistic(together, envelopes, nights=share.nights, rules=rules)
        limit = upper_t(envelopes.df, share.level)
        shift = median(together.shift[..., -share.nights :])
        statistics.append(np.where(ran, t, np.nan))
        fired.append(ran & (t > limit) & (shift > envelopes.floor))
        each = night_variance(np.ones(1), rules.icc)[0] / share.nights
        seen = _visible(state, limit, each + persistent(envelopes, share.nights, rules))
        visible = np.where(np.isnan(t), visible, np.minimum(visible, seen))
    bound = _bound(state, night)
    failed = np.any(fired, axis=0)
    family = family_statistic(night, envelopes, icc=rules.icc)
    return Judged(
        fired=np.stack(fired),
        passed=~failed & (bound < envelopes.margin),
        t=np.stack(statistics),
        bound=bound,
        visible=np.where(ran, visible, np.nan),
        night=night,
        family=family,
        family_fired=(family.t > upper_t(family.df, family_share.level))
        & (family.shift > envelopes.floor),
    )


def _bound(state: State, night: Nights) -> Floats:
    rules, envelopes = state.rules, state.envelopes
    error = envelopes.sd * np.sqrt(night_variance(night.runs, rules.icc) + envelopes.noise)
    bound: Floats = night.shift + upper_t(envelopes.df, 1 - rules.pass_confidence) * error
    return bound


def _visible_tonight(state: State) -> Floats:
    rules, envelopes = state.rules, state.envelopes
    variance = night_variance(np.array([float(rules.most_runs)]), rules.icc)
    seen = _visible(state, upper_t(envelopes.df, state.shares[0].level), variance)
    return np.where(_may_fail_tonight(state), seen, np.inf)


def _visible(state: State, limit: Floats, variance: Floats) -> Floats:
    """Shift that passes *limit* with the rules' power; infinite if clipped z cannot get there."""
    envelopes = state.envelopes
    error = envelopes.sd * np.sqrt(variance + envelopes.noise)
    reach = limit * error / envelopes.scale < state.rules.clip
    needed = (limit + special.ndtri(state.rules.power)) * error
    return np.where(reach, np.maximum(needed, envelopes.floor), np.inf)


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
    bound: float
    """Upper confidence bound of it, as a fraction; NaN for a topology."""
    visible: float
    """Smallest change that could have been seen, as a fraction; NaN for a topology."""


def rows(
    judged: Judged, state: State, *, cells: Sequence[str], families: Sequence[str]
) -> tuple[TestVerdict, ...]:
    """One row a test, then one a topology and metric; of a single night, without leading axes."""
    return (*_test_rows(judged, state, cells), *_family_rows(judged, state, families))


def _test_rows(judged: Judged, state: State, cells: Sequence[str]) -> Iterator[TestVerdict]:
    envelopes, shares, night = state.envelopes, state.shares, judged.night
    p = special.stdtr(envelopes.df, -judged.t)
    p = np.where(np.all(np.isnan(p), axis=0), np.nan, np.nan_to_num(p, nan=1.0).min(axis=0))
    signs = directions(envelopes.metrics)
    shift, bound, visible = (
        as_fraction(values, signs) for values in (night.shift, judged.bound, judged.visible)
    )
    for c, cell in enumerate(cells):
        for m, metric in enumerate(envelopes.metrics):
            fired = tuple(s.part for s, f in zip(shares, judged.fired[:, c, m], strict=False) if f)
            passed = judged.passed[c, m]
            yield TestVerdict(
                cell=cell,
                metric=metric,
                status=Status.FAIL if fired else Status.PASS if passed else Status.INCONCLUSIVE,
                fired=fired,
                runs=int(night.runs[c, m]),
                p=float(p[c, m]),
                shift=float(shift[c, m]),
                bound=float(bound[c, m]),
                visible=float(visible[c, m]),
            )


def _family_rows(judged: Judged, state: State, families: Sequence[str]) -> Iterator[TestVerdict]:
    family, member = judged.family, memberships(state.envelopes.families)
    p = special.stdtr(family.df, -family.t)
    shift = as_fraction(family.shift, directions(state.envelopes.metrics))
    runs = member @ judged.night.runs
    for f, name in enumerate(families):
        for m, metric in enumerate(state.envelopes.metrics):
            if np.isnan(family.t[f, m]):
                continue
            fired = bool(judged.family_fired[f, m])
            yield TestVerdict(
                cell=name,
                metric=metric,
                status=Status.FAIL if fired else Status.PASS,
                fired=(state.shares[-1].part,) if fired else (),
                runs=int(runs[f, m]),
                p=float(p[f, m]),
                shift=float(shift[f, m]),
                bound=math.nan,
                visible=math.nan,
            )
