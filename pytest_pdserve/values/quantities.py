"""Quantities for claims: metrics of a run, and values derived from them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.metrics import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A quantity that is computed from metrics and lengths."""

    metric: Metric
    """Name, unit and direction."""
    needs: tuple[str, ...]
    """Metrics from which it is computed."""
    formula: Callable[[tuple[float, ...], tuple[int, int]], float]
    """Computes the value from those of :attr:`needs` and the load's lengths, tokens."""


def _prefill_rate(values: tuple[float, ...], lengths: tuple[int, int]) -> float:
    return values[0] * lengths[0]


def _waiting(values: tuple[float, ...], lengths: tuple[int, int]) -> float:
    del lengths
    return values[0] * values[1] / 1000


def _decoding(values: tuple[float, ...], lengths: tuple[int, int]) -> float:
    return values[0] * values[1] / 1000 * (lengths[1] - 1)


def _generated(values: tuple[float, ...], lengths: tuple[int, int]) -> float:
    return values[0] / (values[1] * lengths[1])


DERIVED = {
    derived.metric.name: derived
    for derived in (
        Derived(
            metric=Metric(name="implied_prefill_rate", unit="tok/s", better="higher"),
            needs=("request_throughput",),
            formula=_prefill_rate,
        ),
        Derived(  # Little's law: requests that wait for their first token at once
            metric=Metric(name="waiting_requests", unit="requests", better="lower"),
            needs=("request_throughput", "mean_ttft_ms"),
            formula=_waiting,
        ),
        Derived(  # Little's law: requests that decode at once, all instances together
            metric=Metric(name="decoding_requests", unit="requests", better="higher"),
            needs=("request_throughput", "mean_itl_ms"),
            formula=_decoding,
        ),
        Derived(
            metric=Metric(name="generated_fraction", unit="of the tokens asked", better="higher"),
            needs=("output_throughput", "request_throughput"),
            formula=_generated,
        ),
    )
}
"""Derived quantities by name."""


@functools.cache
def quantities() -> Mapping[str, Metric]:
    """Return all quantities that a claim may use, by name."""
    return {
        **{name: METRICS[name] for name in METRICS.measured},
        **{name: derived.metric for name, derived in DERIVED.items()},
    }
