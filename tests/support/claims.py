"""Claims, sweeps and values that a claim is judged by."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.judge.sides import HERE
from pytest_pdserve.judge.sides import Lookup
from pytest_pdserve.judge.sides import Side
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.quantities import quantities
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
"""Reading or runs by topology, by ``topology 512-256`` where cells differ, or by ``metric
topology`` where metrics differ."""
Nights = Mapping[str, tuple[float, ...]]
"""Value in each night of the baseline, or in the last night, in the same way."""


def claim(**fields: Any) -> Claim:
    """A claim that 1p3d has a lower ITL than dp; *fields* replace keys, and None leaves one out."""
    merged = {**ENTRY, **fields}
    return Claim.from_toml({k: v for k, v in merged.items() if v is not None}, source="c.toml")


def cell(**fields: Any) -> tuple[Point, ...]:
    """A sweep of one cell, on both panels."""
    return Sweep(input_lens=(512,), output_lens=(256,), num_prompts=8, **fields).points()


def lookup_in(
    values: Values,
    *,
    uncertainty: float = 0.0,
    nights: Nights | None = None,
    last_night: Nights | None = None,
) -> Lookup:
    """What finds sides among *values*."""

    def side(topology: str, workload: Workload, metric: str) -> Side:
        lengths = workload.parts["lengths"]
        names = (f"{metric} {topology}", f"{topology} {lengths}", topology)

        def named(known: Mapping[str, Any]) -> Any:
            return next((known[name] for name in names if name in known), None)

        said = named(values)
        runs = said if isinstance(said, tuple) else ()
        return Side(
            topology=topology,
            workload=workload.id,
            metric=metric,
            value=statistics.median(runs) if runs else said,
            origin=HERE,
            runs=runs,
            nights=named(nights or {}) or (),
            last_night=named(last_night or {}) or (),
            floor=quantities()[metric].floor,
            cells=((topology, workload.id),),
            uncertainty=uncertainty,
        )

    return side


def judged(
    made: Claim, values: Values, sweep: tuple[Point, ...] | None = None, **past: Any
) -> ClaimVerdict:
    """The verdict on a claim; *past* is as of :func:`lookup_in`."""
    return judge_claim(made, sweep or cell(), lookup_in(values, **past))


RATIO = {"kind": "ratio", "low": 0.5, "high": 0.9}
DIFFERENCE = {"kind": "difference", "low": -2.0, "high": 1.0}
WITHIN = {"kind": "within", "subject": None, "others": None, "topologies": ["1p3d"]}
RANK = {"kind": "rank", "others": ["dp", "route4"], "low": 2, "high": 2}
MONOTONE = {
    "kind": "monotone",
    "subject": None,
    "others": None,
    "topologies": ["dp"],
    "direction": "rises",
}
CROSSING = {"kind": "crossover", "better_at": [1024], "worse_at": [256]}
APART = {
    "kind": "spread",
    "subject": None,
    "others": None,
    "topologies": ["dp", "1p3d"],
    "direction": "smaller",
    "output_lens": [512, 1024],
    "versus": {"panel": "prefill", "input_lens": [1024]},
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
EVERY_KIND: tuple[dict[str, Any], ...] = (
    *({"kind": kind} for kind in ("below", "above", "lowest", "highest", "best")),
    *(RATIO, DIFFERENCE, {**WITHIN, "low": 1e-9}, {**RANK, "low": 1, "high": 3}),
    *(MONOTONE, {**MONOTONE, "direction": "falls"}, CROSSING, APART, JOINT),
)
EVERY_CLAIM = tuple(claim(**fields) for fields in EVERY_KIND)
"""A claim of every kind."""
