"""The result of a simulated run, as ``vllm bench serve --save-detailed`` would write it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.simulation.engine import Segment
from pytest_pdserve.simulation.service import Outcome
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.metrics import Metric
from pytest_pdserve.values.result import SIMULATED_BACKEND
from pytest_pdserve.values.workload import KnownLoad

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def step_ends(segments: tuple[Segment, ...]) -> Array:
    """Return the end of every step of a unit, s, expanded from its arithmetic series."""
    import numpy as np

    ends = [
        s.begin + s.first * k + s.growth * k * (k - 1) / 2
        for s in segments
        for k in (np.arange(1, s.count + 1),)
    ]
    return np.concatenate(ends) if ends else np.empty(0)


def bench_result(outcome: Outcome, load: KnownLoad) -> Any:
    """Return the client's result object, with one entry per request.

    Metrics are computed as in ``vllm/benchmarks/serve.py``: TPOT over requests of two tokens or
    more, ITL over all gaps of all requests.
    """
    import numpy as np

    requests = outcome.requests
    ends = [step_ends(segments) for segments in outcome.segments]
    gaps = [
        np.diff(np.concatenate([ends[r.unit][first : first + n] for first, n in r.spans]))
        for r in requests
    ]
    ttft = np.array([r.first - r.start for r in requests])
    e2el = np.array([r.last - r.start for r in requests])
    tpot = np.array([(r.last - r.first) / (r.output_len - 1) for r in requests if r.output_len > 1])
    data = _load_and_totals(outcome, load)
    seconds = {"ttft": ttft, "tpot": tpot, "itl": np.concatenate(gaps), "e2el": e2el}
    for name, metric in METRICS.items():
        if metric.quantity in seconds:
            data[name] = _statistic(metric, seconds[metric.quantity])
    return data | {
        "input_lens": [r.input_len for r in requests],
        "output_lens": [r.output_len for r in requests],
        "ttfts": ttft.tolist(),
        "itls": [values.tolist() for values in gaps],
        "start_times": [r.start for r in requests],
        "errors": [""] * len(requests),
    }


def _load_and_totals(outcome: Outcome, load: KnownLoad) -> dict[str, Any]:
    """Return the load's parameters, and the totals: counts, tokens and rates."""
    requests, duration = outcome.requests, outcome.duration_s
    inputs, outputs = sum(r.input_len for r in requests), sum(r.output_len for r in requests)
    return {
        "backend": SIMULATED_BACKEND,
        "num_prompts": len(requests),
        "request_rate": "inf" if load.request_rate is None else load.request_rate,
        "burstiness": load.burstiness,
        "max_concurrency": load.max_concurrency,
        "duration": duration,
        "completed": len(requests),
        "failed": 0,
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": len(requests) / duration,
        "output_throughput": outputs / duration,
        "total_token_throughput": (inputs + outputs) / duration,
    }


def _statistic(metric: Metric, seconds: Array) -> float:
    """Return a statistic of latencies in milliseconds; 0 without values, like the client.

    :raises ConfigError: if the client does not have this statistic.
    """
    import numpy as np

    ms = seconds * 1000 if seconds.size else np.zeros(1)
    if metric.percentile is not None:
        return float(np.percentile(ms, float(metric.percentile)))
    if metric.statistic != "mean":
        raise ConfigError(
            f"metric {metric.name!r}: statistic {metric.statistic!r} cannot be simulated; expected "
            "'mean' or a percentile such as 'p99'"
        )
    return float(ms.mean())
