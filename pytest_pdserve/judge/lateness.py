"""How late a client sent its requests, from what it wrote of each."""

from __future__ import annotations

import math
from itertools import pairwise

from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.workload import Workload


def lateness_s(result: BenchResult, workload: Workload) -> tuple[float, ...] | None:
    """Return how long after its time each request was sent, seconds, in the order of sending.

    Without a rate, a request's time is the first moment at which fewer than the admitted number
    are in flight: the first ones' that of the first, each later one's the end of an earlier one.

    :returns: None where the client does not say when requests were sent and ended, or where
        requests arrive at a rate: their times are not known then.
    """
    spans = _spans(result)
    bound = workload.max_concurrency
    if not spans or workload.request_rate is not None or workload.ramp_up or isinstance(bound, str):
        return None
    starts, ends = sorted(start for start, _ in spans), sorted(end for _, end in spans)
    at_once = min(bound or len(starts), len(starts))
    due = [*[starts[0]] * at_once, *ends[: len(starts) - at_once]]
    return tuple(max(0.0, sent - time) for sent, time in zip(starts, due, strict=True))


def offered_rate(result: BenchResult) -> float | None:
    """Return the requests sent per second, from the first to the last; None if unknown."""
    starts = sorted(start for start in result.start_s if not math.isnan(start))
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    return len(gaps) / sum(gaps) if sum(gaps) > 0 else None


def _spans(result: BenchResult) -> list[tuple[float, float]]:
    """Return start and end of every request."""
    if not len(result.start_s) == len(result.ttft_s) == len(result.itl_s):
        return []
    spans = [
        (start, start + ttft + sum(itl))
        for start, ttft, itl in zip(result.start_s, result.ttft_s, result.itl_s, strict=True)
    ]
    return [] if any(math.isnan(end) for _, end in spans) else spans
