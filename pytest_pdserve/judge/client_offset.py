"""What is said of a client that is known to report too much at a load."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pdserve.judge.findings import note
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding

MIN_SHARE = 0.01
"""Share of a metric that is worth a note."""


def check_client_offset(seen: Observation) -> Iterator[Finding]:
    """Say what of each metric is the client's, as ``pdserve calibrate --client`` measured it."""
    measured = METRICS.measure(seen)
    said = [
        f"{name} {off:+.1f} of {measured[name]:.1f} ms ({off / measured[name]:+.0%})"
        for name, off in seen.client_offset_ms.items()
        if measured.get(name, 0.0) > 0 and abs(off) > MIN_SHARE * measured[name]
    ]
    if said:
        yield note(
            "client_offset",
            f"the client reports {', '.join(said)} too much at this concurrency or the next larger "
            "one that pdserve calibrate --client measured (negative: too little)",
        )
