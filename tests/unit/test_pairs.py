"""A claim and tonight's pairs of runs: when they prove something, and how often they are wrong."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.judge.pairs import Region
from pytest_pdserve.judge.pairs import judge_pairs
from pytest_pdserve.judge.pairs import pair_noise
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.sweep import Sweep
from tests.support.claims import APART
from tests.support.claims import EVERY_CLAIM
from tests.support.claims import RANK
from tests.support.claims import SWEEP
from tests.support.claims import WITHIN
from tests.support.claims import claim
from tests.support.claims import judged
from tests.support.claims import lookup_in

BELOW = Region(high=0.0, strict=True)
"""Of a log ratio: the subject is below the other."""
NOISE = 0.05


@pytest.mark.parametrize(
    ("tonight", "last_night", "status", "wants_pair"),
    [
        pytest.param((-0.01,), None, Status.PASS, False, id="the pair holds"),
        pytest.param((-0.2, -0.01, -0.3), None, Status.PASS, False, id="every pair holds"),
        pytest.param((-0.01,), 0.2, Status.PASS, False, id="it holds again"),
        pytest.param((0.0,), None, Status.INCONCLUSIVE, False, id="on the boundary"),
        pytest.param((0.04,), None, Status.INCONCLUSIVE, False, id="violated within noise"),
        pytest.param((0.04,) * 3, None, Status.INCONCLUSIVE, False, id="three within noise"),
        pytest.param((0.04,), 0.06, Status.INCONCLUSIVE, False, id="within noise, after beyond"),
        pytest.param((0.06,), None, Status.INCONCLUSIVE, True, id="one pair beyond noise"),
        pytest.param((0.06, 0.07), None, Status.INCONCLUSIVE, True, id="two pairs beyond noise"),
        pytest.param((0.06,), 0.04, Status.INCONCLUSIVE, True, id="beyond, after within noise"),
        pytest.param((0.06,), -0.3, Status.INCONCLUSIVE, True, id="beyond, after it held"),
        pytest.param((0.06,) * 3, None, Status.FAIL, False, id="three pairs beyond noise"),
        pytest.param((0.06,) * 4, None, Status.FAIL, False, id="more than three"),
        pytest.param((0.01, 0.06, 0.06), None, Status.FAIL, False, id="the median is beyond"),
        pytest.param((0.06,), 0.06, Status.FAIL, False, id="beyond noise for two nights"),
        pytest.param((0.06, -0.01), None, Status.INCONCLUSIVE, False, id="one of two holds"),
        pytest.param((0.3, -0.01, 0.3), None, Status.INCONCLUSIVE, False, id="one of three holds"),
        pytest.param((0.3, -0.01), 0.3, Status.INCONCLUSIVE, False, id="holds and not, two nights"),
    ],
)
def test_pairs_pass_if_all_hold_and_fail_if_all_are_clearly_violated(
    tonight: tuple[float, ...], last_night: float | None, status: Status, wants_pair: bool
) -> None:
    found = judge_pairs(tonight, BELOW, noise=NOISE, last_night=last_night)
    assert (found.status, found.wants_pair) == (status, wants_pair)


def test_an_outcome_has_tonights_median_and_its_range() -> None:
    found = judge_pairs((0.3, -0.1, 0.2), BELOW, noise=NOISE)
    assert (found.value, found.low, found.high) == (0.2, -0.1, 0.3)
    assert (found.pairs, found.violated, found.noise) == (3, 2, NOISE)


@pytest.mark.parametrize(
    ("region", "value", "holds", "excludes"),
    [
        pytest.param(Region(low=1.0, high=2.0), 1.0, True, False, id="the end is admitted"),
        pytest.param(Region(low=1.0, high=2.0), 2.0, True, False, id="the other end too"),
        pytest.param(Region(low=1.0, high=2.0), 0.99, False, True, id="below"),
        pytest.param(Region(low=1.0, high=2.0), 2.01, False, True, id="above"),
        pytest.param(Region(low=1.0, strict=True), 1.0, False, True, id="the strict end is not"),
        pytest.param(Region(high=1.0, strict=True), 1.0, False, True, id="nor the upper one"),
        pytest.param(Region(), 1e300, True, False, id="no end"),
    ],
)
def test_a_region_admits_a_value_or_excludes_it(
    region: Region, value: float, holds: bool, excludes: bool
) -> None:
    assert region.holds(value, value) is holds
    assert region.excludes(value, value) is excludes


def test_a_range_across_an_end_is_neither_admitted_nor_excluded() -> None:
    region = Region(low=1.0, high=2.0)
    assert not region.holds(1.9, 2.1)
    assert not region.excludes(1.9, 2.1)


QUIET, NOISY = (0.1,) * 10 + (0.101,) * 10, (0.08,) * 7 + (0.1,) * 6 + (0.12,) * 7
"""Twenty nights of a pair, apart by nothing, and by 2 %."""


@pytest.mark.parametrize(
    ("nights", "noise"),
    [
        pytest.param((), math.log(1.16), id="four floors without nights"),
        pytest.param(QUIET[:1], math.log(1.08), id="two floors after one night"),
        pytest.param(QUIET[:14], math.log(1.08), id="two floors before fifteen nights"),
        pytest.param(QUIET[:15], math.log(1.04), id="the floor from fifteen nights on"),
        pytest.param(QUIET, math.log(1.04), id="the floor if nights are quiet"),
        pytest.param(NOISY, 5 * 1.4826 * 0.02, id="five spreads if they are not"),
    ],
)
def test_the_noise_of_a_pair_is_as_wide_as_a_limit(nights: tuple[float, ...], noise: float) -> None:
    assert pair_noise(nights, 0.04) == pytest.approx(noise)


# Every kind: a PASS never contradicts what is printed.

NUMBER = r"(-?[\d.]+(?:e[+-]?\d+)?)"
FACED = re.compile(rf"= {NUMBER} .*?, claimed ([<>]) {NUMBER} ")
BOUNDED = {
    "ratio": re.compile(rf", {NUMBER} times"),
    "difference": re.compile(rf"difference {NUMBER}"),
    "within": re.compile(rf"= {NUMBER} "),
    "rank": re.compile(rf"rank {NUMBER}(?: to {NUMBER})? of"),
}
"""Where the texts of a kind have the number that bounds are about."""
ROUNDED = 2e-3
"""Numbers are printed with four digits or more."""
SIDES = [f"{name} {point.test_id}" for name in ("1p3d", "dp", "route4") for point in SWEEP]


VALUES = st.integers(1, 9).map(float)
"""Few, so that there are ties."""


def runs_of(count: int) -> st.SearchStrategy[dict[str, tuple[float, ...]]]:
    """Runs of every side, *count* of each."""
    runs = st.tuples(*[VALUES] * count)
    return st.fixed_dictionaries(dict.fromkeys(SIDES, runs))


UNEQUAL = st.fixed_dictionaries(
    dict.fromkeys(SIDES, st.lists(VALUES, min_size=1, max_size=3).map(tuple))
)


def contradictions(made: Claim, text: str) -> list[str]:
    """What a text that is said of a PASS prints against it."""
    wrong = []
    for value, sign, limit in FACED.findall(text):
        more = float(value) - float(limit)
        if (more if sign == "<" else -more) > ROUNDED * float(limit):
            wrong.append(f"{value} is not {sign} {limit}")
    for relation in made.relations:
        low, high = relation.bounds
        pattern = BOUNDED.get(str(relation.kind))
        for found in pattern.finditer(text) if pattern and made.kind != "joint" else ():
            for number in (float(group) for group in found.groups() if group):
                off = ROUNDED * max(1.0, abs(number))
                if not low - off <= number <= high + off:
                    wrong.append(f"{number} is not in {low} to {high}")
    return wrong


STRICT = (claim(**RANK), claim(**WITHIN, low=3.0, high=7.0), claim(**APART | {"measure": "ratio"}))
"""Kinds whose claim in :data:`EVERY_CLAIM` holds whatever is measured, and another measure."""


@pytest.mark.quick_cases(6)
@settings(max_examples=20, deadline=None)
@given(values=st.one_of(UNEQUAL, runs_of(1), runs_of(2), runs_of(3)))
@pytest.mark.parametrize("made", [*EVERY_CLAIM, *STRICT], ids=lambda made: made.kind)
def test_a_pass_never_contradicts_what_is_printed(
    made: Claim, values: Mapping[str, tuple[float, ...]]
) -> None:
    verdict = judged(made, values, SWEEP)
    for _, text in verdict.evidence[: len(SWEEP)]:
        for part in text.split("; "):
            if part.startswith("PASS"):
                assert contradictions(made, part) == []


@settings(max_examples=20, deadline=None)
@given(
    worse=st.floats(1.12, 3.0),
    runs=st.integers(1, 3),
    noise=st.lists(st.floats(-0.005, 0.005), min_size=6, max_size=6),
)
@pytest.mark.parametrize("kind", ["below", "lowest", "best", "ratio", "rank", "difference"])
def test_what_held_for_six_nights_and_breaks_tonight_never_passes(
    kind: str, worse: float, runs: int, noise: list[float]
) -> None:
    keys: dict[str, dict[str, Any]] = {
        "ratio": {"high": 1.0},
        "difference": {"high": 0.0},
        "rank": {"low": 1, "high": 1},
    }
    nights = {"1p3d": tuple(9.0 * math.exp(n) for n in noise), "dp": (10.0,) * 6}
    made = claim(kind=kind, **keys.get(kind, {}))
    tonight = {"1p3d": (10.0 * worse,) * runs, "dp": (10.0,) * runs}
    last = {name: values[-1:] for name, values in nights.items()}
    verdict = judged(made, tonight, nights=nights, last_night=last)
    assert verdict.status == (Status.FAIL if runs == 3 else Status.INCONCLUSIVE)


# A simulated year of nights.

NAMES = ("1p3d", "dp", "route2", "route4", "2p2d")
CELLS = Sweep().points()
LENGTHS = {point.id: point.test_id for point in CELLS}
KEYS = tuple(itertools.product(NAMES, LENGTHS))
LOWEST = claim(kind="lowest", others=list(NAMES[1:]), panel="both")
"""32 comparisons, each of which lies on its boundary if all topologies are equal."""
Runs = dict[Key, tuple[float, ...]]
NIGHTS = 300


def slowed(source: random.Random) -> float:
    """Noise of 0.8 %; one run in fifty is slowed by 5 to 50 %."""
    slow = math.log1p(source.uniform(0.05, 0.5)) if source.random() < 0.02 else 0.0
    return 10 * math.exp(source.gauss(0, 0.008) + slow)


def heavy_tailed(source: random.Random) -> float:
    """Student's t with 3 degrees of freedom, of 0.8 %."""
    chi = math.sqrt(sum(source.gauss(0, 1) ** 2 for _ in range(3)))
    return 10 * math.exp(0.008 * source.gauss(0, 1) / chi)


def night_of(draw: Callable[[random.Random], float], source: random.Random, runs: int) -> Runs:
    return {key: tuple(draw(source) for _ in range(runs)) for key in KEYS}


def verdict_of(runs: Runs, nights: Runs, last_night: Runs) -> ClaimVerdict:
    tonight, past, last = (
        {f"{name} {LENGTHS[workload]}": values for (name, workload), values in each.items()}
        for each in (runs, nights, last_night)
    )
    return judge_claim(LOWEST, CELLS, lookup_in(tonight, nights=past, last_night=last))


def year(draw: Callable[[random.Random], float]) -> tuple[float, float]:
    """Share of nights that FAIL, and of those that would if one pair were enough."""
    source = random.Random(7)
    last, failed, violated = night_of(draw, source, 1), 0, 0
    for night in range(NIGHTS):
        if night % 20 == 0:
            nights = night_of(draw, source, 20)
        runs = night_of(draw, source, 3)
        first = {key: values[:1] for key, values in runs.items()}
        verdict = verdict_of(first, nights, last)
        violated += verdict.status is Status.FAIL or bool(verdict.wants_pair)
        for pairs in (2, 3):
            if again := verdict.wants_pair:
                some = {k: v[:pairs] if k in again else v[:1] for k, v in runs.items()}
                verdict = verdict_of(some, nights, last)
        failed += verdict.status is Status.FAIL
        last = first
    return failed / NIGHTS, violated / NIGHTS


@pytest.mark.slow
@pytest.mark.parametrize("draw", [slowed, heavy_tailed])
def test_a_claim_on_its_boundary_fails_falsely_on_fewer_than_one_night_in_a_hundred(
    draw: Callable[[random.Random], float],
) -> None:
    failed, with_one_pair = year(draw)
    assert failed < 0.01
    assert with_one_pair > 0.02
