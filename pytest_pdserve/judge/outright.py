"""A change so large that one run is enough to call it worse, however few nights there are.

A test of nights takes several runs before it says FAIL; a stored run cannot be repeated. Constants
are far outside of what nights of a quiet system do: the docs' table of noise has no such step.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import values_of

MIN_CHANGE = 0.25
"""Smallest change for the worse, as a fraction."""
TIMES_SPREAD = 3.0
"""It must also be so many times what the baseline's nights differ by, largest to smallest."""
TIMES_MARGIN = 5.0
"""And so many times the metric's margin: fifteen standard deviations of the reference noise."""


def outright_worse(runs: Sequence[Record], envelopes: Mapping[str, Envelope]) -> Iterator[str]:
    """Say of each metric that is outright worse by how much.

    :param runs: of one cell, one of every start.
    :param envelopes: of that cell; those without nights are passed over.
    """
    for name, envelope in envelopes.items():
        nights = [value for value in envelope.values or () if value is not None]
        tonight = values_of(runs, name)
        if len(nights) < 2 or not tonight or envelope.better == "equal":
            continue
        reference, value = statistics.median(nights), statistics.median(tonight)
        change = value / reference - 1
        worse = -change if envelope.better == "higher" else change
        spread = (max(nights) - min(nights)) / reference
        limit = max(MIN_CHANGE, TIMES_SPREAD * spread, TIMES_MARGIN * METRICS[name].margin)
        if worse > limit:
            yield (
                f"{name} {value:g} {envelope.unit}, reference {reference:g} {envelope.unit} "
                f"({len(nights)} nights): {change:+.1%}, more than {limit:.0%}, which no noise "
                f"explains ({len(tonight)} run{'s' * (len(tonight) > 1)})"
            )
