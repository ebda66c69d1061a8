"""Sides of claims: what a session, its nights and figures have of a topology in a cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.judge.sides import NOT_MEASURED
from pytest_pdserve.judge.sides import Side
from pytest_pdserve.judge.sides import SideSources
from pytest_pdserve.judge.sides import derive
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.quantities import DERIVED
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sweep import Sweep
from pytest_pdserve.values.topology import Size
from pytest_pdserve.values.workload import Workload
from tests.support.claims import cell
from tests.support.claims import claim
from tests.support.claims import judged
from tests.support.claims import lookup_in


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
        side = lookup_in({"1p3d": value}, uncertainty=value / 100)("1p3d", workload, name)
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
    lookup = lookup_in({"dp": None})
    derived = DERIVED["decoding_requests"]
    side = derive(derived, [lookup("dp", workload, need) for need in derived.needs], workload)
    assert side.missing == (
        "decoding_requests of dp cannot be computed: request_throughput of dp was not measured"
    )


MakeRecord = Callable[..., Record]
POINT = Sweep(input_lens=(512,), output_lens=(256,), num_prompts=4).points()[0]
CELL = POINT.workload
"""Of the records that ``make_record`` makes."""


def known(make_record: MakeRecord, *runs: dict[str, float], **fields: Any) -> SideSources:
    records = tuple(make_record(run, **fields) for run in runs)
    return SideSources(measured={("1p3d", CELL.id): records})


def test_a_measured_side_has_its_runs(make_record: MakeRecord) -> None:
    seen = known(make_record, {"mean_itl_ms": 8.0}, {"mean_itl_ms": 18.0})
    side = seen.side("1p3d", CELL, "mean_itl_ms")
    assert side.value == 13.0
    assert side.runs == (8.0, 18.0)
    assert (side.origin, side.missing) == ("this session", None)


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("mean_tpot_ms", "mean_tpot_ms of 1p3d was not measured"),
        ("mean_ttft_ms", "mean_ttft_ms of 1p3d is void in this cell because of a sanity finding"),
        ("output_throughput", "output_throughput of 1p3d is 0, expected above 0"),
    ],
)
def test_a_measured_side_may_be_missing_all_the_same(
    metric: str, why: str, make_record: MakeRecord
) -> None:
    note = Finding(check="chunks", severity="note", message="", voids=("mean_ttft_ms",))
    seen = known(make_record, {"output_throughput": 0.0}, findings=(note,))
    side = seen.side("1p3d", CELL, metric)
    assert (side.value, side.missing) == (None, why)


def test_a_run_out_of_range_is_named(make_record: MakeRecord) -> None:
    runs = ({"mean_itl_ms": 8.0}, {"mean_itl_ms": 9.0}, {"mean_itl_ms": 1e19})
    side = known(make_record, *runs).side("1p3d", CELL, "mean_itl_ms")
    assert side.value == 9.0
    assert side.missing == "mean_itl_ms of 1p3d = 1e+19, expected 1e-18 to 1e+18"


def test_a_side_that_is_nowhere_says_so(make_record: MakeRecord) -> None:
    side = known(make_record, {}).side("dp", CELL, "decoding_requests")
    assert (side.value, side.origin) == (None, "nowhere")


NIGHTS = ("n1", "n2")
STORED = Baseline(
    system="s",
    suite="sweep",
    source="sweep.json",
    sessions=tuple(Source(id=name) for name in NIGHTS),
    cells={
        "1p3d": {
            CELL.id: CellBaseline(
                nights=(
                    Night(session="n1", values={"request_throughput": 2.0, "mean_itl_ms": 20.0}),
                    Night(session="n2", values={"mean_itl_ms": 21.0}),
                )
            )
        },
        "dp": {CELL.id: CellBaseline(nights=(Night(session="n2", values={"mean_itl_ms": 30.0}),))},
    },
)


def test_the_baseline_stands_in_for_no_side(make_record: MakeRecord) -> None:
    seen = replace(known(make_record, {}), baseline=STORED)
    verdict = judge_claim(claim(), [POINT], seen.side)
    assert verdict.status == "NOT JUDGED"
    assert verdict.misses == (f"{CELL.id}: mean_itl_ms of dp {NOT_MEASURED}",)


@pytest.mark.parametrize(
    ("topology", "metric", "nights"),
    [
        pytest.param("1p3d", "mean_itl_ms", (20.0, 21.0), id="both nights"),
        pytest.param("dp", "mean_itl_ms", (None, 30.0), id="one night"),
        pytest.param("1p3d", "decoding_requests", (2.0 * 20 / 1000 * 255, None), id="derived"),
        pytest.param("route4", "mean_itl_ms", (), id="no nights"),
    ],
)
def test_a_side_has_its_value_in_each_night_of_the_baseline(
    topology: str, metric: str, nights: tuple[float | None, ...], make_record: MakeRecord
) -> None:
    run = {"mean_itl_ms": 20.0, "request_throughput": 2.0}
    measured = {(name, CELL.id): (make_record(run),) for name in ("1p3d", "dp", "route4")}
    seen = SideSources(measured=measured, baseline=STORED)
    assert seen.side(topology, CELL, metric).nights == nights


def test_a_side_has_the_first_run_of_the_last_night(make_record: MakeRecord) -> None:
    runs = (make_record({"mean_itl_ms": 19.0}), make_record({"mean_itl_ms": 25.0}))
    seen = replace(known(make_record, {}), last_night={("1p3d", CELL.id): runs})
    assert seen.side("1p3d", CELL, "mean_itl_ms").last_night == (19.0,)
    assert seen.side("dp", CELL, "mean_itl_ms").last_night == ()


def test_a_value_of_zero_last_night_confirms_nothing() -> None:
    made = claim(kind="difference", high=-1.0)
    verdict = judged(
        made, {"1p3d": (12.0,), "dp": (10.0,)}, last_night={"1p3d": (9.0,), "dp": (0,)}
    )
    assert verdict.status == "INCONCLUSIVE"


def test_floors_of_the_system_are_those_of_its_claims(make_record: MakeRecord) -> None:
    run = {"mean_itl_ms": 20.0, "request_throughput": 2.0}
    seen = replace(known(make_record, run), floors={"mean_itl_ms": 0.2})
    assert seen.side("1p3d", CELL, "mean_itl_ms").floor == 0.2
    assert seen.side("1p3d", CELL, "decoding_requests").floor == 0.2
    assert seen.side("1p3d", CELL, "mean_ttft_ms").floor == 0.1


def test_the_value_of_a_derived_quantity_is_the_median_of_its_runs(make_record: MakeRecord) -> None:
    rates, ttfts = (1.0, 10.0, 2.0), (10_000.0, 1000.0, 13_000.0)
    runs = [
        {"request_throughput": rate, "mean_ttft_ms": ttft}
        for rate, ttft in zip(rates, ttfts, strict=True)
    ]
    side = known(make_record, *runs).side("1p3d", CELL, "waiting_requests")
    assert side.runs == (10.0, 10.0, 26.0)
    assert side.value == 10.0


ARTICLE_SIZES = {"1p1d": Size(nodes=2, gpus=16), "dp": Size(nodes=4, gpus=32)}


def test_throughput_per_gpu_compares_topologies_of_unequal_size(make_record: MakeRecord) -> None:
    records = {
        ("1p1d", CELL.id): (make_record({"output_throughput": 9000.0, "mean_itl_ms": 9.0}),),
        ("dp", CELL.id): (make_record({"output_throughput": 16000.0, "mean_itl_ms": 10.0}),),
    }
    seen = SideSources(measured=records, sizes=ARTICLE_SIZES)
    made = claim(kind="above", metric="output_throughput", subject="1p1d")
    assert judge_claim(made, [POINT], seen.side).wants_pair
    per_gpu = claim(kind="above", metric="output_throughput", subject="1p1d", per="gpu")
    verdict = judge_claim(per_gpu, [POINT], replace(seen, per_gpu=True).side)
    assert verdict.status == "PASS"
    assert "562.5" in dict(verdict.evidence)[CELL.id]
    assert dict(verdict.evidence)["size"] == (
        "1p1d 2 nodes, 16 GPUs; dp 4 nodes, 32 GPUs; throughput is per GPU"
    )
    itl = replace(seen, per_gpu=True).side("1p1d", CELL, "mean_itl_ms")
    assert itl.value == pytest.approx(9.0)
    assert itl.size == ARTICLE_SIZES["1p1d"]


def test_nights_and_runs_are_per_gpu_too(make_record: MakeRecord) -> None:
    key = ("1p1d", CELL.id)
    night = Night(session="n1", values={"output_throughput": 320.0})
    seen = SideSources(
        measured={key: (make_record({"output_throughput": 160.0}),)},
        last_night={key: (make_record({"output_throughput": 80.0}),)},
        baseline=replace(STORED, cells={"1p1d": {CELL.id: CellBaseline(nights=(night,))}}),
        sizes=ARTICLE_SIZES,
        per_gpu=True,
    )
    side = seen.side("1p1d", CELL, "output_throughput")
    assert (side.value, side.runs) == (10.0, (10.0,))
    assert (side.nights, side.last_night) == ((20.0, None), (5.0,))


def test_without_its_gpus_nothing_is_per_gpu(make_record: MakeRecord) -> None:
    seen = replace(known(make_record, {"output_throughput": 9000.0}), per_gpu=True)
    side = seen.side("1p3d", CELL, "output_throughput")
    assert side.missing == "output_throughput of 1p3d has no known number of GPUs"


def test_a_size_that_all_share_is_said_once(make_record: MakeRecord) -> None:
    records = {(name, CELL.id): (make_record({"mean_itl_ms": 9.0}),) for name in ("1p3d", "dp")}
    sizes = {"1p3d": ARTICLE_SIZES["dp"], "dp": ARTICLE_SIZES["dp"]}
    verdict = judge_claim(claim(), [POINT], SideSources(measured=records, sizes=sizes).side)
    assert dict(verdict.evidence)["size"] == "4 nodes, 32 GPUs each"
