"""Disaggregated prefill/decode serving, measured and judged; names for suites and extensions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from pytest_pdserve.backends.backend import Backend
    from pytest_pdserve.values.metrics import Metric
    from pytest_pdserve.values.observation import Observation
    from pytest_pdserve.values.record import Finding
    from pytest_pdserve.values.record import Record
    from pytest_pdserve.values.topology import Topology
    from pytest_pdserve.values.workload import RampUp
    from pytest_pdserve.values.workload import Workload

__all__ = [
    "Backend",
    "Finding",
    "Metric",
    "Observation",
    "RampUp",
    "Record",
    "Topology",
    "Workload",
]

_MODULES = {
    "Backend": "backends.backend",
    "Finding": "values.record",
    "Metric": "values.metrics",
    "Observation": "values.observation",
    "RampUp": "values.workload",
    "Record": "values.record",
    "Topology": "values.topology",
    "Workload": "values.workload",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the plugin loads in every pytest."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"pytest_pdserve.{_MODULES[name]}"), name)
