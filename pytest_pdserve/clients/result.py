"""The result of a load, with the names and definitions of ``vllm bench serve``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pytest_pdserve.clients.connection import Sent
from pytest_pdserve.clients.load import Sending

CLIENT = "precise"
_SLEWED = 500e-6
"""Maximum rate at which a clock is slewed, too low to affect a gap between two chunks."""
Times = tuple[float, list[float], float]
"""Seconds to the first chunk, between chunks, and to the last chunk."""


def result_of(
    sending: Sending,
    *,
    prompt_tokens: Sequence[int],
    percentiles: Sequence[float],
    goodput_ms: Mapping[str, float],
    load_fields: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the result file's object.

    Definitions are those of ``vllm.benchmarks.serve.calculate_metrics`` (0.32): TTFT and gaps of
    chunks; TPOT = (latency - TTFT) / (tokens - 1); throughput over the whole time.

    :param prompt_tokens: of each request.
    :param goodput_ms: limits by ``ttft``, ``tpot``, ``e2el``.
    :param load_fields: fields that describe the load, as in vLLM's file.
    """
    requests = sorted(sending.sent, key=lambda each: each.index)
    good = [each for each in requests if not each.answer.error]
    tokens = [_tokens(each) for each in requests]
    times = {each.index: _times(each, each.answer.chunks_ns, each.written_ns) for each in good}
    values = _values(good, times, tokens)
    duration = max((sending.ended_ns - sending.began_ns) / 1e9, 1e-9)
    prompts = [_prompt_tokens(each, prompt_tokens[each.index]) for each in requests]
    statistics = _statistics(values, percentiles)
    return {
        "date": datetime.now().strftime("%Y%m%d-%H%M%S"),
        **load_fields,
        "duration": duration,
        "failed": len(requests) - len(good),
        **_totals(len(good), sum(prompts[each.index] for each in good), sum(tokens), duration),
        "request_goodput": _goodput(values, goodput_ms) / duration if goodput_ms else None,
        **_lists(requests, times, tokens, prompts, sending.began_ns),
        **statistics,
        **client_fields(sending, good, tokens),
        "client_lateness_share": lateness_shares(
            sending, good, tokens, statistics=statistics, percentiles=percentiles
        ),
    }


def _totals(completed: int, inputs: int, outputs: int, duration: float) -> dict[str, float]:
    return {
        "completed": completed,
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": completed / duration,
        "output_throughput": outputs / duration,
        "total_token_throughput": (inputs + outputs) / duration,
    }


def _tokens(sent: Sent) -> int:
    """Return the generated tokens of a request: the server's count, else chunks; 0 if failed."""
    if sent.answer.error:
        return 0
    return sent.answer.tokens if sent.answer.tokens is not None else len(sent.answer.chunks_ns)


def _prompt_tokens(sent: Sent, own_count: int) -> int:
    """Return the prompt tokens of a request: the server's count if it gives one, as vLLM does."""
    return own_count if sent.answer.prompt_tokens is None else sent.answer.prompt_tokens


def _times(sent: Sent, at: Sequence[int], from_ns: int) -> Times:
    gaps = [(after - before) / 1e9 for before, after in itertools.pairwise(at)]
    return (at[0] - from_ns) / 1e9, gaps, (at[-1] - from_ns) / 1e9


def _values(
    good: Sequence[Sent], times: Mapping[int, Times], tokens: Sequence[int]
) -> dict[str, list[float]]:
    """Return the values of each metric, seconds."""
    tpots = {
        each.index: (times[each.index][2] - times[each.index][0]) / (tokens[each.index] - 1)
        for each in good
        if tokens[each.index] > 1
    }
    return {
        "ttft": [times[each.index][0] for each in good],
        "tpot": list(tpots.values()),
        "all_tpots": [tpots.get(each.index, 0.0) for each in good],
        "itl": [gap for each in good for gap in times[each.index][1]],
        "e2el": [times[each.index][2] for each in good],
    }


def _goodput(values: Mapping[str, list[float]], limits_ms: Mapping[str, float]) -> int:
    """Return the number of requests within all limits."""
    names = {"ttft": "ttft", "tpot": "all_tpots", "e2el": "e2el"}
    columns = [
        [value * 1e3 <= limit for value in values[names[name]]] for name, limit in limits_ms.items()
    ]
    return sum(all(row) for row in zip(*columns, strict=True))


def _lists(
    requests: Sequence[Sent],
    times: Mapping[int, Times],
    tokens: Sequence[int],
    prompt_tokens: Sequence[int],
    began_ns: int,
) -> dict[str, Any]:
    """Return the lists of the result file that have one entry per request."""
    nothing: Times = (0.0, [], 0.0)
    found = [times.get(each.index, nothing) for each in requests]
    return {
        "input_lens": [prompt_tokens[each.index] for each in requests],
        "output_lens": list(tokens),
        "ttfts": [ttft for ttft, _, _ in found],
        "itls": [gaps for _, gaps, _ in found],
        "latencies": [latency for _, _, latency in found],
        "start_times": [(each.written_ns - began_ns) / 1e9 for each in requests],
        "queue_times": [max(0, each.written_ns - each.due_ns) / 1e9 for each in requests],
        "generated_texts": [each.answer.text for each in requests],
        "errors": [each.answer.error for each in requests],
    }


def _statistics(
    values: Mapping[str, list[float]], percentiles: Sequence[float]
) -> dict[str, float]:
    """Return mean, median, standard deviation and percentiles of each metric, ms."""
    import numpy as np

    found: dict[str, float] = {}
    for name in ("ttft", "tpot", "itl", "e2el"):
        seconds = np.array(values[name] or [0.0])
        found[f"mean_{name}_ms"] = float(seconds.mean()) * 1e3
        found[f"median_{name}_ms"] = float(np.median(seconds)) * 1e3
        found[f"std_{name}_ms"] = float(seconds.std()) * 1e3
        for percent in percentiles:
            word = str(int(percent)) if percent == int(percent) else str(percent)
            found[f"p{word}_{name}_ms"] = float(np.percentile(seconds, percent)) * 1e3
    return found


def client_fields(sending: Sending, good: Sequence[Sent], tokens: Sequence[int]) -> dict[str, Any]:
    """Return the fields about the client itself: clock, CPU time and lateness."""
    late = [max(0, each.written_ns - each.ready_ns) for each in sending.sent]
    seconds = max((sending.ended_ns - sending.began_ns) / 1e9, 1e-9)
    return {
        "client": CLIENT,
        "client_clock": "kernel" if sending.by_kernel > 0.99 else "user-space clock",
        "client_cpu_cores": sending.cpu_s / seconds,
        **_spread("send_late", late),
        **_spread("read_late", sending.late_ns),
        "client_clock_step_ms": sending.step_ns / 1e6,
        "chunks_read_together": sum(each.answer.merged for each in good),
        "tokens_beyond_chunks": sum(
            max(0, tokens[each.index] - len(each.answer.chunks_ns)) for each in good
        ),
    }


def _spread(name: str, ns: Sequence[int]) -> dict[str, float | None]:
    """Return mean, 99th percentile and maximum, ms; None if *ns* is empty."""
    ordered = sorted(ns)
    if not ordered:
        return dict.fromkeys(f"client_{each}_{name}_ms" for each in ("mean", "p99", "max"))
    return {
        f"client_mean_{name}_ms": sum(ordered) / len(ordered) / 1e6,
        f"client_p99_{name}_ms": ordered[math.ceil(0.99 * len(ordered)) - 1] / 1e6,
        f"client_max_{name}_ms": ordered[-1] / 1e6,
    }


def lateness_shares(
    sending: Sending,
    good: Sequence[Sent],
    tokens: Sequence[int],
    *,
    statistics: Mapping[str, float],
    percentiles: Sequence[float],
) -> dict[str, float]:
    """Return by which share the client's lateness may have changed each metric.

    Latencies are computed again with the earliest possible arrival of every chunk
    (:meth:`Answer.earliest_ns`) and, if requests arrive at a rate, from the time at which they
    should have been written. For a throughput, the share is that of the time in which a connection
    was free, but a due request was not sent.
    """
    at_a_rate = len({each.due_ns for each in sending.sent}) > 1
    times = {
        each.index: _times(
            each, each.answer.earliest_ns(), each.ready_ns if at_a_rate else each.written_ns
        )
        for each in good
    }
    other = _statistics(_values(good, times, tokens), percentiles)
    seconds = max((sending.ended_ns - sending.began_ns) / 1e9, 1e-9)
    step_ms = max(0.0, abs(sending.step_ns) / 1e9 - _SLEWED * seconds) * 1e3
    found = {
        name: (abs(other[name] - value) + step_ms) / value
        for name, value in statistics.items()
        if value > 0 and not name.startswith("std_")
    }
    idle = _idle(sending, good)
    for name in ("request_throughput", "output_throughput", "total_token_throughput"):
        found[name] = idle + step_ms / 1e3 / seconds
    return {name: round(share, 6) for name, share in found.items()}


def _idle(sending: Sending, good: Sequence[Sent]) -> float:
    """Return the share of time in which a connection was free, but a due request was not sent."""
    waited = [each for each in good if each.ready_ns > each.due_ns]
    late = sum(max(0, each.written_ns - each.ready_ns) for each in waited)
    busy = sum(each.answer.chunks_ns[-1] - each.written_ns for each in waited)
    first = min((each.written_ns for each in sending.sent), default=sending.began_ns)
    whole = max(sending.ended_ns - sending.began_ns, 1)
    return (late / (late + busy) if busy > 0 else 0.0) + max(0, first - sending.began_ns) / whole
