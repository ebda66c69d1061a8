"""Check that a client's figures agree with each other; imported files may have any content."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan

from pytest_pdserve.judge.findings import invalid
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.numbers import finite
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.result import BenchResult

MAX_RATE_ERROR = 0.03
"""Share by which a client's figures may differ: imported files round them."""
RATE_ROUNDING = 0.01
"""Absolute difference that rounding explains, e.g. 0.75 requests/s for 0.7454."""


def check_figures(run: Observation) -> Iterator[Finding]:
    """Check throughputs, latencies and entries of requests against totals and duration."""
    result, duration_s = run.result, run.result.duration_s
    for name, count, what in _counted(result):
        reported = finite(result.raw.get(name))
        if reported is None or count is None or not duration_s > 0:
            continue
        if abs(reported - (rate := count / duration_s)) > max(MAX_RATE_ERROR * rate, RATE_ROUNDING):
            yield invalid(
                "figures",
                f"{name} = {reported:g}, but {count} {what} in {duration_s:g} s are {rate:.4g} per "
                "second",
            )
    if isnan(duration_s):
        yield from _check_lengths_by_rates(result)
    times = {name: row.value(run) or 0.0 for name, row in METRICS.items() if row.quantity}
    longest = max(times, key=lambda name: times[name])
    if times[longest] > duration_s * 1000 * (1 + MAX_RATE_ERROR):
        yield invalid(
            "figures",
            f"{longest} = {times[longest]:g}, longer than the whole run of {duration_s:g} s",
        )
    entries = len(result.output_lens)
    if result.detailed and entries < min(result.completed or 0, run.num_requests):
        yield invalid(
            "figures",
            f"entries of {entries} requests, but {result.completed} completed",
        )


def _check_lengths_by_rates(result: BenchResult) -> Iterator[Finding]:
    """Check that counts and throughputs give the same number of tokens per request."""
    rates = [finite(result.raw.get(name)) for name in ("request_throughput", "output_throughput")]
    requests, tokens = rates
    if not requests or tokens is None or not result.completed or not result.total_output_tokens:
        return
    by_rates, counted = tokens / requests, result.total_output_tokens / result.completed
    if abs(by_rates - counted) > MAX_RATE_ERROR * counted:
        yield invalid(
            "figures",
            f"output_throughput = {tokens:g} and request_throughput = {requests:g} make "
            f"{by_rates:.4g} output tokens per request, but {result.total_output_tokens} of "
            f"{result.completed} requests are {counted:.4g}",
        )


def _counted(result: BenchResult) -> Iterator[tuple[str, int | None, str]]:
    """Yield the name of each throughput, the count that it is the rate of, and its unit."""
    inputs, outputs = result.total_input_tokens, result.total_output_tokens
    yield "request_throughput", result.completed, "requests"
    yield "output_throughput", outputs, "output tokens"
    both = None if inputs is None or outputs is None else inputs + outputs
    yield "total_token_throughput", both, "tokens"
