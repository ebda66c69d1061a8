"""When requests are due, computed as in vLLM's client (``vllm.benchmarks.serve.get_request``)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """The distribution of arrival times."""

    request_rate: float = math.inf
    """Requests per second; infinite sends all at once."""
    burstiness: float = 1.0
    """Shape of the gamma distribution of gaps: 1 is a Poisson process, less is burstier."""
    ramp_up: str | None = None
    """``linear`` or ``exponential``: the rate goes from *start_rps* to *end_rps*."""
    start_rps: float = 0.0
    end_rps: float = 0.0

    def due_s(self, requests: int, seed: int) -> list[float]:
        """Return when each of *requests* is due, seconds from the start, in ascending order.

        Without a ramp-up, times are scaled so that the last request is due after
        ``requests / request_rate`` seconds: all seeds then have the same average rate.
        """
        source = random.Random(seed)  # noqa: S311 - arrivals, no secret
        due, total = [], 0.0
        for index in range(requests):
            total += self._gap(self._rate(index, requests), source)
            due.append(total)
        if self.ramp_up is None and total > 0:
            scale = requests / self.request_rate / total
            due = [at * scale for at in due]
        return due

    def _gap(self, rate: float, source: random.Random) -> float:
        if math.isinf(rate):
            return 0.0
        if math.isinf(self.burstiness):
            return 1.0 / rate
        return source.gammavariate(self.burstiness, 1.0 / (rate * self.burstiness))

    def _rate(self, index: int, requests: int) -> float:
        if self.ramp_up is None:
            return self.request_rate
        progress = index / max(requests - 1, 1)
        if self.ramp_up == "linear":
            return self.start_rps + (self.end_rps - self.start_rps) * progress
        return float(self.start_rps * (self.end_rps / self.start_rps) ** progress)
