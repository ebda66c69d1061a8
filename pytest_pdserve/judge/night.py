"""The nightly judgement: which cells to run again, then PASS, FAIL or INCONCLUSIVE. Pure.

A session asks :func:`next_cells` for cells until it names none, running each once more on a fresh
start in between, and then :func:`verdicts`. Shapes as in :mod:`.estimation`; leading axes are
nights that are judged side by side, as :mod:`.power` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from typing import Self

import numpy as np
from scipy import special

from pytest_pdserve.judge.estimation import Bools
from pytest_pdserve.judge.estimation import Envelopes
from pytest_pdserve.judge.estimation import Floats
from pytest_pdserve.judge.estimation import median
from pytest_pdserve.judge.estimation import signed_log
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
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.rules import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What statistics are held against; the same all night. Shapes ``(..., cells, metrics)``."""

    shares: tuple[Share, ...]
    """The error budget: tonight, windows, family."""
    room: Floats
    """Distance from the expected run above which a first run is suspicious, signed log."""
    suspect: Floats
    """T of a window above which a test is suspicious."""
    clear: Floats
    """T below which a suspicion is dropped."""
    fail: tuple[Floats, ...]
    """T above which a test FAILs: tonight, then the windows."""
    confidence: Floats
    """Quantile of the bound that a PASS needs below the margin."""


def limits_of(envelopes: Envelopes, rules: Rules) -> Limits:
    """Limits of all tests: quantiles of Student's t at the level that the budget gives each."""
    known = np.isfinite(envelopes.df)
    families = memberships(envelopes.families) @ known.astype(np.float64) >= 2
    shares = rules.budget.shares(tests=_most(known), families=_most(families))
    return Limits(
        shares=shares,
        room=envelopes.room(rules.suspect_p),
        suspect=upper_t(envelopes.df, rules.suspect_window_p),
        clear=upper_t(envelopes.df, rules.clear_p),
        fail=tuple(upper_t(envelopes.df, share.level) for share in shares[:-1]),
        confidence=upper_t(envelopes.df, 1 - rules.pass_confidence),
    )


def _most(tests: Bools) -> int:
    return int(tests.sum(axis=(-2, -1)).max(initial=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that a night's judgement knows."""

    envelopes: Envelopes
    """What the baseline leads to expect."""
    limits: Limits
    """Of the same envelopes and rules."""
    rules: Rules
    """Constants and budget."""
    logs: Floats
    """Tonight's runs in the order they were made, signed log; NaN where a cell has no further run.
    Shape ``(..., cells, metrics, runs)``."""
    past: Nights | None = None
    """Nights before, against the same baseline, on a last axis, newest last."""

    @classmethod
    def of(
        cls, envelopes: Envelopes, runs: Floats, *, rules: Rules, past: Nights | None = None
    ) -> Self:
        """The state after *runs*, given in the metrics' own units.

        :param runs: shape ``(..., cells, metrics, runs)``; NaN where there is none, where the run
            was invalid or where it voids the metric. What is there moves to the front.
        :raises ValueError: if a value is not positive and finite.
        """
        order = np.argsort(np.isnan(runs), axis=-1, kind="stable")
        return cls(
            envelopes=envelopes,
            limits=limits_of(envelopes, rules),
            rules=rules,
            logs=signed_log(np.take_along_axis(runs, order, axis=-1), envelopes.metrics),
            past=past,
        )


def next_cells(state: State) -> Bools:
    """Cells that need one more run on a fresh start.

    A cell without a run needs its first. One with a suspicious metric needs more until no suspicion
    is left, one has become a FAIL, or the runs are spent. A cell whose baseline is too short for a
    FAIL tonight is not run again.

    :returns: shape ``(..., cells)``.
    """
    made = np.sum(np.any(~np.isnan(state.logs), axis=-2), axis=-1)
    if not np.any(made):
        return np.ones(made.shape, dtype=bool)
    seen = _look(state)
    failed = np.any(seen.fired, axis=(0, -1))
    open_ = np.any(_unsettled(state, seen), axis=-1) & ~failed
    again: Bools = (made == 0) | (open_ & (made < state.rules.most_runs))
    return again


def unsettled(state: State) -> Bools:
    """Tests for which a further run is worth making: suspicious, not cleared, able to FAIL.

    :returns: shape ``(..., cells, metrics)``.
    """
    return _unsettled(state, _look(state))


def _unsettled(state: State, seen: _Look) -> Bools:
    enough = state.envelopes.given >= state.rules.least_baseline_runs
    tests: Bools = _suspicions(state) & ~(seen.t[0] < state.limits.clear) & enough
    return tests


def _suspicions(state: State) -> Bools:
    """Tests that tonight's first run makes suspicious, alone or with the nights before.

    Metrics whose noise forbids a FAIL tonight are run again all the same: windows and families
    then know a slowed run for what it is.

    :returns: shape ``(..., cells, metrics)``.
    """
    first = replace(state, logs=state.logs[..., :1])
    outside = first.logs[..., 0] - state.envelopes.location > state.limits.room
    seen = _look(first)
    strong = (seen.t[1:] > state.limits.suspect) & seen.large[1:]
    lasting = np.any(strong & seen.still[1:], axis=0)
    suspicious: Bools = outside | lasting
    return suspicious


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """Statistics of tonight and of the windows, in this order, on a first axis."""

    night: Nights
    t: Floats
    shifts: Floats
    """Median change."""
    large: Bools
    """Whether the change is above the floor."""
    still: Bools
    """Whether tonight shows half of it at least: what was mended since is no regression."""
    worse: Bools
    """Whether the change is larger than chance and the floor explain, mended or not."""

    @property
    def fired(self) -> Bools:
        """Regressions of tonight."""
        return self.worse & self.still


def _look(state: State) -> _Look:
    rules, envelopes, limits = state.rules, state.envelopes, state.limits
    night = night_of(state.logs, envelopes, clip=rules.clip)
    together = with_tonight(state.past, night)
    ran = ~np.isnan(night.z)
    ts, shifts = [tonight_statistic(night, envelopes)], [night.shift]
    for share in limits.shares[1:-1]:
        t = window_statistic(together, envelopes, nights=share.nights, rules=rules)
        ts.append(np.where(ran, t, np.nan))
        shifts.append(median(together.shift[..., -share.nights :]))
    t, shift = np.stack(ts), np.stack(shifts)
    large, still = shift > envelopes.floor, night.shift >= shift / 2
    worse = large & np.stack([seen > limit for seen, limit in zip(t, limits.fail, strict=True)])
    worse[0] &= _may_fail_tonight(state) & (night.runs >= rules.least_runs)
    return _Look(night=night, t=t, shifts=shift, large=large, still=still, worse=worse)


def _may_fail_tonight(state: State) -> Bools:
    envelopes, rules = state.envelopes, state.rules
    enough = rules.most_runs >= rules.least_runs
    return (envelopes.given >= rules.least_baseline_runs) & envelopes.steady & enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The verdicts of a night, as arrays. Shapes ``(..., cells, metrics)`` unless they say so."""

    fired: Bools
    """Which part found a regression: tonight, then the windows. Shape ``(parts, ...)``."""
    passed: Bools
    """Whether the upper confidence bound lies below the margin, nothing fired, and no suspicion
    is left."""
    open: Bools
    """Tests whose median run of tonight still lies outside the envelope, or that were worse for
    nights and are not tonight."""
    worse: Bools
    """As :attr:`fired`, whether tonight still shows it or not. Shape ``(parts, ...)``."""
    shifts: Floats
    """Median change that each part saw, signed log. Shape ``(parts, ...)``."""
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
    family_bound: Floats
    """Upper confidence bound of a topology's shift, signed log."""

    @property
    def failed(self) -> Bools:
        """Tests that FAIL."""
        failed: Bools = np.any(self.fired, axis=0)
        return failed


def verdicts(state: State) -> Judged:
    """Judge a night whose runs are all made."""
    envelopes, limits = state.envelopes, state.limits
    seen = _look(state)
    bound = bound_of(seen.night, state)
    family = family_statistic(seen.night, envelopes, rules=state.rules)
    level, doubt = limits.shares[-1].level, 1 - state.rules.pass_confidence
    failed, faded = np.any(seen.fired, axis=0), np.any(seen.worse, axis=0)
    odd = (seen.night.shift > limits.room) & ~(seen.t[0] < limits.clear)
    open_ = (odd | faded) & ~failed
    return Judged(
        fired=seen.fired,
        passed=~failed & (bound < envelopes.margin) & ~open_,
        open=open_,
        worse=seen.worse,
        shifts=seen.shifts,
        t=seen.t,
        bound=bound,
        visible=np.where(np.isnan(seen.night.z), np.nan, visible_shift(state, seen.t)),
        night=seen.night,
        family=family,
        family_fired=(family.t > upper_t(family.df, level)) & (family.shift > envelopes.floor),
        family_bound=family.centre + upper_t(family.df, doubt) * family.error,
    )


def bound_of(night: Nights, state: State) -> Floats:
    """Upper confidence bound of the shift of a night, signed log."""
    envelopes = state.envelopes
    variance = night_variance(night.runs, envelopes.icc) + envelopes.noise
    bound: Floats = night.shift + state.limits.confidence * envelopes.sd * np.sqrt(variance)
    return bound


def undecided(state: State, nights: int) -> Bools:
    """Tests for which none of the last *nights* nights could rule a regression in or out.

    :returns: shape ``(..., cells, metrics)``; False where a test has fewer nights.
    """
    tonight = night_of(state.logs, state.envelopes, clip=state.rules.clip)
    together = with_tonight(state.past, tonight)
    if together.z.shape[-1] < nights:
        return np.zeros(together.z.shape[:-1], dtype=bool)
    open_ = ~verdicts(state).failed
    for place in range(-nights, 0):
        night = Nights(**{f: getattr(together, f)[..., place] for f in ("z", "shift", "runs")})
        open_ &= bound_of(night, state) >= state.envelopes.margin
    return open_


def visible_shift(state: State, t: Floats) -> Floats:
    """Smallest shift that a part with evidence would have found with the rules' power.

    :param t: statistic of each part, NaN where it has no evidence.
    """
    rules, envelopes, limits = state.rules, state.envelopes, state.limits
    visible = np.full(envelopes.location.shape, np.inf)
    for part, share in enumerate(limits.shares[:-1]):
        runs = np.array([1.0 if part else float(rules.most_runs)])
        variance = night_variance(runs, envelopes.icc) / share.nights + envelopes.noise
        variance = variance + persistent(envelopes, share.nights, rules) * (part > 0)
        error = envelopes.sd * np.sqrt(variance)
        # A clipped z reaches no further than the clip, however large the shift is.
        reach = limits.fail[part] * error < rules.clip * envelopes.scale
        able = reach & (~np.isnan(t[part]) if part else _may_fail_tonight(state))
        needed = (limits.fail[part] + special.ndtri(rules.power)) * error
        best = np.minimum(visible, np.maximum(needed, envelopes.floor))
        visible = np.where(able, best, visible)
    return visible
