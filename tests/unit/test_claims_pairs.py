"""Claims of every kind, judged by tonight's pairs of runs and what is known of their noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.values.claim import Claim
from tests.support.claims import APART
from tests.support.claims import CROSSING
from tests.support.claims import DIFFERENCE
from tests.support.claims import JOINT
from tests.support.claims import MONOTONE
from tests.support.claims import RANK
from tests.support.claims import RATIO
from tests.support.claims import SWEEP
from tests.support.claims import WITHIN
from tests.support.claims import claim
from tests.support.claims import judged

Numbers = Mapping[str, float]
TWO = {"others": ["dp", "route4"]}
RATE = {"metric": "output_throughput"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A claim, and three nights: it holds, it is violated by less than noise explains, and more."""

    made: Claim
    holds: Numbers
    near: Numbers
    far: Numbers


def case(fields: dict[str, Any], *nights: Numbers) -> Case:
    holds, near, far = nights
    return Case(made=claim(**fields), holds=holds, near=near, far=far)


def of_three(*values: float) -> Numbers:
    return dict(zip(("1p3d", "dp", "route4"), values, strict=True))


def of_two(subject: float, other: float) -> Numbers:
    return {"1p3d": subject, "dp": other}


def along(*values: float) -> Numbers:
    return dict(zip(("dp 512-256", "dp 512-512", "dp 512-1024"), values, strict=True))


def at(short: float, long: float) -> Numbers:
    return {"dp": 10.0, "1p3d 512-256": short, "1p3d 512-1024": long}


def apart(beside: float) -> Numbers:
    return {"dp": 10.0, "1p3d": 12.0, "1p3d 1024-256": beside}


def with_rate(rate: float) -> Numbers:
    return {"dp": 10.0, "mean_itl_ms 1p3d": 9.0, "output_throughput 1p3d": rate}


KINDS = {
    "below": case({}, of_two(9, 10), of_two(10.2, 10), of_two(11, 10)),
    "above": case({"kind": "above"}, of_two(11, 10), of_two(9.8, 10), of_two(9, 10)),
    "margin": case({"margin": 0.1}, of_two(8.8, 10), of_two(9.2, 10), of_two(9.9, 10)),
    "lowest": case(
        {"kind": "lowest", **TWO}, of_three(9, 10, 11), of_three(10.2, 10, 11), of_three(11, 10, 12)
    ),
    "highest": case(
        {"kind": "highest", **TWO},
        of_three(12, 10, 11),
        of_three(10.8, 10, 11),
        of_three(10, 9, 11),
    ),
    "best": case(
        {"kind": "best", **TWO, **RATE},
        of_three(12, 10, 11),
        of_three(10.8, 10, 11),
        of_three(10, 9, 11),
    ),
    "ratio": case(RATIO, of_two(8, 10), of_two(9.2, 10), of_two(10, 10)),
    "difference": case(DIFFERENCE, of_two(10, 10), of_two(11.2, 10), of_two(12, 10)),
    "within": case({**WITHIN, "high": 10.0}, {"1p3d": 9.5}, {"1p3d": 10.2}, {"1p3d": 11}),
    "rank": case(RANK, of_three(9, 10, 8), of_three(7.9, 10, 8), of_three(7, 10, 8)),
    "rank of rate": case(
        {**RANK, **RATE}, of_three(9, 10, 8), of_three(7.9, 10, 8), of_three(7, 10, 8)
    ),
    "monotone": case(MONOTONE, along(10, 11, 12), along(10, 9.8, 12), along(10, 9, 12)),
    "crossover": case(CROSSING, at(11, 9), at(9.8, 9), at(9, 9)),
    "spread": case(APART, apart(15), apart(11.9), apart(11)),
    "joint": case(JOINT, with_rate(10), with_rate(9.8), with_rate(9)),
}
BEYOND, WITHIN_NOISE = "violated by more than its noise", "violated by no more than its noise"


def seen(
    kind: Case, tonight: tuple[Numbers, ...], last_night: Numbers | None = None
) -> ClaimVerdict:
    """The verdict on pairs of *tonight* after twenty nights in which the claim held."""
    return judged(
        kind.made,
        {name: tuple(run[name] for run in tonight) for name in tonight[0]},
        SWEEP,
        nights={name: (value,) * 20 for name, value in kind.holds.items()},
        last_night={name: (value,) for name, value in (last_night or kind.holds).items()},
    )


@pytest.mark.parametrize("pairs", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_claim_that_holds_in_every_pair_passes(kind: Case, pairs: int) -> None:
    verdict = seen(kind, (kind.holds,) * pairs)
    assert (verdict.status, verdict.wants_pair, verdict.misses) == ("PASS", (), ())


@pytest.mark.parametrize("pairs", [1, 3])
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_claim_that_is_violated_within_noise_is_not_settled(kind: Case, pairs: int) -> None:
    verdict = seen(kind, (kind.near,) * pairs, kind.near)
    assert (verdict.status, verdict.wants_pair) == ("INCONCLUSIVE", ())
    assert verdict.contradicted == ()


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_claim_that_is_violated_beyond_noise_wants_three_pairs(kind: Case, pairs: int) -> None:
    verdict = seen(kind, (kind.far,) * pairs)
    assert verdict.status == "INCONCLUSIVE"
    assert verdict.wants_pair


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_claim_that_three_pairs_violate_beyond_noise_fails(kind: Case) -> None:
    verdict = seen(kind, (kind.far,) * 3)
    assert (verdict.status, verdict.wants_pair) == ("FAIL", ())
    assert verdict.contradicted


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_claim_that_was_violated_last_night_too_fails_on_one_pair(kind: Case) -> None:
    verdict = seen(kind, (kind.far,), kind.far)
    assert (verdict.status, verdict.wants_pair) == ("FAIL", ())


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_pair_that_holds_among_others_that_do_not_settles_nothing(kind: Case) -> None:
    verdict = seen(kind, (kind.far, kind.holds, kind.far), kind.far)
    assert (verdict.status, verdict.wants_pair) == ("INCONCLUSIVE", ())


TEXT = "mean_itl_ms of 1p3d = {} ms, claimed < 10 ms (dp 10 ms, {}, margin 0 %)"


@pytest.mark.parametrize(
    ("tonight", "last_night", "said"),
    [
        pytest.param((9.0,), 9.0, "PASS " + TEXT.format(9, "0.9 times"), id="holds"),
        pytest.param(
            (9.0, 9.5, 8.0),
            9.0,
            "PASS " + TEXT.format(9, "0.9 times in 3 pairs, 0.8 to 0.95"),
            id="holds in three pairs",
        ),
        pytest.param(
            (10.2,),
            9.0,
            "INCONCLUSIVE "
            + TEXT.format(10.2, "1.02 times, violated by no more than its noise of 4 %"),
            id="within noise",
        ),
        pytest.param(
            (11.0,),
            9.0,
            "INCONCLUSIVE "
            + TEXT.format(11, "1.1 times, violated by more than its noise of 4 % in 1 of 3 pairs"),
            id="beyond noise in one pair",
        ),
        pytest.param(
            (11.0, 9.9, 12.0),
            9.0,
            "INCONCLUSIVE "
            + TEXT.format(11, "1.1 times in 3 pairs, 0.99 to 1.2, violated in 2 of them"),
            id="in two of three",
        ),
        pytest.param(
            (11.0,),
            12.0,
            "FAIL "
            + TEXT.format(11, "1.1 times, violated by more than its noise of 4 %, as last night"),
            id="as last night",
        ),
        pytest.param(
            (11.0, 12.0, 10.5),
            9.0,
            "FAIL "
            + TEXT.format(
                11, "1.1 times in 3 pairs, 1.05 to 1.2, violated by more than its noise of 4 %"
            ),
            id="in three pairs",
        ),
    ],
)
def test_a_comparison_says_how_sure_it_is(
    tonight: tuple[float, ...], last_night: float, said: str
) -> None:
    verdict = seen(
        KINDS["below"], tuple(of_two(run, 10) for run in tonight), of_two(last_night, 10)
    )
    assert verdict.evidence[0] == ("random-512-256-n1024", said)


def test_the_noise_of_a_difference_has_its_unit() -> None:
    verdict = seen(KINDS["difference"], (of_two(12, 10),))
    assert verdict.misses[0] == (
        "random-512-256-n1024: mean_itl_ms of 1p3d = 12 ms, claimed -2 to 1 ms above dp (10 ms, "
        "difference 2 ms, violated by more than its noise of 0.48 ms in 1 of 3 pairs)"
    )


@pytest.mark.parametrize(
    ("tonight", "said"),
    [
        pytest.param(of_three(7, 10, 8), "; in 1 of 3 pairs)", id="clear in one pair"),
        pytest.param(of_three(7.9, 10, 8), "; no more clearly than noise explains)", id="noise"),
    ],
)
def test_a_rank_that_is_not_settled_says_why(tonight: Numbers, said: str) -> None:
    assert seen(KINDS["rank"], (tonight,)).misses[0].endswith(said)


def test_how_many_pairs_were_judged_is_said() -> None:
    one, three = (seen(KINDS["below"], (of_two(9, 10),) * pairs) for pairs in (1, 3))
    assert dict(one.evidence)["statistics"] == "1 pair of runs"
    assert dict(three.evidence)["statistics"] == "3 pairs of runs"


NIGHTS = {"1p3d": (9.0,) * 20, "dp": (10.0,) * 20}
NOISY = {"1p3d": (9.0, 9.3, 8.7, 9.6, 8.4) * 4, "dp": (10.0,) * 20}
"""Nights that are 5 % apart: their noise is 25 %."""


@pytest.mark.parametrize(
    ("nights", "status"),
    [
        pytest.param(NIGHTS, "FAIL", id="quiet"),
        pytest.param(NOISY, "INCONCLUSIVE", id="noisy"),
        pytest.param({}, "INCONCLUSIVE", id="no nights"),
        pytest.param({"1p3d": (9.0,) * 20}, "INCONCLUSIVE", id="no nights of one side"),
    ],
)
def test_noise_is_that_of_the_pair_over_the_nights(
    nights: dict[str, tuple[float, ...]], status: str
) -> None:
    values: dict[str, Any] = {"1p3d": (11.0,) * 3, "dp": (10.0,) * 3}
    assert judged(claim(), values, nights=nights).status == status


def test_noise_that_both_sides_share_is_none() -> None:
    shared = (9.0, 9.3, 8.7, 9.6, 8.4) * 4
    nights = {"1p3d": shared, "dp": tuple(10 / 9 * value for value in shared)}
    values: dict[str, Any] = {"1p3d": (11.0,) * 3, "dp": (10.0,) * 3}
    assert judged(claim(), values, nights=nights).status == "FAIL"


@pytest.mark.parametrize(
    ("subject", "status"),
    [
        pytest.param((9.0, 9.5, 12.0), "PASS", id="the median holds"),
        pytest.param((9.0, 11.0, 12.0), "INCONCLUSIVE", id="the median does not"),
    ],
)
def test_sides_that_ran_unequally_often_are_one_pair_of_medians(
    subject: tuple[float, ...], status: str
) -> None:
    verdict = judged(claim(), {"1p3d": subject, "dp": (10.0,)}, nights=NIGHTS)
    assert verdict.status == status
    assert dict(verdict.evidence)["statistics"] == "1 pair of runs"


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_tie_of_runs_is_no_rank(rank: int) -> None:
    fields = {**RANK, "low": rank, "high": rank}
    values: dict[str, Any] = dict.fromkeys(("1p3d", "dp", "route4"), (10.0,) * 3)
    verdict = judged(claim(**fields), values)
    assert verdict.status == "INCONCLUSIVE"
    assert "rank 1 to 3 of 3" in verdict.misses[0]


def test_a_rank_passes_where_a_tie_leaves_it_within_bounds() -> None:
    fields = {**RANK, "low": None, "high": 2}
    values: dict[str, Any] = {"1p3d": (10.0,), "dp": (10.0,), "route4": (12.0,)}
    assert judged(claim(**fields), values).status == "PASS"


def test_a_comparison_that_does_not_matter_for_the_rank_wants_no_pair() -> None:
    """route4 is clearly behind, which is as claimed; dp is ahead by no more than noise."""
    fields = {**RANK, "low": 1, "high": 1}
    values: dict[str, Any] = {"1p3d": (10.2,), "dp": (10.0,), "route4": (15.0,)}
    verdict = judged(claim(**fields), values)
    assert (verdict.status, verdict.wants_pair) == ("INCONCLUSIVE", ())


def test_a_gap_is_as_noisy_as_what_it_lies_between() -> None:
    """A gap of 4 % between runs that are off by 1 % is itself off by a third."""
    values: dict[str, Any] = {
        "dp": (100.0,) * 3,
        "1p3d": (104.0,) * 3,
        "1p3d 1024-256": (103.0,) * 3,
    }
    assert judged(claim(**APART), values, SWEEP).status == "INCONCLUSIVE"


def test_the_cells_that_want_a_pair_are_those_that_are_violated() -> None:
    made = claim(output_lens=[256, 512])
    values: dict[str, Any] = {"dp": (10.0,), "1p3d 512-256": (9.0,), "1p3d 512-512": (12.0,)}
    verdict = judged(made, values, SWEEP, nights={"1p3d": (9.0,) * 20, "dp": (10.0,) * 20})
    cell = "random-512-512-n1024"
    assert verdict.wants_pair == (("1p3d", cell), ("dp", cell))


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_side_that_is_missing_is_not_judged_beside_pairs_that_hold(kind: Case) -> None:
    values: dict[str, Any] = {name: (value,) for name, value in kind.holds.items()}
    gone = next(iter(values))
    assert judged(kind.made, {**values, gone: None}, SWEEP).status == "NOT JUDGED"
