"""Note on metrics that a client is known to overstate at a load."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pdserve.judge.findings import note
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding

MIN_SHARE = 0.01
"""Share of a metric above which its offset gets a note."""


def check_client_offset(run: Observation) -> Iterator[Finding]:
    """Note the part of each metric that the client adds.

    It was measured by ``pdserve calibrate --client``.
    """
    measured = METRICS.measure(run)
    offsets = [
        f"{name} {off:+.1f} of {measured[name]:.1f} ms ({off / measured[name]:+.0%})"
        for name, off in run.client_offset_ms.items()
        if measured.get(name, 0.0) > 0 and abs(off) > MIN_SHARE * measured[name]
    ]
    if offsets:
        yield note(
            "client_offset",
            f"the client reports {', '.join(offsets)} too much at this concurrency or the next "
            "larger one that pdserve calibrate --client measured (negative: too little)",
        )
