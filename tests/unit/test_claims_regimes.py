"""Claims: known issues, regimes, loads, readings that may be off, and derived quantities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.judge.sides import Known
from pytest_pdserve.judge.sides import Side
from pytest_pdserve.judge.sides import derive
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.claim import CAUTION
from pytest_pdserve.values.quantities import DERIVED
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sweep import Sweep
from pytest_pdserve.values.topology import Size
from pytest_pdserve.values.workload import Workload
from tests.support.claims import JOINT
from tests.support.claims import MONOTONE
from tests.support.claims import SWEEP
from tests.support.claims import cell
from tests.support.claims import claim
from tests.support.claims import judged
from tests.support.claims import look_at

KNOWN = {"cells": ["512-256"], "why": "seen before"}


@pytest.mark.parametrize(
    ("short", "long", "status", "known", "said"),
    [
        (11, 9, "EXPECTED", "seen before", "random-512-256-n1024: mean_itl_ms of 1p3d"),
        (9, 9, "FAIL", None, "holds in 512-256, though a known issue says it does not"),
        (11, 11, "FAIL", None, "random-512-512-n1024: mean_itl_ms of 1p3d = 11 ms"),
        (9, 11, "FAIL", None, "holds in 512-256"),
    ],
    ids=["as known", "healed", "another cell too", "another cell instead"],
)
def test_a_known_issue_is_strict(
    short: float, long: float, status: str, known: str | None, said: str
) -> None:
    made = claim(known_issue=KNOWN, output_lens=[256, 512])
    verdict = judged(made, {"dp": 10, "1p3d 512-256": short, "1p3d 512-512": long}, SWEEP)
    assert (verdict.status, verdict.known) == (status, known)
    assert verdict.misses[0].startswith(said)
    assert dict(verdict.evidence)["known issue"] == "seen before"


def test_a_known_issue_of_a_cell_that_is_not_swept_fails() -> None:
    made = claim(known_issue={"cells": ["512-255"], "why": "w"})
    verdict = judged(made, {"dp": 10, "1p3d": 11})
    assert verdict.known is None
    assert verdict.misses[0].startswith("the known issue names 512-255, but the claim's cells are")


def test_a_known_issue_may_be_one_of_another_system() -> None:
    made = claim(known_issue={**KNOWN, "systems": ["elsewhere"]})
    assert judged(made, {"dp": 10, "1p3d": 11}).known is None
    assert judged(made, {"dp": 10, "1p3d": 9}).status == "PASS"
    here = claim(known_issue={**KNOWN, "systems": ["elsewhere", "s"]})
    assert judged(here, {"dp": 10, "1p3d": 11}).known == "seen before"


@pytest.mark.parametrize(
    ("subject", "uncertainty", "status"),
    [(9.8, 0.05, "PASS"), (9.8, 0.15, "INCONCLUSIVE"), (10.2, 0.05, "FAIL")],
)
def test_a_reading_that_may_be_off_decides_only_beyond_that(
    subject: float, uncertainty: float, status: str
) -> None:
    look = look_at({"1p3d": subject, "dp": 10.0}, uncertainty=uncertainty)
    verdict = judge_claim(claim(), cell(), look)
    assert verdict.status == status
    assert "times [" in verdict.evidence[0][1]


def test_an_unclear_known_cell_is_neither_known_nor_healed() -> None:
    made = claim(known_issue=KNOWN)
    look = look_at({"1p3d": 10.0, "dp": 10.0}, uncertainty=0.1)
    verdict = judge_claim(made, cell(), look)
    assert (verdict.status, verdict.known) == ("INCONCLUSIVE", None)


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


def test_derived_quantities_follow_from_metrics() -> None:
    values = {
        "request_throughput": 13.23,
        "mean_ttft_ms": 37374.1,
        "mean_itl_ms": 9.98,
        "output_throughput": 3386.8,
    }
    workload = Workload(input_len=4096, output_len=256, num_prompts=1024)

    def part(name: str) -> Side:
        value = values[name]
        side = look_at({"1p3d": value}, uncertainty=value / 100)("1p3d", workload, name)
        return replace(side, runs=(value, value))

    found = {
        name: derive(quantity, [part(need) for need in quantity.needs], workload)
        for name, quantity in DERIVED.items()
    }
    assert {name: side.value for name, side in found.items()} == pytest.approx(
        {
            "implied_prefill_rate": 54190.1,
            "waiting_requests": 494.46,
            "decoding_requests": 33.67,
            "generated_fraction": 0.99997,
        },
        rel=1e-4,
    )
    assert found["decoding_requests"].uncertainty == pytest.approx(0.02 * 33.67, rel=1e-3)
    assert found["decoding_requests"].runs == pytest.approx((33.67, 33.67), rel=1e-3)


def test_a_derived_quantity_lacks_what_its_metrics_lack() -> None:
    workload = cell()[0].workload
    look = look_at({"dp": None})
    derived = DERIVED["decoding_requests"]
    side = derive(derived, [look("dp", workload, need) for need in derived.needs], workload)
    assert side.missing == (
        "decoding_requests of dp cannot be had: request_throughput of dp was not measured"
    )


MakeRecord = Callable[..., Record]
POINT = Sweep(input_lens=(512,), output_lens=(256,), num_prompts=4).points()[0]
CELL = POINT.workload
"""Of the records that ``make_record`` makes."""


def known(make_record: MakeRecord, *runs: dict[str, float], **fields: Any) -> Known:
    records = tuple(make_record(run, **fields) for run in runs)
    return Known(measured={("1p3d", CELL.id): records})


def test_a_measured_side_has_its_runs(make_record: MakeRecord) -> None:
    seen = known(make_record, {"mean_itl_ms": 8.0}, {"mean_itl_ms": 18.0})
    side = seen.look("1p3d", CELL, "mean_itl_ms")
    assert side.value == pytest.approx(12.0)
    assert side.runs == (8.0, 18.0)
    assert (side.origin, side.missing) == ("this session", None)


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("mean_tpot_ms", "mean_tpot_ms of 1p3d was not measured"),
        ("mean_ttft_ms", "mean_ttft_ms of 1p3d must not be judged in this cell, as sanity says"),
        ("output_throughput", "output_throughput of 1p3d is 0, which is no measurement"),
    ],
)
def test_a_measured_side_may_be_missing_all_the_same(
    metric: str, why: str, make_record: MakeRecord
) -> None:
    note = Finding(check="chunks", severity="note", message="", voids=("mean_ttft_ms",))
    seen = known(make_record, {"output_throughput": 0.0}, findings=(note,))
    side = seen.look("1p3d", CELL, metric)
    assert (side.value, side.missing) == (None, why)


def test_a_side_that_is_nowhere_says_so(make_record: MakeRecord) -> None:
    side = known(make_record, {}).look("dp", CELL, "decoding_requests")
    assert (side.value, side.origin) == (None, "nowhere")


def test_the_baseline_stands_in_for_no_side(make_record: MakeRecord) -> None:
    envelope = Envelope(ref=20.0, rtol=0.1, better="lower", unit="ms", runs=20)
    cells = {"dp": {CELL.id: {"mean_itl_ms": envelope}}}
    stored = Baseline(system="s", suite="sweep", source="sweep.json", provenance=None, cells=cells)
    seen = replace(known(make_record, {}), baseline=stored)
    verdict = judge_claim(claim(), [POINT], seen.look)
    assert (verdict.status, verdict.missing) == ("NOT JUDGED", True)
    assert verdict.misses == (f"{CELL.id}: mean_itl_ms of dp was not measured",)


def test_the_ends_of_an_interval_are_as_exact_as_its_value() -> None:
    look = look_at({"1p3d": 19728.9, "dp": 17199.3}, uncertainty=0.5)
    alone = claim(kind="within", subject=None, others=None, topologies=["1p3d"], low=19000)
    apart = claim(kind="difference", low=2000)
    assert "19728.9 ms [19728.4, 19729.4], claimed" in judge_claim(alone, cell(), look).message
    assert "difference 2529.6 [2528.6, 2530.6] ms" in judge_claim(apart, cell(), look).message


ARTICLE_SIZES = {"1p1d": Size(nodes=2, gpus=16), "dp": Size(nodes=4, gpus=32)}


def test_throughput_per_gpu_compares_topologies_of_unequal_size(make_record: MakeRecord) -> None:
    records = {
        ("1p1d", CELL.id): (make_record({"output_throughput": 9000.0, "mean_itl_ms": 9.0}),),
        ("dp", CELL.id): (make_record({"output_throughput": 16000.0, "mean_itl_ms": 10.0}),),
    }
    seen = Known(measured=records, sizes=ARTICLE_SIZES)
    made = claim(kind="above", metric="output_throughput", subject="1p1d")
    assert judge_claim(made, [POINT], seen.look).status == "FAIL"
    per_gpu = claim(kind="above", metric="output_throughput", subject="1p1d", per="gpu")
    verdict = judge_claim(per_gpu, [POINT], replace(seen, per_gpu=True).look)
    assert verdict.status == "PASS"
    assert "562.5" in dict(verdict.evidence)[CELL.id]
    assert dict(verdict.evidence)["size"] == (
        "1p1d 2 nodes, 16 GPUs; dp 4 nodes, 32 GPUs; throughput is per GPU"
    )
    itl = replace(seen, per_gpu=True).look("1p1d", CELL, "mean_itl_ms")
    assert itl.value == pytest.approx(9.0)
    assert itl.size == ARTICLE_SIZES["1p1d"]


def test_without_its_gpus_nothing_is_per_gpu(make_record: MakeRecord) -> None:
    seen = replace(known(make_record, {"output_throughput": 9000.0}), per_gpu=True)
    side = seen.look("1p3d", CELL, "output_throughput")
    assert side.missing == "output_throughput of 1p3d has no known number of GPUs"


def test_a_size_that_all_share_is_said_once(make_record: MakeRecord) -> None:
    records = {(name, CELL.id): (make_record({"mean_itl_ms": 9.0}),) for name in ("1p3d", "dp")}
    sizes = {"1p3d": ARTICLE_SIZES["dp"], "dp": ARTICLE_SIZES["dp"]}
    verdict = judge_claim(claim(), [POINT], Known(measured=records, sizes=sizes).look)
    assert dict(verdict.evidence)["size"] == "4 nodes, 32 GPUs each"
