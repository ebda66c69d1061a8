"""Claims: expected changes, regimes, loads, readings that may be off, and derived quantities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.judge.expected import ExpectedChanges
from pytest_pdserve.values.claim import CAUTION
from pytest_pdserve.values.expected import ExpectedChange
from pytest_pdserve.values.sweep import Sweep
from tests.support.claims import JOINT
from tests.support.claims import MONOTONE
from tests.support.claims import SWEEP
from tests.support.claims import cell
from tests.support.claims import claim
from tests.support.claims import lookup_in

ENTRY = ExpectedChange(
    claims=("itl",), cells=("512-256",), until="2099-12-31", owner="ann", reason="seen before"
)
HALVES = claim(output_lens=[256, 512])


def expecting(
    short: float | None, long: float | None, *entries: ExpectedChange, uncertainty: float = 0.0
) -> tuple[ClaimVerdict, tuple[str, ...]]:
    """The verdict on a claim about two cells, and what is wrong with its *entries*."""
    changes = ExpectedChanges(entries=entries or (ENTRY,), source="e.toml", today="2026-11-27")
    values = {"dp": 10.0, "1p3d 512-256": short, "1p3d 512-512": long}
    verdict = judge_claim(
        HALVES,
        SWEEP,
        lookup_in(values, uncertainty=uncertainty),
        covers=lambda *cells: changes.entry_for_claim("itl", *cells),
    )
    return verdict, changes.problems


@pytest.mark.parametrize(
    ("short", "long", "status", "troubles"),
    [
        pytest.param(11, 9, "EXPECTED", (), id="as expected"),
        pytest.param(
            9,
            9,
            "PASS",
            ("e.toml: entry 1 (ann: seen before) covered nothing tonight; remove it",),
            id="healed",
        ),
        pytest.param(11, 11, "FAIL", (), id="another cell too"),
        pytest.param(
            9,
            11,
            "FAIL",
            ("e.toml: entry 1 (ann: seen before): itl holds in 512-256; remove it",),
            id="another cell instead",
        ),
        pytest.param(None, 9, "NOT JUDGED", (), id="missing"),
        pytest.param(11, None, "NOT JUDGED", (), id="as expected, and another cell is missing"),
        pytest.param(None, 11, "FAIL", (), id="missing, and another cell contradicts it"),
    ],
)
def test_an_expected_change_covers_the_cells_that_it_names(
    short: float | None, long: float | None, status: str, troubles: tuple[str, ...]
) -> None:
    verdict, said = expecting(short, long)
    assert (verdict.status, said) == (status, troubles)


def test_what_holds_is_named_once_however_often_the_claim_is_judged() -> None:
    changes = ExpectedChanges(entries=(ENTRY,), source="e.toml", today="2026-11-27")
    for _ in range(3):
        changes.entry_for_claim("itl", ["512-512"], ["512-256"])
    assert len(changes.problems) == 1


def test_an_expected_claim_says_where_and_why_and_until_when() -> None:
    verdict, _ = expecting(11, 9)
    assert verdict.reason == (
        "EXPECTED: contradicted in 512-256: seen before (until 2099-12-31, ann)"
    )
    assert dict(verdict.evidence)["expected"] == "seen before"


def test_two_entries_cover_the_cells_of_both() -> None:
    other = replace(ENTRY, cells=("512-512",), reason="seen later")
    verdict, troubles = expecting(11, 11, ENTRY, other)
    assert (verdict.status, verdict.contradicted) == ("EXPECTED", ("512-256", "512-512"))
    assert troubles == ()


def test_nobody_knows_whether_an_entry_of_an_unclear_cell_is_needed() -> None:
    verdict, troubles = expecting(10, 9, uncertainty=0.1)
    assert (verdict.status, troubles) == ("INCONCLUSIVE", ())


def test_an_expected_violation_is_not_run_again() -> None:
    changes = ExpectedChanges(entries=(ENTRY,), source="e.toml", today="2026-11-27")
    verdict = judge_claim(
        claim(),
        cell(),
        lookup_in({"dp": (10.0,), "1p3d": (12.0,)}),
        covers=lambda *cells: changes.entry_for_claim("itl", *cells),
    )
    assert (verdict.status, verdict.wants_pair) == ("EXPECTED", ())
    assert verdict.contradicted == ("512-256",)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        pytest.param(ENTRY, [], id="all is there"),
        pytest.param(replace(ENTRY, claims=None), [], id="no entry about claims"),
        pytest.param(
            replace(ENTRY, claims=("itl", "ttft")),
            ["e.toml: entry 1 (ann: seen before): no claim is called ttft"],
            id="no such claim",
        ),
        pytest.param(
            replace(ENTRY, cells=("512-256", "512-257")),
            [
                "e.toml: entry 1 (ann: seen before): no cell of itl is called 512-257; the cells "
                "are 512-256, 512-512"
            ],
            id="no such cell",
        ),
        pytest.param(replace(ENTRY, claims=("ttft",), until="2020-01-01"), [], id="expired"),
    ],
)
def test_an_entry_of_what_does_not_exist_is_named(entry: ExpectedChange, said: list[str]) -> None:
    changes = ExpectedChanges(entries=(entry,), source="e.toml", today="2026-11-27")
    assert list(changes.unknown_names({"itl": ("512-256", "512-512")})) == said


@pytest.mark.parametrize(
    ("subject", "uncertainty", "status"),
    [(9.8, 0.05, "PASS"), (9.8, 0.15, "INCONCLUSIVE"), (10.2, 0.05, "FAIL")],
)
def test_a_reading_that_may_be_off_decides_only_beyond_that(
    subject: float, uncertainty: float, status: str
) -> None:
    lookup = lookup_in({"1p3d": subject, "dp": 10.0}, uncertainty=uncertainty)
    verdict = judge_claim(claim(), cell(), lookup)
    assert verdict.status == status
    assert "times [" in verdict.evidence[0][1]


LESS_IS_GUARDED = {"load": {"request_rate": 8.0}}


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        ({}, True),
        ({"metric": "p99_tpot_ms"}, True),
        ({"load": "saturated"}, True),
        ({"kind": "above", "subject": "dp", "others": ["1p3d"]}, True),
        ({"kind": "ratio", "subject": "dp", "others": ["1p3d"], "low": 2.0}, True),
        ({"kind": "above", "subject": "1p3d", "others": ["dp"]}, False),
        (LESS_IS_GUARDED, False),
        ({"metric": "mean_ttft_ms"}, False),
        ({"subject": "route4"}, False),
        (MONOTONE, False),
        (JOINT, False),
    ],
)
def test_itl_by_itself_is_said_to_be_confounded(fields: dict[str, Any], warned: bool) -> None:
    made = claim(**fields)
    assert made.caution == (CAUTION if warned else None)


@pytest.mark.parametrize(
    ("fields", "lengths"),
    [
        ({"panel": "decode"}, ["512-256", "512-512", "512-1024", "512-2048", "512-4096"]),
        ({"panel": "prefill", "input_lens": [1024, 4096]}, ["1024-256", "4096-256"]),
        ({"panel": "decode", "output_lens": [256]}, ["512-256"]),
        ({"panel": "decode", "input_lens": [1024]}, []),
        ({"panel": "both", "output_lens": [256, 512]}, None),
    ],
    ids=["panel", "input lengths", "output lengths", "nothing", "both"],
)
@pytest.mark.parametrize("divisor", [1, 16])
def test_a_regime_is_told_in_the_articles_lengths(
    fields: dict[str, Any], lengths: list[str] | None, divisor: int
) -> None:
    made = claim(**fields)
    cells = [point for point in Sweep(length_divisor=divisor).points() if made.admits(point)]
    expected = lengths or ["512-256", "1024-256", "2048-256", "4096-256", "512-512"]
    assert [point.name for point in cells] == ([] if lengths == [] else expected)


@pytest.mark.parametrize(
    ("load", "sweep", "admitted"),
    [
        ("saturated", {}, True),
        ("saturated", {"max_concurrency": 8}, True),
        ("saturated", {"max_concurrency": 7}, False),
        ("saturated", {"request_rate": 8.0}, False),
        ({"request_rate": 8.0}, {"request_rate": 8.0}, True),
        ({"request_rate": 8.0}, {}, False),
        ({"max_concurrency": 4}, {"max_concurrency": 4}, True),
        ({"max_concurrency": 4}, {"max_concurrency": 5}, False),
        ({"request_rate": 8.0, "max_concurrency": 4}, {"max_concurrency": 4}, False),
        (None, {"request_rate": 8.0}, True),
    ],
)
def test_a_regime_may_state_its_load(load: Any, sweep: dict[str, Any], admitted: bool) -> None:
    made = cell(**sweep)[0]
    assert claim(load=load).admits(made) is admitted
    assert made.name == ("512-256-rate8" if "request_rate" in sweep else "512-256")


def test_the_ends_of_an_interval_are_as_exact_as_its_value() -> None:
    lookup = lookup_in({"1p3d": 19728.9, "dp": 17199.3}, uncertainty=0.5)
    alone = claim(kind="within", subject=None, others=None, topologies=["1p3d"], low=19000)
    apart = claim(kind="difference", low=2000)
    assert "19728.9 ms [19728.4, 19729.4], claimed" in judge_claim(alone, cell(), lookup).message
    assert "difference 2529.6 ms [2528.6, 2530.6]" in judge_claim(apart, cell(), lookup).message
