"""How far pairs of runs spread: over a baseline's nights, that of the sides that are compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.judge.ratios import ERROR
from pytest_pdserve.judge.sides import HERE
from pytest_pdserve.judge.sides import Known
from pytest_pdserve.judge.sides import Look
from pytest_pdserve.judge.sides import Side
from pytest_pdserve.judge.spreads import pair_spread
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.study.profile import REFERENCE
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.workload import Workload
from tests.support.claims import MONOTONE
from tests.support.claims import SWEEP
from tests.support.claims import WITHIN
from tests.support.claims import cell
from tests.support.claims import claim

MakeRecord = Callable[..., Record]
Nights = tuple[float | None, ...]


def nights(sd: float, count: int = 20, seed: int = 1) -> Nights:
    """Values around 10 whose logs have exactly this standard deviation."""
    logs = np.random.default_rng(seed).standard_normal(count)
    logs = (logs - logs.mean()) / logs.std(ddof=1)
    return tuple(10 * np.exp(sd * logs))


def test_it_is_the_sd_of_the_log_ratio_over_the_nights_of_both() -> None:
    first, second = nights(0.02, seed=1), nights(0.01, seed=2)
    gaps = {3: (None, second[3]), 7: (first[7], None), 11: (None, None)}
    pairs = [gaps.get(i, pair) for i, pair in enumerate(zip(first, second, strict=True))]
    spread = pair_spread(*zip(*pairs, strict=True))
    kept = [(a, b) for a, b in pairs if a and b]
    assert spread is not None
    assert spread.sd == pytest.approx(np.std(np.diff(np.log(kept)), ddof=1))
    assert spread.freedom == 16.0


def test_what_both_share_in_a_night_is_no_spread() -> None:
    shared, own = nights(0.05, seed=1), nights(0.01, seed=2)
    both = tuple(a * b for a, b in zip(shared, own, strict=True) if a and b)
    spread = pair_spread(shared, both)
    assert spread is not None
    assert spread.sd == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nights(0.01)[:4], nights(0.01)),
        (nights(0.01), (None,) * 16 + nights(0.01)[16:]),
        ((None,) * 4 + nights(0.01)[:4], nights(0.01)),
        (nights(0.01), ()),
        ((math.inf,) * 20, nights(0.01)),
    ],
    ids=["short", "gaps", "other nights", "no baseline", "no measurement"],
)
def test_fewer_than_five_nights_in_common_say_nothing(first: Nights, second: Nights) -> None:
    assert pair_spread(first, second) is None


def test_a_night_that_was_slowed_as_a_whole_is_no_spread() -> None:
    first, second = nights(0.01, seed=1), list(nights(0.01, seed=2))
    spread = pair_spread(first, second)
    second[4] = 15.0
    slowed = pair_spread(first, second)
    assert spread is not None
    assert slowed is not None
    assert slowed.freedom == spread.freedom - 1
    assert slowed.sd == pytest.approx(spread.sd, rel=0.15)


def look_at(values: Mapping[str, tuple[tuple[float, ...], Nights]]) -> Look:
    """Runs of this session and nights by topology, or by ``topology 512-256``."""

    def look(topology: str, workload: Workload, metric: str) -> Side:
        runs, said = values.get(f"{topology} {workload.parts['lengths']}") or values[topology]
        return Side(
            topology=topology,
            workload=workload.id,
            metric=metric,
            value=float(np.mean(runs)),
            origin=HERE,
            runs=runs,
            nights=said,
        )

    return look


def statuses(verdict: Any) -> list[str]:
    return [text.split()[0] for label, text in verdict.evidence if label.startswith("random-")]


def test_each_cell_is_judged_by_its_own_spread() -> None:
    values = {"1p3d": ((9.5,), nights(0.01)), "dp": ((10.0,), nights(0.01, seed=2))}
    values["1p3d 512-512"] = ((9.5,), nights(0.05))
    values["1p3d 512-1024"] = ((9.5,), nights(0.01, count=4))
    verdict = judge_claim(claim(), SWEEP, look_at(values))
    assert statuses(verdict) == ["PASS", "INCONCLUSIVE", "PASS"]
    assert (
        "1 pair of runs, t intervals; a FAIL takes two pairs; point claim" in verdict.message
    )  # the last has no spread


def test_a_step_of_a_sweep_is_judged_by_the_spread_between_its_two_cells() -> None:
    shared, quiet = nights(0.05), nights(0.002, seed=2)
    steady = tuple(a * b for a, b in zip(shared, quiet, strict=True) if a and b)
    values = {
        "dp 512-256": ((10.0,), shared),
        "dp 512-512": ((10.5,), steady),
        "dp 512-1024": ((11.0,), nights(0.05, seed=3)),
    }
    verdict = judge_claim(claim(**MONOTONE), SWEEP, look_at(values))
    assert statuses(verdict) == ["PASS", "INCONCLUSIVE"]


def test_a_value_by_itself_is_judged_by_how_far_it_spreads_itself() -> None:
    made = claim(**WITHIN, low=9.5)
    found = [
        judge_claim(made, cell(), look_at({"1p3d": ((10.0,), nights(sd))})).status
        for sd in (0.01, 0.03)
    ]
    assert found == ["PASS", "INCONCLUSIVE"]


CELL = Workload(input_len=512, output_len=256, num_prompts=4)


@pytest.mark.parametrize("nightly", [True, False])
def test_sides_know_the_nights_of_the_baseline_where_nights_are_judged(
    nightly: bool, make_record: MakeRecord
) -> None:
    rate, ttft = nights(0.01), (*nights(0.02, seed=2)[:9], None, *nights(0.02, seed=2)[10:])
    envelopes = {
        name: Envelope(
            ref=10.0,
            rtol=0.1,
            better="lower",
            unit=METRICS[name].unit,
            runs=20,
            values=values,
        )
        for name, values in (("request_throughput", rate), ("mean_ttft_ms", ttft))
    }
    cells = {"dp": {CELL.id: envelopes}}
    stored = Baseline(system="s", suite="sweep", source="sweep.json", provenance=None, cells=cells)
    record = make_record({"request_throughput": 2.0, "mean_ttft_ms": 100.0}, workload=CELL)
    known = Known(baseline=stored, nightly=nightly, measured={("dp", CELL.id): [record]})
    assert known.look("dp", CELL, "mean_ttft_ms").nights == (ttft if nightly else ())
    assert known.look("2p2d", CELL, "mean_ttft_ms").nights == ()
    waiting = known.look("dp", CELL, "waiting_requests").nights
    if nightly:
        assert waiting[9] is None
        assert waiting[0] == pytest.approx((rate[0] or 0) * (ttft[0] or 0) / 1000)
    assert len(waiting) == (20 if nightly else 0)


def wrong(share: Sequence[str]) -> tuple[float, float]:
    return share.count(Status.PASS) / len(share), share.count(Status.FAIL) / len(share)


@pytest.mark.parametrize("slowed", [pytest.param(0.0, marks=pytest.mark.slow), 0.01])
def test_a_ratio_at_the_limit_is_decided_wrongly_as_rarely_as_is_said(slowed: float) -> None:
    """Cells whose spreads differ by 35 %, as the reference profile's do, and 20 nights."""
    own = judged(slowed, advantage=0.0)
    bound = ERROR + 3 * math.sqrt(ERROR / len(own))
    assert max(wrong(own)) < bound
    assert wrong(judged(slowed, advantage=0.05))[0] > 0.9


def judged(slowed: float, *, advantage: float) -> list[Status]:
    """A claim that dp is slower, over six nights, where 1p3d is faster by *advantage*.

    :param slowed: share of runs that take 5 to 50 % longer, as the reference profile has it.
    """
    rng = np.random.default_rng(20261124)
    cells = 2000
    scale = np.exp(REFERENCE.spread * rng.standard_normal((cells, 1)) - REFERENCE.spread**2 / 2)
    logs = dict(REFERENCE.cvs)["mean_itl_ms"] * scale * rng.standard_normal((2, cells, 26))
    longer = np.log1p(rng.uniform(0.05, 0.5, logs.shape))
    logs += np.where(rng.random(logs.shape) < slowed, longer, 0.0)
    logs[0] -= advantage
    made, found = claim(), []
    for a, b in zip(*10 * np.exp(logs), strict=True):
        values = {"1p3d": (tuple(a[20:]), tuple(a[:20])), "dp": (tuple(b[20:]), tuple(b[:20]))}
        found.append(judge_claim(made, cell(), look_at(values)).status)
    return found
