"""A claim whose verdict is known, and what is known of its sides."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from pytest_pdserve.values.expected import ExpectedChange
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.sweep import Sweep
from pytest_pdserve.values.topology import Size

Runs = tuple[float, ...]
Values = Mapping[str, Runs]
"""Runs by topology, by ``topology 512-256`` where cells differ, or by ``metric topology`` where
metrics do."""
SWEEP = Sweep(input_lens=(512, 1024), output_lens=(256, 512, 1024), num_prompts=4).points()
NAMES = ("1p3d", "dp", "route4")
QUIET, NOISY = (1.0,), (0.94, 1.0, 1.06)
"""What nights of 1p3d are multiplied by, in turn: its noise is the floor, and 54 %."""
ENTRY = ExpectedChange(
    claims=("itl",), cells=("512-256",), until="2026-12-31", owner="ann", reason="r"
)
VOID = Finding(check="chunks", severity="note", message="m", voids=("mean_itl_ms",))
SIZES = {"1p3d": Size(nodes=4, gpus=8), "dp": Size(nodes=4, gpus=32)}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A claim and what is known of its sides."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the claim that differ from those of :data:`tests.support.claims.ENTRY`."""
    tonight: Values
    last_night: Values = field(default_factory=dict)
    nights: Runs | None = QUIET
    """What the nights are multiplied by; None of a system without a baseline."""
    usual: Values = field(default_factory=lambda: {"1p3d": (9.0,), "dp": (10.0,), "route4": (8.0,)})
    """Values of the nights."""
    first_night: Mapping[str, int] = field(default_factory=dict)
    """The first of the nights that a topology was measured in."""
    findings: tuple[Finding, ...] = ()
    """Of the runs."""
    void_from: int = 0
    """The first run that has these."""
    entries: Sequence[ExpectedChange] = ()
    known: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of :class:`Known`."""
    cells: Sequence[str] = ("512-256",)
    """Cells that are measured."""
    off: float | None = None
    """How far readings may be off; None of values that were measured."""


def two(subject: float, other: float = 10.0, runs: int = 1) -> Values:
    return {"1p3d": (subject,) * runs, "dp": (other,) * runs}


def three(*values: float, runs: int = 1) -> Values:
    return {name: (value,) * runs for name, value in zip(NAMES, values, strict=True)}


def along(*values: float, runs: int = 1) -> Values:
    lengths = ("256", "512", "1024")
    return {f"dp 512-{o}": (v,) * runs for o, v in zip(lengths, values, strict=False)}


ALL = ("512-256", "1024-256", "512-512", "512-1024")
GAP = {"dp": (10.0,) * 3, "1p3d": (12.0,) * 3}
RATE = {"kind": "above", "metric": "output_throughput"}
