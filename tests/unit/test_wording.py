"""The sentence of a metric that is not a PASS."""

from __future__ import annotations

import math

import pytest

from pytest_pdserve.judge.cells import MetricVerdict
from pytest_pdserve.judge.limits import Reference
from pytest_pdserve.judge.nightly import MetricNight
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.wording import MessageFacts
from pytest_pdserve.judge.wording import describe
from pytest_pdserve.judge.wording import number
from pytest_pdserve.judge.wording import percent
from pytest_pdserve.values.expected import ExpectedChange


def verdict(
    *slower: float,
    status: Status = Status.FAIL,
    metric: str = "mean_itl_ms",
    level: float = 4.71,
    floor: float = 0.05,
    count: int = 20,
    nights: int = 0,
    expected: ExpectedChange | None = None,
) -> MetricVerdict:
    """A metric whose runs were worse by these fractions."""
    sign = -1 if metric == "output_throughput" else 1
    limit = math.log1p(floor)
    reference = Reference(
        median=sign * math.log(level), spread=0.01, nights=count, limit=limit, fail_limit=limit
    )
    return MetricVerdict(
        metric=metric,
        status=status,
        tonight=MetricNight(
            reference=reference, changes=tuple(math.log1p(each) for each in slower)
        ),
        nights=nights,
        since=nights - 1 if nights else None,
        expected=expected,
    )


CASES = {
    "a FAIL of tonight": (
        verdict(0.098, 0.106, 0.112),
        MessageFacts(differences="vLLM 0.15.1 -> 0.15.2"),
        "mean_itl_ms 5.209 ms, reference 4.71 ms (20 nights): +10.6 %, limit +5 %. Confirmed by 3 "
        "starts (+9.8 to +11.2 %). First seen tonight; vLLM 0.15.1 -> 0.15.2 since the baseline.",
    ),
    "nothing differs from the baseline": (
        verdict(0.098, 0.106, 0.112),
        MessageFacts(),
        "mean_itl_ms 5.209 ms, reference 4.71 ms (20 nights): +10.6 %, limit +5 %. Confirmed by 3 "
        "starts (+9.8 to +11.2 %). First seen tonight.",
    ),
    "a throughput, which falls": (
        verdict(0.25, 0.25, 0.25, metric="output_throughput", level=12500.0, floor=0.25),
        MessageFacts(),
        "output_throughput 10000 tok/s, reference 12500 tok/s (20 nights): -20 %, limit -20 %. "
        "Confirmed by 3 starts (-20 %). First seen tonight.",
    ),
    "seen for three nights, on one node": (
        verdict(0.1, 0.1, 0.1, nights=2),
        MessageFacts(nights=["2026-11-26", "2026-11-25", "2026-11-24"], node="suspect h04"),
        "mean_itl_ms 5.181 ms, reference 4.71 ms (20 nights): +10 %, limit +5 %. Confirmed by 3 "
        "starts (+10 %). Seen on 3 nights in a row, first on 2026-11-25. suspect h04.",
    ),
    "a young baseline": (
        verdict(0.1, 0.1, 0.1, count=1),
        MessageFacts(),
        "mean_itl_ms 5.181 ms, reference 4.71 ms (1 night, provisional): +10 %, limit +5 %. "
        "Confirmed by 3 starts (+10 %). First seen tonight.",
    ),
    "a suspicion": (
        verdict(0.04, 0.041, 0.045, status=Status.SUSPICIOUS),
        MessageFacts(),
        "mean_itl_ms 4.903 ms, reference 4.71 ms (20 nights): +4.1 %, limit +5 %. Confirmed by 3 "
        "starts (+4 to +4.5 %). More than two thirds of the limit; the next night settles it: FAIL "
        "if it is suspicious too.",
    ),
    "a suspicion that could not be confirmed": (
        verdict(0.1, status=Status.SUSPICIOUS),
        MessageFacts(why_unconfirmed="the session's 48 reruns are used up"),
        "mean_itl_ms 5.181 ms, reference 4.71 ms (20 nights): +10 %, limit +5 %. Seen in 1 start; "
        "it takes 3 to confirm: the session's 48 reruns are used up. The next night settles it: "
        "FAIL if it is suspicious too.",
    ),
    "servers of somebody else, which are not started anew": (
        verdict(0.1, 0.1, 0.1),
        MessageFacts(run="run"),
        "mean_itl_ms 5.181 ms, reference 4.71 ms (20 nights): +10 %, limit +5 %. Confirmed by 3 "
        "runs (+10 %). First seen tonight.",
    ),
    "an alarm where alarms went away before": (
        verdict(0.1, 0.1, 0.1, status=Status.SUSPICIOUS),
        MessageFacts(one_night_is_enough=False),
        "mean_itl_ms 5.181 ms, reference 4.71 ms (20 nights): +10 %, limit +5 %. Confirmed by 3 "
        "starts (+10 %). One night alone does not FAIL on this system, because earlier alarms were "
        "gone the next night; the next night settles it.",
    ),
    "an expected change": (
        verdict(
            0.1,
            status=Status.EXPECTED,
            expected=ExpectedChange(until="2026-12-24", owner="ann", reason="vllm#12345"),
        ),
        MessageFacts(),
        "mean_itl_ms 5.181 ms, reference 4.71 ms (20 nights): +10 %, limit +5 %. Seen in 1 start; "
        "it takes 3 to confirm. Expected until 2026-12-24 (ann: vllm#12345).",
    ),
    "a topology": (
        verdict(0.05, 0.052, 0.06, floor=0.02),
        MessageFacts(cells=9),
        "mean_itl_ms over 9 cells, reference of 20 nights: +5.2 %, limit +2 %. Confirmed by 3 "
        "starts (+5 to +6 %). First seen tonight.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_metric_is_told_in_one_form(case: str) -> None:
    said, facts, text = CASES[case]
    assert describe(said, facts) == text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.106, "+10.6 %"),
        (-0.05, "-5 %"),
        (0.0, "+0 %"),
        (3.0, "+300 %"),
        (-0.0004, "-0 %"),
    ],
)
def test_a_change_has_a_sign_and_one_decimal(fraction: float, text: str) -> None:
    assert percent(fraction) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.7123, "4.712"), (0.012344, "0.01234"), (999.9, "999.9"), (12345.6, "12346")],
)
def test_a_value_has_four_digits_or_all_before_the_point(value: float, text: str) -> None:
    assert number(value) == text
