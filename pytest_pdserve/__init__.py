"""Disaggregated prefill/decode serving, measured and judged; names for suites and extensions.

docs/api.md says what each is for, and what may change.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from pytest_pdserve.backends.allocation import Allocation
    from pytest_pdserve.backends.backend import Backend
    from pytest_pdserve.backends.systems import load_system
    from pytest_pdserve.judge.verdict import Status
    from pytest_pdserve.judge.verdict import Verdict
    from pytest_pdserve.results.baselines import load_baseline
    from pytest_pdserve.results.store import load_record
    from pytest_pdserve.serving.deployment import Deployment
    from pytest_pdserve.session.cell import Cell
    from pytest_pdserve.values.baseline import Baseline
    from pytest_pdserve.values.claim import Claim
    from pytest_pdserve.values.metrics import Metric
    from pytest_pdserve.values.observation import Observation
    from pytest_pdserve.values.record import Finding
    from pytest_pdserve.values.record import Record
    from pytest_pdserve.values.system import System
    from pytest_pdserve.values.topology import Topology
    from pytest_pdserve.values.workload import RampUp
    from pytest_pdserve.values.workload import Workload

__all__ = [
    "Allocation",
    "Backend",
    "Baseline",
    "Cell",
    "Claim",
    "Deployment",
    "Finding",
    "Metric",
    "Observation",
    "RampUp",
    "Record",
    "Status",
    "System",
    "Topology",
    "Verdict",
    "Workload",
    "load_baseline",
    "load_record",
    "load_system",
]

_MODULES = {
    "Allocation": "backends.allocation",
    "Backend": "backends.backend",
    "Baseline": "values.baseline",
    "Cell": "session.cell",
    "Claim": "values.claim",
    "Deployment": "serving.deployment",
    "Finding": "values.record",
    "Metric": "values.metrics",
    "Observation": "values.observation",
    "RampUp": "values.workload",
    "Record": "values.record",
    "Status": "judge.verdict",
    "System": "values.system",
    "Topology": "values.topology",
    "Verdict": "judge.verdict",
    "Workload": "values.workload",
    "load_baseline": "results.baselines",
    "load_record": "results.store",
    "load_system": "backends.systems",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the plugin loads in every pytest."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"pytest_pdserve.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names too, which are not imported yet."""
    return sorted({*globals(), *__all__})
