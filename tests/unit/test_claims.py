"""Claims between topologies: every kind, both ways, with margins, and what is missing or void."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_pdserve.values.claim import Claim
from tests.support.claims import APART
from tests.support.claims import CROSSING
from tests.support.claims import DIFFERENCE
from tests.support.claims import EVERY_CLAIM
from tests.support.claims import JOINT
from tests.support.claims import MONOTONE
from tests.support.claims import RANK
from tests.support.claims import RATIO
from tests.support.claims import SWEEP
from tests.support.claims import WITHIN
from tests.support.claims import Values
from tests.support.claims import claim
from tests.support.claims import judged

TWO = {"others": ["dp", "route4"]}
MORE = {"metric": "output_throughput"}


@pytest.mark.parametrize(
    ("fields", "values", "status"),
    [
        ({"kind": "below"}, {"1p3d": 9, "dp": 10}, "PASS"),
        ({"kind": "below"}, {"1p3d": 10, "dp": 10}, "FAIL"),
        ({"kind": "below"}, {"1p3d": 11, "dp": 10}, "FAIL"),
        ({"kind": "below", "margin": 0.1}, {"1p3d": 9, "dp": 10}, "FAIL"),
        ({"kind": "below", "margin": 0.1}, {"1p3d": 8.9, "dp": 10}, "PASS"),
        ({"kind": "above"}, {"1p3d": 11, "dp": 10}, "PASS"),
        ({"kind": "above"}, {"1p3d": 10, "dp": 10}, "FAIL"),
        ({"kind": "above", "margin": 0.1}, {"1p3d": 11, "dp": 10}, "FAIL"),
        ({"kind": "above", "margin": 0.1}, {"1p3d": 11.1, "dp": 10}, "PASS"),
        ({"kind": "lowest", **TWO}, {"1p3d": 9, "dp": 10, "route4": 11}, "PASS"),
        ({"kind": "lowest", **TWO}, {"1p3d": 9, "dp": 10, "route4": 8}, "FAIL"),
        ({"kind": "highest", **TWO}, {"1p3d": 12, "dp": 10, "route4": 11}, "PASS"),
        ({"kind": "highest", **TWO}, {"1p3d": 10.5, "dp": 10, "route4": 11}, "FAIL"),
        ({"kind": "best", **TWO}, {"1p3d": 9, "dp": 10, "route4": 11}, "PASS"),
        ({"kind": "best", **TWO}, {"1p3d": 12, "dp": 10, "route4": 11}, "FAIL"),
        ({"kind": "best", **TWO, **MORE}, {"1p3d": 12, "dp": 10, "route4": 11}, "PASS"),
        ({"kind": "best", **TWO, **MORE}, {"1p3d": 9, "dp": 10, "route4": 11}, "FAIL"),
        (RATIO, {"1p3d": 5, "dp": 10}, "PASS"),
        (RATIO, {"1p3d": 9, "dp": 10}, "PASS"),
        (RATIO, {"1p3d": 4.9, "dp": 10}, "FAIL"),
        (RATIO, {"1p3d": 9.1, "dp": 10}, "FAIL"),
        ({"kind": "ratio", "low": 1.0}, {"1p3d": 10, "dp": 10}, "PASS"),
        ({"kind": "ratio", "high": 1.0}, {"1p3d": 10.1, "dp": 10}, "FAIL"),
        (DIFFERENCE, {"1p3d": 8, "dp": 10}, "PASS"),
        (DIFFERENCE, {"1p3d": 11, "dp": 10}, "PASS"),
        (DIFFERENCE, {"1p3d": 7.9, "dp": 10}, "FAIL"),
        (DIFFERENCE, {"1p3d": 11.1, "dp": 10}, "FAIL"),
        ({**WITHIN, "low": 9.0}, {"1p3d": 9}, "PASS"),
        ({**WITHIN, "low": 9.0}, {"1p3d": 8.9}, "FAIL"),
        ({**WITHIN, "low": 9.0, "high": 10.0}, {"1p3d": 10}, "PASS"),
        ({**WITHIN, "low": 9.0, "high": 10.0}, {"1p3d": 10.1}, "FAIL"),
        (RANK, {"1p3d": 9, "dp": 10, "route4": 8}, "PASS"),
        (RANK, {"1p3d": 9, "dp": 10, "route4": 11}, "FAIL"),
        (RANK, {"1p3d": 12, "dp": 10, "route4": 11}, "FAIL"),
        ({**RANK, "low": None}, {"1p3d": 9, "dp": 10, "route4": 11}, "PASS"),
        ({**RANK, "high": None}, {"1p3d": 9, "dp": 10, "route4": 11}, "FAIL"),
        ({**RANK, "low": 1, "high": 1, **MORE}, {"1p3d": 12, "dp": 1, "route4": 2}, "PASS"),
    ],
)
def test_a_kind_holds_or_not(fields: dict[str, Any], values: Values, status: str) -> None:
    verdict = judged(claim(**fields), values)
    assert verdict.status == status
    assert bool(verdict.misses) is (status == "FAIL")
    assert verdict.contradicted == (("512-256",) if status == "FAIL" else ())


def test_a_tie_is_no_rank() -> None:
    values = {"1p3d": 10.0, "dp": 10.0, "route4": 11.0}
    assert judged(claim(**{**RANK, "low": 1, "high": 1}), values).status == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("fields", "values", "contradicted"),
    [
        ({}, (1, 2, 3), ()),
        ({}, (1, 3, 2), ("512-1024",)),
        ({}, (2, 1, 3), ("512-512",)),
        ({}, (2, 2, 3), ("512-512",)),
        ({}, (3, 2, 1), ("512-512", "512-1024")),
        ({"direction": "falls"}, (3, 2, 1), ()),
        ({"direction": "falls"}, (1, 2, 3), ("512-512", "512-1024")),
        ({"margin": 0.5}, (1, 1.4, 3), ("512-512",)),
        ({"margin": 0.5, "direction": "falls"}, (4, 1.9, 1), ("512-1024",)),
        ({"output_lens": [512, 1024]}, (9, 1, 2), ()),
    ],
)
def test_a_sweep_is_monotone_or_says_where_not(
    fields: dict[str, Any], values: tuple[float, ...], contradicted: tuple[str, ...]
) -> None:
    names = ("dp 512-256", "dp 512-512", "dp 512-1024")
    verdict = judged(
        claim(**{**MONOTONE, **fields}), dict(zip(names, values, strict=True)), SWEEP[::-1]
    )
    assert verdict.contradicted == contradicted
    assert verdict.status == ("FAIL" if contradicted else "PASS")


def test_one_point_is_no_sweep() -> None:
    verdict = judged(claim(**MONOTONE, output_lens=[512]), {"dp": 1.0}, SWEEP)
    assert verdict.status == "NOT JUDGED"
    assert "a sweep needs two cells" in verdict.misses[0]


@pytest.mark.parametrize(
    ("fields", "short", "long", "contradicted"),
    [
        ({}, 11, 9, ()),
        ({}, 9, 11, ("512-1024", "512-256")),
        ({}, 9, 9, ("512-256",)),
        ({}, 11, 11, ("512-1024",)),
        ({"margin": 0.2}, 11, 9, ("512-1024", "512-256")),
        (MORE, 9, 11, ()),
        (MORE, 11, 9, ("512-1024", "512-256")),
    ],
)
def test_a_crossover_is_better_here_and_worse_there(
    fields: dict[str, Any], short: float, long: float, contradicted: tuple[str, ...]
) -> None:
    values = {"dp": 10, "1p3d 512-256": short, "1p3d 512-1024": long}
    verdict = judged(claim(**CROSSING, **fields), values, SWEEP)
    assert verdict.contradicted == contradicted
    assert verdict.status == ("FAIL" if contradicted else "PASS")


def test_a_crossover_at_a_length_that_was_not_swept_is_not_judged() -> None:
    verdict = judged(claim(**{**CROSSING, "better_at": [4096]}), {"dp": 1, "1p3d": 2}, SWEEP)
    assert verdict.misses == ("random-512-256-n1024: no cell of the regime lies at length 4096",)
    assert verdict.status == "NOT JUDGED"


@pytest.mark.parametrize(
    ("fields", "beside", "status"),
    [
        ({}, 15, "PASS"),
        ({}, 11.5, "FAIL"),
        ({"direction": "larger"}, 11.5, "PASS"),
        ({"direction": "larger"}, 15, "FAIL"),
        ({"margin": 0.7}, 15, "FAIL"),
        ({"margin": 0.5}, 15, "PASS"),
        ({"measure": "ratio"}, 13, "PASS"),
        ({"measure": "ratio"}, 11.5, "FAIL"),
    ],
)
def test_topologies_lie_apart_less_or_more(
    fields: dict[str, Any], beside: float, status: str
) -> None:
    values = {"dp": 10, "1p3d": 12, "1p3d 1024-256": beside}
    verdict = judged(claim(**{**APART, **fields}), values, SWEEP)
    assert verdict.status == status
    assert verdict.contradicted == (("512-512", "512-1024") if status == "FAIL" else ())


def test_a_spread_is_compared_with_every_cell() -> None:
    versus = {"panel": "prefill", "input_lens": [512, 1024]}
    values = {"dp": 10, "1p3d": 12, "1p3d 512-256": 15, "1p3d 1024-256": 11}
    verdict = judged(claim(**{**APART, "versus": versus, "output_lens": [512]}), values, SWEEP)
    assert verdict.misses == (
        "random-512-512-n1024: spread of mean_itl_ms of dp, 1p3d = 2 ms, claimed < 1 ms (at "
        "1024-256 1 ms, 2 times, margin 0 %)",
    )


def test_a_spread_needs_something_to_compare_with() -> None:
    versus = {"panel": "prefill", "input_lens": [4096]}
    verdict = judged(claim(**{**APART, "versus": versus}), {"dp": 1, "1p3d": 2}, SWEEP)
    assert verdict.misses == ("random-512-512-n1024: no cell to compare with lies in 'versus'",)
    values = {"dp": 1, "1p3d": 2, "1p3d 1024-256": None}
    assert judged(claim(**APART), values, SWEEP).status == "NOT JUDGED"


@pytest.mark.parametrize(
    ("itl", "throughput", "status"),
    [(9, 10, "PASS"), (9, 9.9, "FAIL"), (11, 10, "FAIL"), (11, 9, "FAIL"), (9, None, "NOT JUDGED")],
)
def test_all_of_a_joint_claim_must_hold(itl: float, throughput: float | None, status: str) -> None:
    values = {
        "dp": 10,
        "mean_itl_ms 1p3d": itl,
        "output_throughput 1p3d": throughput,
    }
    verdict = judged(claim(**JOINT), values)
    assert verdict.status == status


def test_every_other_topology_and_every_cell_counts() -> None:
    made = claim(kind="lowest", others=["dp", "route4"], output_lens=[256, 512])
    values = {"1p3d": 9, "dp": 10, "route4": 10, "route4 512-256": 8, "dp 512-512": 4.5}
    verdict = judged(made, values, SWEEP)
    assert verdict.misses == (
        "random-512-256-n1024: mean_itl_ms of 1p3d = 9 ms, claimed < 8 ms (route4 8 ms, "
        "1.125 times, margin 0 %)",
        "random-512-512-n1024: mean_itl_ms of 1p3d = 9 ms, claimed < 4.5 ms (dp 4.5 ms, 2 times, "
        "margin 0 %)",
    )
    assert verdict.evidence[0] == (
        "random-512-256-n1024",
        "PASS mean_itl_ms of 1p3d = 9 ms, claimed < 10 ms (dp 10 ms, 0.9 times, margin 0 %); "
        "FAIL mean_itl_ms of 1p3d = 9 ms, claimed < 8 ms (route4 8 ms, 1.125 times, margin 0 %)",
    )
    assert dict(verdict.evidence)["statistics"] == "read off plots: one run per side, no variance"
    assert verdict.evidence[-2:] == (("reason", "no prefill in between"), ("source", "article"))
    assert verdict.subject == "PD 1P3D mean ITL below DP (itl)"
    assert verdict.contradicted == ("512-256", "512-512")


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), 0.0, -1.0, 5e-324, 1e308])
@pytest.mark.parametrize("made", EVERY_CLAIM, ids=lambda c: c.kind)
def test_no_kind_passes_on_what_is_no_measurement(made: Claim, bad: float | None) -> None:
    good = {"1p3d": 9.0, "dp": 10.0, "route4": 11.0}
    for topology in made.topologies:
        verdict = judged(made, {**good, topology: bad}, SWEEP)
        assert verdict.status == ("FAIL" if verdict.contradicted else "NOT JUDGED")
        assert topology in " ".join(verdict.misses)


def test_a_regime_without_cells_never_passes() -> None:
    verdict = judged(claim(output_lens=[4096]), {"1p3d": 1, "dp": 2}, SWEEP)
    assert verdict.misses == (
        "no cell of the decode panel lies in the claim's regime; the sweep has 512-256, 512-512, "
        "512-1024",
    )
    assert ("sides from", "nowhere") in verdict.evidence


def test_what_cannot_be_decided_is_never_judged() -> None:
    nothing = dict.fromkeys(("kind", "metric", "subject", "others", "panel"))
    made = claim(**nothing, undecidable="a cause")
    assert (made.topologies, made.relations) == ((), ())
    with pytest.raises(ValueError, match="itl cannot be decided: a cause"):
        judged(made, {})
