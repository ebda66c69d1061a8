"""Lateness of a client: how late it sent its requests, computed from its entries of requests."""

from __future__ import annotations

import math

from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.workload import Workload


def lateness_s(result: BenchResult, workload: Workload) -> tuple[float, ...] | None:
    """Return the delay of each request after it was due, in seconds, in the order of sending.

    Without a rate, the first ``max_concurrency`` requests are due when the first is sent; each
    later one is due when an earlier one ends and frees a slot.

    :returns: None if the client does not report start and end of requests, or if requests are sent
        at a rate, because their due times are unknown then.
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
    starts = [start for start in result.start_s if not math.isnan(start)]
    span = max(starts) - min(starts) if len(starts) > 1 else 0.0
    return (len(starts) - 1) / span if span > 0 else None


def _spans(result: BenchResult) -> list[tuple[float, float]]:
    """Return start and end of every request."""
    if not len(result.start_s) == len(result.ttft_s) == len(result.itl_s):
        return []
    spans = [
        (start, start + ttft + sum(itl))
        for start, ttft, itl in zip(result.start_s, result.ttft_s, result.itl_s, strict=True)
    ]
    return [] if any(math.isnan(end) for _, end in spans) else spans
