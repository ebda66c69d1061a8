"""What was measured, under the names and definitions of ``vllm bench serve``."""

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


def result_of(
    sending: Sending,
    *,
    prompt_tokens: Sequence[int],
    percentiles: Sequence[float],
    goodput_ms: Mapping[str, float],
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the result file's object.

    Definitions are those of ``vllm.benchmarks.serve.calculate_metrics`` (0.32): TTFT and gaps of
    chunks; TPOT = (latency - TTFT) / (tokens - 1); throughput over the whole time.

    :param prompt_tokens: of each request.
    :param goodput_ms: limits by ``ttft``, ``tpot``, ``e2el``.
    :param asked: what is said of the load, as vLLM's file has it.
    """
    requests = sorted(sending.sent, key=lambda each: each.index)
    good = [each for each in requests if not each.answer.error]
    tokens = [_tokens(each) for each in requests]
    times = {each.index: _times(each) for each in good}
    values = _values(good, times, tokens)
    duration = max((sending.ended_ns - sending.began_ns) / 1e9, 1e-9)
    total_in = sum(prompt_tokens[each.index] for each in good)
    return {
        "date": datetime.now().strftime("%Y%m%d-%H%M%S"),
        **asked,
        "duration": duration,
        "completed": len(good),
        "failed": len(requests) - len(good),
        "total_input_tokens": total_in,
        "total_output_tokens": sum(tokens),
        "request_throughput": len(good) / duration,
        "request_goodput": _goodput(values, goodput_ms) / duration if goodput_ms else None,
        "output_throughput": sum(tokens) / duration,
        "total_token_throughput": (total_in + sum(tokens)) / duration,
        **_lists(requests, times, tokens, prompt_tokens, sending.began_ns),
        **_statistics(values, percentiles),
        **_client(sending, good, tokens),
    }


def _tokens(sent: Sent) -> int:
    """Generated tokens of a request: the server's count, else its chunks; 0 if it failed."""
    if sent.answer.error:
        return 0
    return sent.answer.tokens if sent.answer.tokens is not None else len(sent.answer.chunks_ns)


def _times(sent: Sent) -> tuple[float, list[float], float]:
    """Seconds to the first chunk, between chunks, and to the last."""
    at = sent.answer.chunks_ns
    gaps = [(after - before) / 1e9 for before, after in itertools.pairwise(at)]
    return (at[0] - sent.written_ns) / 1e9, gaps, (at[-1] - sent.written_ns) / 1e9


def _values(
    good: Sequence[Sent], times: Mapping[int, tuple[float, list[float], float]], tokens: list[int]
) -> dict[str, list[float]]:
    """Seconds by metric."""
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
    """Requests that keep every limit."""
    names = {"ttft": "ttft", "tpot": "all_tpots", "e2el": "e2el"}
    columns = [
        [value * 1e3 <= limit for value in values[names[name]]] for name, limit in limits_ms.items()
    ]
    return sum(all(row) for row in zip(*columns, strict=True))


def _lists(
    requests: Sequence[Sent],
    times: Mapping[int, tuple[float, list[float], float]],
    tokens: Sequence[int],
    prompt_tokens: Sequence[int],
    began_ns: int,
) -> dict[str, Any]:
    """One entry per request."""
    nothing: tuple[float, list[float], float] = (0.0, [], 0.0)
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
    """Mean, median, standard deviation and percentiles of each metric, ms."""
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


def _client(sending: Sending, good: Sequence[Sent], tokens: Sequence[int]) -> dict[str, Any]:
    """What the client says of itself."""
    lateness = [max(0, each.written_ns - each.due_ns) / 1e6 for each in sending.sent]
    reads = sorted(sending.late_s)
    p99 = reads[math.ceil(0.99 * len(reads)) - 1] * 1e3 if reads else None
    return {
        "client": CLIENT,
        "client_clock": "kernel" if sending.by_kernel > 0.99 else "user-space clock",
        "client_cpu_cores": sending.cpu_s / max((sending.ended_ns - sending.began_ns) / 1e9, 1e-9),
        "client_max_send_late_ms": max(lateness, default=0.0),
        "client_p99_read_late_ms": p99,
        "chunks_read_together": sum(each.answer.merged for each in good),
        "tokens_beyond_chunks": sum(
            max(0, tokens[each.index] - len(each.answer.chunks_ns)) for each in good
        ),
    }
