"""What pytest's header gets: one line, and one more where a version is untested."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from pytest_pdserve.backends.fabric.folder import library_versions
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.results.compatibility import installed_version
from pytest_pdserve.results.compatibility import known_packages
from pytest_pdserve.values.compatibility import untested_text
from pytest_pdserve.values.system import System

_SERVING = ("vLLM", "NIXL", "router")
_OWN = ("Python", "pytest")


def header(system: System, topologies: Sequence[str]) -> str:
    """System, topologies and the versions that serve, or where those are found out."""
    packages, own = known_packages(), library_versions(system)
    found = {
        name: next((own[each] for each in packages[name].distributions if each in own), None)
        or installed_version(packages[name])
        for name in (*_OWN, *_SERVING)
    }
    versions = {name: version for name, version in found.items() if version is not None}
    return "\n".join([_measured(system, topologies, versions), *warnings(system, versions)])


def warnings(system: System, versions: Mapping[str, str]) -> list[str]:
    """Return a line on the versions that nobody looked at; none where all are known.

    Of what serves, only what serves from this environment: nodes and images have their own.

    :param versions: what is installed beside pytest, by name of the package.
    """
    used = (*_OWN, *(_SERVING if _serves_from_here(system) else ()))
    packages = known_packages()
    said = untested_text([(packages[name], versions[name]) for name in used if name in versions])
    return [f"pdserve: {said}"] if said else []


def _measured(system: System, topologies: Sequence[str], versions: Mapping[str, str]) -> str:
    if system.figures is not None:
        return f"pdserve: system {system.name} (FIGURES, nothing is measured)"
    if system.simulated:
        return f"pdserve: system {system.name} (SIMULATED), topology {', '.join(topologies)}"
    shown = f"versions as found on {_servers(system)}"
    if _serves_from_here(system):
        said = [f"{name} {versions[name]}" for name in _SERVING if name in versions]
        shown = ", ".join(said) or "no vLLM in this environment"
    return f"pdserve: system {system.name}, topology {', '.join(topologies)}, {shown}"


def _serves_from_here(system: System) -> bool:
    if system.simulated or system.figures is not None or system.container.contained:
        return False
    return backend_of(system).serves_from_here


def _servers(system: System) -> str:
    """Where servers run whose versions are not those of this environment."""
    if system.container.contained:
        return f"its nodes, in image {system.container.image}"
    return "its nodes" if backend_of(system).starts_servers else "its servers"
