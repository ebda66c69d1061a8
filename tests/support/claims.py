"""Claims, sweeps and values that a claim is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.judge.sides import HERE
from pytest_pdserve.judge.sides import Look
from pytest_pdserve.judge.sides import Side
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.sweep import Point
from pytest_pdserve.values.sweep import Sweep
from pytest_pdserve.values.workload import Workload

ENTRY: dict[str, Any] = {
    "id": "itl",
    "text": "PD 1P3D mean ITL below DP",
    "kind": "below",
    "metric": "mean_itl_ms",
    "subject": "1p3d",
    "others": ["dp"],
    "panel": "decode",
    "reason": "no prefill in between",
    "source": "article",
}
SWEEP = Sweep(input_lens=(512, 1024), output_lens=(256, 512, 1024)).points()
Values = Mapping[str, float | tuple[float, ...] | None]
"""Value or runs by topology, or by ``topology 512-256`` where cells differ."""


def claim(**fields: Any) -> Claim:
    merged = {**ENTRY, **fields}
    return Claim.from_toml({k: v for k, v in merged.items() if v is not None}, source="c.toml")


def cell(**fields: Any) -> tuple[Point, ...]:
    """A sweep of one cell, on both panels."""
    return Sweep(input_lens=(512,), output_lens=(256,), num_prompts=8, **fields).points()


def look_at(values: Values, *, uncertainty: float = 0.0) -> Look:
    def look(topology: str, workload: Workload, metric: str) -> Side:
        names = (f"{metric} {topology}", f"{topology} {workload.parts['lengths']}", topology)
        said = next((values[name] for name in names if name in values), None)
        runs = said if isinstance(said, tuple) else ()
        return Side(
            topology=topology,
            workload=workload.id,
            metric=metric,
            value=sum(runs) / len(runs) if isinstance(said, tuple) else said,
            origin=HERE,
            runs=runs,
            uncertainty=uncertainty,
        )

    return look


def judged(made: Claim, values: Values, sweep: tuple[Point, ...] | None = None) -> ClaimVerdict:
    return judge_claim(made, sweep or cell(), look_at(values), system="s")


MONOTONE = {
    "kind": "monotone",
    "subject": None,
    "others": None,
    "topologies": ["dp"],
    "direction": "rises",
}


JOINT = {
    **dict.fromkeys(("metric", "subject", "others")),
    "kind": "joint",
    "relations": [
        {"kind": "below", "metric": "mean_itl_ms", "subject": "1p3d", "others": ["dp"]},
        {
            "kind": "ratio",
            "metric": "output_throughput",
            "subject": "1p3d",
            "others": ["dp"],
            "low": 1.0,
        },
    ],
}
WITHIN = {"kind": "within", "subject": None, "others": None, "topologies": ["1p3d"]}
