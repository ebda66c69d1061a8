"""Lines of pytest's header: the session, and a warning if a version is untested."""

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
    """Return the line with system, topologies and versions, and warnings."""
    packages, own = known_packages(), library_versions(system)
    found = {
        name: next((own[each] for each in packages[name].distributions if each in own), None)
        or installed_version(packages[name])
        for name in (*_OWN, *_SERVING)
    }
    versions = {name: version for name, version in found.items() if version is not None}
    return "\n".join([_measured(system, topologies, versions), *warnings(system, versions)])


def warnings(system: System, versions: Mapping[str, str]) -> list[str]:
    """Return a line on untested versions; nothing if all were tested.

    Versions on nodes and in images are not known here and not checked.

    :param versions: versions in this environment, by package.
    """
    used = (*_OWN, *(_SERVING if _serves_from_here(system) else ()))
    packages = known_packages()
    text = untested_text([(packages[name], versions[name]) for name in used if name in versions])
    return [f"pdserve: {text}"] if text else []


def _measured(system: System, topologies: Sequence[str], versions: Mapping[str, str]) -> str:
    if system.figures is not None:
        return f"pdserve: system {system.name} (FIGURES, nothing is measured)"
    if system.simulated:
        return f"pdserve: system {system.name} (SIMULATED), topology {', '.join(topologies)}"
    shown = f"versions as found on {_servers(system)}"
    if _serves_from_here(system):
        serving = [f"{name} {versions[name]}" for name in _SERVING if name in versions]
        shown = ", ".join(serving) or "no vLLM in this environment"
    return f"pdserve: system {system.name}, topology {', '.join(topologies)}, {shown}"


def _serves_from_here(system: System) -> bool:
    if system.simulated or system.figures is not None or system.container.contained:
        return False
    return backend_of(system).serves_from_here


def _servers(system: System) -> str:
    """Return where servers run whose versions are not those of this environment."""
    if system.container.contained:
        return f"its nodes, in image {system.container.image}"
    return "its nodes" if backend_of(system).starts_servers else "its servers"
