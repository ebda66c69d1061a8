"""A judge that is broken on purpose turns red.

``test_night.py`` breaks the arithmetic of nights; here it is limits, claims, what becomes of
records before the arithmetic, and what is said of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pytest_pdserve.judge import claims
from pytest_pdserve.judge import envelope
from pytest_pdserve.judge import expectation
from pytest_pdserve.judge import kinds
from pytest_pdserve.judge import night
from pytest_pdserve.judge import night_rows
from pytest_pdserve.judge import ratios
from pytest_pdserve.judge import sides
from pytest_pdserve.judge import wording
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.claim_parts import Regime
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.rules import Share
from tests.support.known_cases import NIGHTLY
from tests.support.known_cases import RIGHT
from tests.support.known_cases import KnownCases
from tests.support.known_cases import MakeRecord


@pytest.fixture
def cases(make_record: MakeRecord) -> KnownCases:
    return KnownCases(make_record)


def test_the_judge_is_right(cases: KnownCases) -> None:
    said = cases.verdicts()
    slow, open_ = said.pop("night: says"), said.pop("night: open says")
    assert said == RIGHT
    assert "mean_itl_ms 5.0% worse (3 runs; found by: tonight; p = " in slow
    assert "output_throughput 4.8% worse (3 runs; found by: tonight; p = " in slow
    assert "would have been seen" in open_
    assert open_.startswith(
        "mean_itl_ms suspicious, and not cleared: 5.0% worse (2 runs), with 95 % confidence "
    )


Break = Callable[[pytest.MonkeyPatch], None]
BREAKS: dict[str, tuple[Break, tuple[str, ...]]] = {}
"""Name -> how to break the judge, and what must turn out otherwise, among other things."""


def breaks(*shown: str) -> Callable[[Break], Break]:
    def add(broken: Break) -> Break:
        BREAKS[getattr(broken, "__name__", "")] = broken, shown
        return broken

    return add


def wrapped(patch: pytest.MonkeyPatch, module: Any, name: str, change: Callable[..., Any]) -> None:
    """Put *change*, which is given the sound function first, in a function's place."""
    sound = vars(module)[name]
    patch.setattr(module, name, lambda *args, **named: change(sound, *args, **named))


@breaks("limits: slow", "limits: better")
def an_envelope_is_the_wrong_way_round(patch: pytest.MonkeyPatch) -> None:
    sound = Envelope.admits
    flip = {"lower": "higher", "higher": "lower", "equal": "equal"}

    def admits(self: Envelope, value: float) -> bool:
        return sound(replace(self, better=flip[self.better]), value)  # type: ignore[arg-type]

    patch.setattr(Envelope, "admits", admits)


@breaks("limits: slow", "limits: low rate")
def envelopes_admit_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Envelope, "admits", lambda self, value: True)


@breaks("limits: at the limit")
def envelopes_have_no_room(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Envelope, "limit", property(lambda self: self.ref))


@breaks("limits: as the baseline", "limits: at the limit")
def the_sign_of_the_room_is_lost(patch: pytest.MonkeyPatch) -> None:
    signs = {"lower": -1, "higher": 1, "equal": 0}
    limit = property(lambda self: self.ref * (1 + signs[self.better] * self.rtol))
    patch.setattr(Envelope, "limit", limit)


@breaks("limits: one run slow")
def only_the_best_run_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(envelope, "location", lambda values, better: min(values))


@breaks("limits: zero")
def a_timing_of_zero_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(envelope, "location", lambda values, better: sum(values) / len(values))


@breaks("limits: one run lacks it", "night: not measured", "limits: a request failed")
def misses_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(envelope, "_misses", lambda records, envelopes: ())


@breaks("limits: known issue met", "limits: known issue not met")
def known_issues_are_not_known(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        envelope,
        "_miss",
        lambda sound, name, said, value: sound(name, replace(said, known_issue=None), value),
    )


@breaks("limits: known issue met")
def known_issues_are_not_strict(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        envelope,
        "_miss",
        lambda sound, name, said, value: () if said.known_issue else sound(name, said, value),
    )


@breaks("night: slow")
def a_verdict_is_that_of_the_limits_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wording, "combined", lambda limits, tests: limits)


@breaks("night: slow and a request failed", "night: not measured")
def a_verdict_is_that_of_the_night_alone(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        wording,
        "combined",
        lambda sound, limits, tests: sound(replace(limits, status=Status.PASS), tests),
    )


@breaks("night: slow in two runs", "night: short baseline")
def what_is_open_is_dropped(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        wording,
        "combined",
        lambda sound, limits, tests: sound(
            limits, [test for test in tests if test.status is not Status.INCONCLUSIVE]
        ),
    )


@breaks("night: says", "night: open says")
def worse_is_called_better(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, wording, "_worse", lambda sound, shift: sound(-shift))


@breaks("night: slow", "night: again")
def records_are_read_in_the_wrong_order(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, expectation, "values_of", lambda sound, *a: sound(*a)[::-1])


@breaks("night: clean")
def metrics_are_mixed_up(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, expectation, "values_of", lambda sound, *a: sound(*a)[:, ::-1])


@breaks("night: slow")
def only_the_first_run_is_read(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, expectation, "values_of", lambda sound, *a: sound(*a)[..., :1])


@breaks("night: clean")
def cells_of_the_baseline_are_shuffled(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        expectation,
        "envelopes_from_runs",
        lambda sound, values, *a, **k: sound(np.roll(values, 1, axis=0), *a, **k),
    )


@breaks("night: short baseline")
def the_baseline_is_counted_twice(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        expectation,
        "envelopes_from_runs",
        lambda sound, values, *a, **k: sound(np.concatenate([values] * 2, axis=-1), *a, **k),
    )


@breaks("night: slow in two runs")
def confirmation_is_skipped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rules, "__init__", _ruled(least_runs=1))


@breaks("night: again")
def nothing_is_ever_run_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rules, "__init__", _ruled(most_runs=1))


@breaks("night: again")
def nothing_is_suspicious(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rules, "__init__", _ruled(suspect_p=1e-12, suspect_window_p=1e-12))


def _ruled(**wanted: Any) -> Callable[..., None]:
    sound = Rules.__init__
    return lambda self, **named: sound(self, **{**wanted, **named})


@breaks("night: lasting")
def windows_are_dropped(patch: pytest.MonkeyPatch) -> None:
    nothing = lambda past, *a, **k: np.full(past.z.shape[:-1], math.nan)  # noqa: E731
    patch.setattr(night, "window_statistic", nothing)


@breaks("night: lasting")
def the_past_is_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(expectation.Expectation, "after", lambda self, nights: self)


@breaks("night: topology")
def families_are_dropped(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, night_rows, "_family_rows", lambda sound, *a: ())


@breaks("night: topology")
def every_topology_is_fine(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, wording, "of_topology", lambda sound, tests, subject: sound((), subject))


@breaks("night: slow")
def the_threshold_has_the_wrong_tail(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, night, "upper_t", lambda sound, df, p: sound(df, p / 1e12))


@breaks("night: a little slow")
def the_threshold_has_the_wrong_sign(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, night, "upper_t", lambda sound, df, p: -sound(df, p))


@breaks("night: a little slow")
def margins_of_a_pass_are_dropped(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        expectation,
        "envelopes_from_runs",
        lambda sound, *a, **k: replace(sound(*a, **k), margin=np.zeros(len(NIGHTLY))),
    )


@breaks("night: slow")
def the_budget_is_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Share, "level", property(lambda self: 1e-15))


@breaks("night: clean")
def of_every_metric_less_is_better(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, night, "signed_log", lambda sound, *a: np.abs(sound(*a)))


@breaks("claim: below holds", "claim: above holds")
def claims_point_the_wrong_way(patch: pytest.MonkeyPatch) -> None:
    flip = {"<": ">", ">": "<"}
    wrapped(patch, kinds, "_region", lambda sound, sign, margin: sound(flip[sign], margin))


@breaks("claim: below by too little", "claim: above by too little")
def margins_have_the_wrong_sign(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, kinds, "_region", lambda sound, sign, margin: sound(sign, -margin))


@breaks("claim: below by too little")
def margins_are_dropped(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, kinds, "_region", lambda sound, sign, margin: sound(sign, 0.0))


@breaks("claim: below ties")
def a_tie_is_won(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, kinds, "_region", lambda sound, *a: replace(sound(*a), strict=False))


@breaks("claim: ratio holds", "claim: ratio too large", "claim: below holds")
def ratios_are_upside_down(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        kinds,
        "_over",
        lambda sound, first, second, *a, **k: sound(second, first, *a, **k),
    )


@breaks("claim: difference holds", "claim: difference too large")
def differences_are_the_other_way_round(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        kinds,
        "_minus",
        lambda sound, first, second, *a, **k: sound(second, first, *a, **k),
    )


@breaks("claim: best of rate", "claim: not best of rate")
def of_everything_lower_is_better(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(kinds, "_lower", lambda relation: True)


@breaks("claim: first in rank")
def ranks_count_from_behind(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, kinds, "_lower", lambda sound, relation: not sound(relation))


@breaks("claim: not within")
def any_value_is_within(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        kinds,
        "_alone",
        lambda sound, side, region, *a, **k: sound(side, ratios.Region(), *a, **k),
    )


@breaks("claim: rises")
def sweeps_are_followed_backwards(patch: pytest.MonkeyPatch) -> None:
    sound = Regime.axis
    patch.setattr(Regime, "axis", lambda self, point: -sound(self, point))


@breaks("claim: one cell contradicts", "claim: below does not")
def one_cell_that_holds_is_enough(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, claims, "_summed", lambda sound, findings: sound(()))


@breaks("claim: one cell contradicts")
def only_the_first_cell_counts(patch: pytest.MonkeyPatch) -> None:
    wrapped(patch, claims, "_summed", lambda sound, findings: sound(findings[:1]))


@breaks("claim: a side is missing")
def missing_sides_are_passed_over(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        claims,
        "_outcome",
        lambda sound, findings, *a: sound([f for f in findings if not f.missing], *a),
    )


@breaks("claim: a side is zero")
def a_side_of_zero_is_believed(patch: pytest.MonkeyPatch) -> None:
    absent = property(lambda self: "x" if self.value is None else None)
    patch.setattr(sides.Side, "missing", absent)


@breaks("claim: fails as known", "claim: known issue healed")
def claims_have_no_known_issues(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Claim, "expected", lambda self, system: None)


@breaks("claim: known issue healed")
def a_known_issue_excuses_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(claims, "_against", lambda *_: (Status.FAIL, ()))


@breaks("claim: six pairs", "claim: six pairs against")
def pairs_are_swapped(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        kinds,
        "judge_ratios",
        lambda sound, pairs, *a, **k: sound([(b, a) for a, b in pairs], *a, **k),
    )


@breaks("claim: noisy pairs", "claim: two pairs")
def pairs_have_no_noise(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        kinds,
        "judge_ratios",
        lambda sound, pairs, region, **k: sound(
            pairs, region, spread=ratios.PairSpread(sd=0.0), tests=1
        ),
    )


@breaks("claim: six pairs", "claim: six pairs against")
def pairs_prove_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ratios, "_quantile", lambda error, freedom: 1e9)


@pytest.mark.parametrize("name", list(BREAKS))
def test_a_broken_judge_turns_red(
    name: str, cases: KnownCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, shown = BREAKS[name]
    right = cases.verdicts()
    broken(monkeypatch)
    now = cases.verdicts()
    changed = {key for key in right if right[key] != now[key]}
    assert changed >= set(shown)


def test_no_check_is_idle(cases: KnownCases) -> None:
    """Some way to break the judge changes each kind of answer: PASS, FAIL and INCONCLUSIVE."""
    shown = {
        RIGHT[key].partition(" ")[0] for _, keys in BREAKS.values() for key in keys if key in RIGHT
    }
    assert {"PASS", "FAIL", "INCONCLUSIVE"} <= shown
    assert {key for _, keys in BREAKS.values() for key in keys} <= set(cases.verdicts())
