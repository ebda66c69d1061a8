"""The metrics that are judged: names, units and directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", "equal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of a run, as ``vllm bench serve`` or the servers' own counters name it."""

    name: str
    """Name, e.g. ``p99_ttft_ms``."""
    unit: str
    """Unit, e.g. ``ms``."""
    better: Better
    """Direction; ``equal`` is a count that must not change at all."""
    floor: float = 0.0
    """Practical floor of an envelope, as a fraction: no smaller change is ever called worse
    (the design's statistics: 1 % throughput, TPOT, E2EL; 3 % TTFT; 10 % p99)."""
    margin: float = 0.0
    """What a PASS rules out, as a fraction: three standard deviations of the reference noise
    profile, at least 3 % and never below the floor. Fixed, so that a noisy cell is INCONCLUSIVE
    instead of passing with a margin that its own noise made wide."""

    @property
    def outer(self) -> float:
        """Room of the limit that holds beside the judgement of nights, as a fraction.

        Twice the latency, half the rate: no run-to-run noise of a quiet system gets there.
        """
        return {"lower": 1.0, "higher": 0.5, "equal": 0.0}[self.better]


def _latencies() -> list[Metric]:
    floors = {"ttft": 0.03, "tpot": 0.01, "itl": 0.01, "e2el": 0.01}
    tails = ("p90", "p99")
    return [
        Metric(
            name=f"{statistic}_{quantity}_ms",
            unit="ms",
            better="lower",
            floor=0.10 if statistic in tails else floor,
            margin=_margin(quantity, tail=statistic in tails),
        )
        for quantity, floor in floors.items()
        for statistic in ("mean", "median", "p50", "p90", "p99")
    ]


def _margin(quantity: str, *, tail: bool) -> float:
    if quantity == "ttft":
        return 0.20 if tail else 0.06
    return 0.10 if tail else 0.03


def _rates() -> list[Metric]:
    units = {
        "request_throughput": "req/s",
        "output_throughput": "tok/s",
        "total_token_throughput": "tok/s",
    }
    return [
        Metric(name=name, unit=unit, better="higher", floor=0.01, margin=0.03)
        for name, unit in units.items()
    ]


def _counts() -> list[Metric]:
    units = {
        "completed": "requests",
        "failed": "requests",
        "total_input_tokens": "tokens",
        "total_output_tokens": "tokens",
        "kv_transfers": "transfers",
        "kv_failed_transfers": "transfers",
        "kv_bytes_per_request": "bytes",
    }
    return [Metric(name=name, unit=unit, better="equal") for name, unit in units.items()]


METRICS = {metric.name: metric for metric in (*_latencies(), *_rates(), *_counts())}
"""Every metric that an envelope or a claim may name."""

TIMES = (
    "mean_ttft_ms",
    "p99_ttft_ms",
    "mean_itl_ms",
    "mean_tpot_ms",
    "mean_e2el_ms",
    "output_throughput",
    "request_throughput",
    "total_token_throughput",
)
"""What depends on the machine, and is put into new baselines."""

COUNTS = tuple(name for name, metric in METRICS.items() if metric.better == "equal")
"""What depends on workload and topology alone."""
