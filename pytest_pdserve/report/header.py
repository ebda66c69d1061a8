"""What pytest's header gets: one line, and one more where a version is untested."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from pytest_pdserve.results.compatibility import installed_version
from pytest_pdserve.results.compatibility import known_packages
from pytest_pdserve.values.compatibility import untested_text
from pytest_pdserve.values.system import System

_SERVING = ("vLLM", "NIXL", "router")
_OWN = ("Python", "pytest")


def header(system: System, topologies: Sequence[str]) -> str:
    """System, topologies and, unless nothing of it runs, the versions installed beside pytest."""
    packages = known_packages()
    versions = {
        name: version
        for name in (*_OWN, *_SERVING)
        if (version := installed_version(packages[name])) is not None
    }
    return "\n".join([_measured(system, topologies, versions), *warnings(system, versions)])


def warnings(system: System, versions: Mapping[str, str]) -> list[str]:
    """Return a line on the versions that nobody looked at; none where all are known.

    Of what serves, only what serves from this environment: a container image has its own.

    :param versions: what is installed beside pytest, by name of the package.
    """
    serves = not (system.simulated or system.figures or system.container.contained)
    used = (*_OWN, *(_SERVING if serves else ()))
    packages = known_packages()
    said = untested_text([(packages[name], versions[name]) for name in used if name in versions])
    return [f"pdserve: {said}"] if said else []


def _measured(system: System, topologies: Sequence[str], versions: Mapping[str, str]) -> str:
    if system.figures is not None:
        return f"pdserve: system {system.name} (FIGURES, nothing is measured)"
    if system.simulated:
        return f"pdserve: system {system.name} (SIMULATED), topology {', '.join(topologies)}"
    said = [f"{name} {versions[name]}" for name in _SERVING if name in versions]
    shown = ", ".join(said) or "no vLLM in this environment"
    return f"pdserve: system {system.name}, topology {', '.join(topologies)}, {shown}"
