"""Ninety simulated nights of one cell, for the picture of a trend in docs/figures.md.

Noise of 1 %, two changes of versions, a step of 9 % with the second, one broken night and one that
is invalid.
"""

from __future__ import annotations

import random
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path

from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import RECORD
from pytest_pdserve.results.store import RECORD_SUFFIX
from pytest_pdserve.results.store import create_import
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sessions import utc_text
from pytest_pdserve.values.workload import Workload

SYSTEM = "p5-efa"
NIGHTS = 90
LEVEL_MS, NOISE = 20.3, 0.01
NIXL_NIGHT, VLLM_NIGHT, STEP = 31, 60, 0.09
BROKEN_NIGHT, BROKEN = 75, 0.4
INVALID_NIGHT = 50
WORKLOAD = Workload(input_len=512, output_len=256, num_prompts=1024)


def level_ms(night: int, noise: random.Random) -> float:
    """Return the mean ITL of a night, ms."""
    factor = (1 + STEP) if night >= VLLM_NIGHT else 1.0
    factor *= (1 + BROKEN) if night == BROKEN_NIGHT else 1.0
    return LEVEL_MS * factor * (1 + noise.gauss(0, NOISE))


def write_nights(runs: Path) -> None:
    """Write a run folder for each night."""
    noise = random.Random(1)  # noqa: S311 - noise, no secret
    for night in range(NIGHTS):
        at = datetime(2026, 1, 1, 22, tzinfo=UTC) + timedelta(days=night)
        store = create_import(runs, SYSTEM, at)
        made = record(store.session, night, level_ms(night, noise))
        path = Path(f"{store.stem(made.topology, WORKLOAD, 0)}{RECORD_SUFFIX}")
        write_json(path, RECORD.dump(made, path))


def record(session: SessionRef, night: int, itl_ms: float) -> Record:
    """Return the record of one night."""
    failed = Finding(check="completed", severity="invalid", message="3 of 1024 requests failed")
    at = session.started_at or utc_text(datetime.now(UTC))
    return Record(
        session=session,
        system=SYSTEM,
        simulated=True,
        fingerprint="",
        topology="1p3d",
        workload=WORKLOAD,
        repeat=0,
        start=0,
        started_at=at,
        finished_at=at,
        versions={
            "vllm": "0.15.2" if night >= VLLM_NIGHT else "0.15.1",
            "nixl": "1.0.0" if night >= NIXL_NIGHT else "0.10.1",
        },
        host={},
        nodes=("node0", "node1", "node2", "node3"),
        processes=(),
        endpoint="simulated",
        client={},
        metrics={"mean_itl_ms": itl_ms},
        served=(),
        timings_s={},
        findings=(failed,) if night == INVALID_NIGHT else (),
        requests=None,
    )
