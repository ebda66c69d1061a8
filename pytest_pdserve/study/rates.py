"""Shares counted over many simulated series, with confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field
from typing import Self

NORMAL_95 = statistics.NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Count of an event over several series."""

    hits: float = 0
    """Number of events."""
    of: float = 0
    """Number of trials."""
    series: int = 0
    """Number of series; the next three fields are sums over them."""
    hits_squared: float = 0
    hits_times_of: float = 0
    of_squared: float = 0

    @classmethod
    def one_series(cls, hits: float, of: float) -> Self:
        """Return the rate of one series."""
        return cls(
            hits=hits,
            of=of,
            series=1,
            hits_squared=hits * hits,
            hits_times_of=hits * of,
            of_squared=of * of,
        )

    def __add__(self, other: Rate) -> Rate:
        return Rate(
            hits=self.hits + other.hits,
            of=self.of + other.of,
            series=self.series + other.series,
            hits_squared=self.hits_squared + other.hits_squared,
            hits_times_of=self.hits_times_of + other.hits_times_of,
            of_squared=self.of_squared + other.of_squared,
        )

    @property
    def share(self) -> float:
        """Events per trial; NaN without trials."""
        return self.hits / self.of if self.of else math.nan

    @property
    def design_effect(self) -> float:
        """Variance of the share, divided by that of independent draws; at least 1.

        Nights of one series share a baseline, so they are not independent (Kish 1965).
        """
        share, series = self.share, self.series
        if series < 2 or not 0 < share < 1:
            return 1.0
        apart = self.hits_squared - 2 * share * self.hits_times_of + share**2 * self.of_squared
        variance = apart * series / (series - 1) / self.of**2
        return max(1.0, variance / (share * (1 - share) / self.of))

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval of 95 % (1927), with the effective number of independent draws.

        From 0 to 1 without trials.
        """
        if not self.of:
            return 0.0, 1.0
        share, n, z = self.share, self.of / self.design_effect, NORMAL_95
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(slots=True, kw_only=True)
class Tally:
    """Rates and samples of one kind of trial."""

    rates: dict[str, Rate] = field(default_factory=dict)
    """Rate by name of the event."""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Values by name of the quantity."""

    def count(self, what: str, hits: float, of: float) -> None:
        """Add the count of one series."""
        self.rates[what] = self.rates.get(what, Rate()) + Rate.one_series(hits, of)

    def sample(self, what: str, values: Iterable[float]) -> None:
        """Add values to the samples of *what*."""
        self.samples.setdefault(what, []).extend(values)

    def add(self, other: Tally) -> None:
        """Add all counts and samples of another tally."""
        for what, rate in other.rates.items():
            self.rates[what] = self.rates.get(what, Rate()) + rate
        for what, values in other.samples.items():
            self.sample(what, values)

    def rate(self, what: str) -> Rate:
        """Return a rate; one without trials if it was not counted."""
        return self.rates.get(what, Rate())
