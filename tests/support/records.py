"""Typical values of a record."""

from __future__ import annotations

from pytest_pdserve.values.sessions import SessionRef

TIMES = {
    "mean_ttft_ms": 100.0,
    "p99_ttft_ms": 180.0,
    "mean_itl_ms": 10.0,
    "output_throughput": 500.0,
}
METRICS = {**TIMES, "completed": 4.0, "failed": 0.0}
SESSION = SessionRef(id="20260822T101500-p5-efa", started_at="2026-08-22T10:15:00.000Z")
