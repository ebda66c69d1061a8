"""A judge that is broken on purpose turns red, and so does a right judge on broken evidence.

``test_night.py`` breaks the arithmetic of nights; here it is limits, claims, what becomes of
records before the arithmetic, and what is said of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pytest_pdserve.judge import claims
from pytest_pdserve.judge import envelope
from pytest_pdserve.judge import expectation
from pytest_pdserve.judge import kinds
from pytest_pdserve.judge import night
from pytest_pdserve.judge import ratios
from pytest_pdserve.judge import sides
from pytest_pdserve.judge import wording
from pytest_pdserve.judge.stats import envelope_of_nights
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.claim import Regime
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.rules import Share
from pytest_pdserve.values.workload import Workload

MakeRecord = Callable[..., Record]
WORKLOADS = tuple(
    Workload(input_len=i, output_len=o, num_prompts=4, panels=("prefill", "decode"))
    for i in (512, 1024, 2048)
    for o in (256, 512, 1024)
)
KEYS = tuple((topology, workload.id) for topology in ("1p3d", "dp") for workload in WORKLOADS)
FIRST = KEYS[0]
SCALES = {key: 1 + number / 4 for number, key in enumerate(KEYS)}
NIGHTLY = {"mean_itl_ms": 10.0, "output_throughput": 500.0}
FIXED = {"mean_ttft_ms": 100.0, "request_throughput": 2.0}
COUNTS = {"completed": 4.0, "failed": 0.0}


def fixed(name: str, ref: float, issue: str | None = None) -> Envelope:
    better = METRICS[name].better
    rtol = 0.0 if better == "equal" else 0.1
    return Envelope(metric=name, ref=ref, rtol=rtol, better=better, runs=5, known_issue=issue)


def baseline_of(count: int = 20) -> Baseline:
    """Nine cells of two topologies, each at a level of its own, with 0.8 % noise."""
    rng = np.random.default_rng(11)
    cells: dict[str, dict[str, dict[str, Envelope]]] = {}
    for topology, workload in KEYS:
        scale = SCALES[topology, workload]
        cell = {name: fixed(name, ref * scale) for name, ref in FIXED.items()}
        cell |= {name: fixed(name, ref) for name, ref in COUNTS.items()}
        for name, typical in NIGHTLY.items():
            steps = rng.standard_normal(count)
            steps = (steps - steps.mean()) / steps.std(ddof=1) * 0.008
            cell[name] = envelope_of_nights(name, [scale * typical * math.exp(s) for s in steps])
        cells.setdefault(topology, {})[workload] = cell
    return Baseline(system="p5-efa", suite="sweep", source="b.json", provenance={}, cells=cells)


BASELINE, SHORT = baseline_of(), baseline_of(14)


def with_issue(name: str) -> Baseline:
    cell = dict(BASELINE.cells[FIRST[0]][FIRST[1]])
    cell[name] = fixed(name, FIXED[name], "vllm#1")
    return replace(BASELINE, cells={FIRST[0]: {FIRST[1]: cell}})


def clean(key: tuple[str, str], slower: float = 0.0) -> dict[str, float]:
    """Metrics of a run of a cell, its nightly ones worse by a fraction."""
    scale = SCALES[key]
    fixed_ones = {name: value * scale for name, value in FIXED.items()}
    itl, rate = (value * scale for value in NIGHTLY.values())
    nightly = dict(zip(NIGHTLY, (itl * (1 + slower), rate / (1 + slower)), strict=True))
    return {**fixed_ones, **nightly, **COUNTS}


class Court:
    """Asks the judge for its verdicts on nights, cells and claims whose answers are known."""

    def __init__(self, make_record: MakeRecord) -> None:
        self.make = make_record

    def run(
        self, key: tuple[str, str] = FIRST, *, slower: float = 0.0, **metrics: float | None
    ) -> Record:
        workload = next(w for w in WORKLOADS if w.id == key[1])
        merged = {**clean(key, slower), **metrics}
        kept = tuple((name, value) for name, value in merged.items() if value is not None)
        return replace(self.make(topology=key[0], workload=workload), metrics=kept)

    def odd(self, name: str, value: float | None) -> Record:
        """A clean run of the first cell but for one metric, which lacks where it is None."""
        run = self.run()
        others = tuple((key, known) for key, known in run.metrics if key != name)
        return replace(run, metrics=others if value is None else (*others, (name, value)))

    def night(self, *first: Record, slower: Mapping[str, float] | None = None) -> expectation.Runs:
        """A night in which the first cell had these runs, and topologies were slower."""
        rates = slower or {}
        runs = {key: (self.run(key, slower=rates.get(key[0], 0.0)),) for key in KEYS}
        return {**runs, FIRST: first or runs[FIRST]}

    def cell(self, *runs: Record, baseline: Baseline = BASELINE) -> Verdict:
        """Verdict of the first cell: limits and night together, as a session has it."""
        expected = self.expected(baseline)
        limits = envelope.judge_cell(runs, baseline)
        return wording.combined(limits, expected.of_cell({FIRST: runs}, FIRST))

    def expected(self, baseline: Baseline = BASELINE) -> expectation.Expectation:
        made = expectation.expectation_of(
            baseline, floor=lambda name: METRICS[name].floor, rules=Rules()
        )
        assert made is not None
        return made

    def limits(self) -> dict[str, str]:
        said = {
            "limits: as the baseline": [self.run()],
            "limits: at the limit": [self.run(mean_ttft_ms=109.9, request_throughput=1.81)],
            "limits: slow": [self.run(mean_ttft_ms=111.0)],
            "limits: low rate": [self.run(request_throughput=1.7)],
            "limits: better": [self.run(mean_ttft_ms=50.0, request_throughput=4.0)],
            "limits: a request failed": [self.run(failed=1.0)],
            "limits: one run slow": [self.run(), self.run(mean_ttft_ms=130.0)],
            "limits: one run lacks it": [self.run(), self.run(mean_ttft_ms=None)],
            "limits: counts differ": [self.run(), self.run(completed=3.0)],
            "limits: zero": [self.run(mean_ttft_ms=0.0)],
        }
        statuses = {k: str(envelope.judge_cell(runs, BASELINE).status) for k, runs in said.items()}
        for name, value in {"met": 100.0, "not met": 200.0}.items():
            verdict = envelope.judge_cell(
                [self.run(mean_ttft_ms=value)], with_issue("mean_ttft_ms")
            )
            statuses[f"limits: known issue {name}"] = str(verdict.status)
        missing = replace(BASELINE, cells={})
        statuses["limits: none"] = str(envelope.judge_cell([self.run()], missing).status)
        return statuses

    def nights(self) -> dict[str, str]:
        slow = self.run(slower=0.05)
        small = self.night(self.run(slower=0.03))
        past = self.expected().after([small, small])
        cells = {
            "night: clean": self.cell(self.run()),
            "night: a little slow": self.cell(*[self.run(slower=0.012)] * 3),
            "night: slow": self.cell(slow, slow, slow),
            "night: slow in two runs": self.cell(slow, slow),
            "night: short baseline": self.cell(slow, slow, slow, baseline=SHORT),
            "night: not measured": self.cell(self.run(mean_itl_ms=None)),
            "night: slow and a request failed": self.cell(slow, self.run(failed=1.0)),
        }
        whole = self.expected().of_topology(self.night(slower={"dp": 0.02}), "dp")
        lasting = past.of_cell(small, FIRST)
        asked = self.expected().suspicious({FIRST: (slow,)}, FIRST)
        return {
            **{name: str(verdict.status) for name, verdict in cells.items()},
            "night: says": " | ".join(cells["night: slow"].misses),
            "night: open says": " | ".join(cells["night: slow in two runs"].misses),
            "night: topology": str(wording.of_topology(whole, "dp").status),
            "night: lasting": "+".join(sorted({part for row in lasting for part in row.fired})),
            "night: again": ", ".join(asked),
        }

    def claims(self) -> dict[str, str]:
        return {f"claim: {name}": str(claimed(*case)) for name, case in CLAIMS.items()}

    def verdicts(self) -> dict[str, str]:
        return {**self.limits(), **self.nights(), **self.claims()}


@pytest.fixture
def court(make_record: MakeRecord) -> Court:
    return Court(make_record)


Values = Mapping[str, Any]
ENTRY = {
    "id": "c",
    "text": "t",
    "reason": "r",
    "source": "s",
    "panel": "decode",
    "kind": "below",
    "metric": "mean_itl_ms",
    "subject": "1p3d",
    "others": ["dp"],
}
ONE, THREE = WORKLOADS[:1], WORKLOADS[:3]
SPLIT = (("subject", None), ("others", None))
WITHIN = {**dict(SPLIT), "kind": "within", "topologies": ["1p3d"], "low": 8.0, "high": 12.0}
RISES = {**dict(SPLIT), "kind": "monotone", "topologies": ["1p3d"], "direction": "rises"}
RATE = {"kind": "best", "metric": "output_throughput"}
RANK = {"kind": "rank", "others": ["dp", "route4"], "low": 2, "high": 2}
KNOWN = {"known_issue": {"cells": ["512-256"], "why": "vllm#1"}}
CLAIMS: dict[str, tuple[dict[str, Any], Values, Sequence[Workload]]] = {
    "below holds": ({}, {"1p3d": 9.0, "dp": 10.0}, ONE),
    "below does not": ({}, {"1p3d": 11.0, "dp": 10.0}, ONE),
    "below ties": ({}, {"1p3d": 10.0, "dp": 10.0}, ONE),
    "below by too little": ({"margin": 0.2}, {"1p3d": 9.0, "dp": 10.0}, ONE),
    "below by enough": ({"margin": 0.2}, {"1p3d": 7.0, "dp": 10.0}, ONE),
    "above by too little": ({"kind": "above", "margin": 0.2}, {"1p3d": 11.0, "dp": 10.0}, ONE),
    "above holds": ({"kind": "above"}, {"1p3d": 11.0, "dp": 10.0}, ONE),
    "best of latency": ({"kind": "best"}, {"1p3d": 9.0, "dp": 10.0}, ONE),
    "best of rate": (RATE, {"1p3d": 11.0, "dp": 10.0}, ONE),
    "not best of rate": (RATE, {"1p3d": 9.0, "dp": 10.0}, ONE),
    "ratio holds": ({"kind": "ratio", "low": 0.4, "high": 0.6}, {"1p3d": 5.0, "dp": 10.0}, ONE),
    "ratio too large": ({"kind": "ratio", "high": 0.6}, {"1p3d": 10.0, "dp": 5.0}, ONE),
    "difference holds": ({"kind": "difference", "high": -1.0}, {"1p3d": 8.0, "dp": 10.0}, ONE),
    "difference too large": ({"kind": "difference", "high": 1}, {"1p3d": 12.0, "dp": 10.0}, ONE),
    "within": (WITHIN, {"1p3d": 10.0}, ONE),
    "not within": (WITHIN, {"1p3d": 13.0}, ONE),
    "rank holds": (RANK, {"1p3d": 9.0, "dp": 10.0, "route4": 8.0}, ONE),
    "first in rank": (
        {**RANK, "low": 1, "high": 1},
        {"1p3d": 7.0, "dp": 10.0, "route4": 8.0},
        ONE,
    ),
    "rank does not": (RANK, {"1p3d": 7.0, "dp": 10.0, "route4": 8.0}, ONE),
    "rises": (RISES, {"256": 1.0, "512": 2.0, "1024": 3.0}, THREE),
    "does not rise": (RISES, {"256": 1.0, "512": 2.0, "1024": 1.5}, THREE),
    "one cell contradicts": ({}, {"256": 9.0, "512": 11.0, "dp": 10.0}, THREE[:2]),
    "a side is missing": ({}, {"1p3d": 9.0}, ONE),
    "a side is zero": ({}, {"1p3d": 0.0, "dp": 10.0}, ONE),
    "no cell": ({"output_lens": [99]}, {"1p3d": 9.0, "dp": 10.0}, ONE),
    "fails as known": (KNOWN, {"1p3d": 11.0, "dp": 10.0}, ONE),
    "known issue healed": (KNOWN, {"1p3d": 9.0, "dp": 10.0}, ONE),
    "missing beside a known issue": (KNOWN, {"1p3d": 9.0}, ONE),
    "six pairs": ({}, {"1p3d": (9.0, 9.1) * 3, "dp": (10.0, 10.1) * 3}, ONE),
    "six pairs against": ({}, {"1p3d": (11.0, 11.1) * 3, "dp": (10.0, 10.1) * 3}, ONE),
    "two pairs": ({}, {"1p3d": (9.0, 9.1), "dp": (10.0, 10.1)}, ONE),
    "noisy pairs": ({}, {"1p3d": (8.0, 11.0) * 3, "dp": (10.0, 10.0) * 3}, ONE),
}


def claimed(fields: dict[str, Any], values: Values, sweep: Sequence[Workload]) -> str:
    merged = {k: v for k, v in {**ENTRY, **fields}.items() if v is not None}

    def look(topology: str, workload: Workload, metric: str) -> sides.Side:
        own = values.get(str(workload.output_len)) if topology == "1p3d" else None
        said = own or values.get(topology)
        runs = said if isinstance(said, tuple) else ()
        return sides.Side(
            topology=topology,
            workload=workload.id,
            metric=metric,
            value=sum(runs) / len(runs) if isinstance(said, tuple) else said,
            origin=sides.HERE,
            runs=runs,
        )

    verdict = claims.judge_claim(Claim.from_toml(merged, source="c.toml"), sweep, look, system="s")
    return f"{verdict.status}{' as known' if verdict.known else ''}"


RIGHT = {
    "limits: as the baseline": "PASS",
    "limits: at the limit": "PASS",
    "limits: slow": "FAIL",
    "limits: low rate": "FAIL",
    "limits: better": "PASS",
    "limits: a request failed": "FAIL",
    "limits: one run slow": "FAIL",
    "limits: one run lacks it": "FAIL",
    "limits: counts differ": "FAIL",
    "limits: zero": "FAIL",
    "limits: known issue met": "FAIL",
    "limits: known issue not met": "PASS",
    "limits: none": "FAIL",
    "night: clean": "PASS",
    "night: a little slow": "PASS",
    "night: slow": "FAIL",
    "night: slow in two runs": "INCONCLUSIVE",
    "night: short baseline": "INCONCLUSIVE",
    "night: not measured": "FAIL",
    "night: slow and a request failed": "FAIL",
    "night: topology": "FAIL",
    "night: lasting": "window of 3",
    "night: again": "mean_itl_ms, output_throughput",
    "claim: below holds": "PASS",
    "claim: below does not": "FAIL",
    "claim: below ties": "FAIL",
    "claim: below by too little": "FAIL",
    "claim: below by enough": "PASS",
    "claim: above by too little": "FAIL",
    "claim: above holds": "PASS",
    "claim: best of latency": "PASS",
    "claim: best of rate": "PASS",
    "claim: not best of rate": "FAIL",
    "claim: ratio holds": "PASS",
    "claim: ratio too large": "FAIL",
    "claim: difference holds": "PASS",
    "claim: difference too large": "FAIL",
    "claim: within": "PASS",
    "claim: not within": "FAIL",
    "claim: rank holds": "PASS",
    "claim: first in rank": "PASS",
    "claim: rank does not": "FAIL",
    "claim: rises": "PASS",
    "claim: does not rise": "FAIL",
    "claim: one cell contradicts": "FAIL",
    "claim: a side is missing": "FAIL",
    "claim: a side is zero": "FAIL",
    "claim: no cell": "FAIL",
    "claim: fails as known": "FAIL as known",
    "claim: known issue healed": "FAIL",
    "claim: missing beside a known issue": "FAIL",
    "claim: six pairs": "PASS",
    "claim: six pairs against": "FAIL",
    "claim: two pairs": "INCONCLUSIVE",
    "claim: noisy pairs": "INCONCLUSIVE",
}


def test_the_judge_is_right(court: Court) -> None:
    said = court.verdicts()
    slow, open_ = said.pop("night: says"), said.pop("night: open says")
    assert said == RIGHT
    assert "mean_itl_ms 5.0% worse (3 runs; found by: tonight; p = " in slow
    assert "output_throughput 4.8% worse (3 runs; found by: tonight; p = " in slow
    assert "mean_itl_ms 5.0% worse (2 runs), with 95 % confidence at most " in open_
    assert "would have been seen" in open_


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
        lambda sound, said, value: sound(replace(said, known_issue=None), value),
    )


@breaks("limits: known issue met")
def known_issues_are_not_strict(patch: pytest.MonkeyPatch) -> None:
    wrapped(
        patch,
        envelope,
        "_miss",
        lambda sound, said, value: () if said.known_issue else sound(said, value),
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
    wrapped(patch, night, "_family_rows", lambda sound, *a: ())


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
    sound = Regime.point
    patch.setattr(Regime, "point", lambda self, workload: -sound(self, workload))


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
        "_summed",
        lambda sound, findings: sound([f for f in findings if not f.missing]),
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
def test_a_broken_judge_turns_red(name: str, court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, shown = BREAKS[name]
    right = court.verdicts()
    broken(monkeypatch)
    now = court.verdicts()
    changed = {key for key in right if right[key] != now[key]}
    assert changed >= set(shown)


def test_no_check_is_idle(court: Court) -> None:
    """Some way to break the judge changes each kind of answer: PASS, FAIL and INCONCLUSIVE."""
    shown = {
        RIGHT[key].partition(" ")[0] for _, keys in BREAKS.values() for key in keys if key in RIGHT
    }
    assert {"PASS", "FAIL", "INCONCLUSIVE"} <= shown
    assert {key for _, keys in BREAKS.values() for key in keys} <= set(court.verdicts())


# A right judge on broken evidence.

NAMES = (*NIGHTLY, *FIXED, *COUNTS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e300, None])
def test_a_value_that_means_nothing_never_passes(
    name: str, value: float | None, court: Court
) -> None:
    improves = METRICS[name].better == "higher" and value == 1e300
    assert court.cell(court.odd(name, value)).status == ("PASS" if improves else "FAIL")


@pytest.mark.parametrize("name", sorted({*NIGHTLY, *FIXED, "completed"}))
def test_zero_never_passes(name: str, court: Court) -> None:
    verdict = court.cell(court.odd(name, 0.0))
    assert verdict.status == "FAIL"
    assert any(miss.startswith(name) for miss in verdict.misses)


@pytest.mark.parametrize("name", NAMES)
def test_a_renamed_metric_never_passes(name: str, court: Court) -> None:
    run = court.run()
    renamed = tuple((f"{key}_s" if key == name else key, value) for key, value in run.metrics)
    verdict = court.cell(replace(run, metrics=renamed))
    assert verdict.status == "FAIL"
    assert f"{name} is in the baseline, but 1 of 1 runs lack it" in verdict.misses


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_one_run_that_lacks_a_metric_is_not_made_up_by_others(
    name: str, place: int, court: Court
) -> None:
    runs = [court.run(), court.run(), court.run()]
    runs[place] = court.odd(name, None)
    assert court.cell(*runs).status == "FAIL"


@pytest.mark.parametrize("name", sorted(NIGHTLY))
def test_a_metric_that_sanity_voids_is_open_and_says_so(name: str, court: Court) -> None:
    note = Finding(check="chunks", severity="note", message="", voids=(name,))
    verdict = court.cell(replace(court.run(), findings=(note,)))
    assert (verdict.status, verdict.misses) == ("INCONCLUSIVE", (f"{name}: no run tonight has it",))


def test_no_run_at_all_is_no_verdict(court: Court) -> None:
    with pytest.raises(ValueError, match="expected runs of one cell, got none"):
        court.cell()
    rows = court.expected().judge({})
    assert {row.status for row in rows} == {"INCONCLUSIVE"}
    assert len(rows) == len(KEYS) * len(NIGHTLY)


def test_runs_of_two_cells_are_refused(court: Court) -> None:
    with pytest.raises(ValueError, match="expected runs of one cell"):
        court.cell(court.run(), court.run(KEYS[1]))


@pytest.mark.parametrize("other", KEYS[1:4])
def test_another_cells_baseline_never_passes_what_was_slow(
    other: tuple[str, str], court: Court
) -> None:
    """Values of cells that are swapped: the faster one's clean run is then too slow."""
    cells = {topology: dict(workloads) for topology, workloads in BASELINE.cells.items()}
    cells[other[0]][other[1]] = BASELINE.cells[FIRST[0]][FIRST[1]]
    swapped = replace(BASELINE, cells=cells)
    verdict = envelope.judge_cell([court.run(other)], swapped)
    assert verdict.status == "FAIL"


def test_a_wild_run_slipped_in_neither_fails_nor_hides_a_slow_cell(court: Court) -> None:
    wild, slow, sound = court.run(slower=0.9), court.run(slower=0.06), court.run()
    rows = {
        name: {row.status for row in court.expected().of_cell({FIRST: runs}, FIRST)}
        for name, runs in {
            "one wild of four": (wild, sound, sound, sound),
            "too good one of four": (court.run(slower=-0.5), slow, slow, slow),
        }.items()
    }
    assert "FAIL" not in rows["one wild of four"]
    assert rows["too good one of four"] != {"PASS"}


@pytest.mark.parametrize("slower", [0.05, 0.1, 0.5, 5.0, 1e6])
def test_the_slower_the_surer(slower: float, court: Court) -> None:
    slow = court.run(slower=slower)
    assert court.cell(slow, slow, slow).status == "FAIL"
    assert court.cell(slow).status == ("FAIL" if slower > 1 else "INCONCLUSIVE")


def test_a_fourfold_rate_of_a_fixed_limit_passes_as_an_improvement(court: Court) -> None:
    assert court.cell(court.run(request_throughput=8.0, mean_ttft_ms=25.0)).status == "PASS"
