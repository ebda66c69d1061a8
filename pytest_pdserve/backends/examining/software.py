"""Rows of ``pdserve doctor`` about Python packages and programs; none of them is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from pytest_pdserve.backends.hosts.facts import program_path
from pytest_pdserve.backends.hosts.facts import run_quietly
from pytest_pdserve.results.compatibility import installed_version
from pytest_pdserve.results.compatibility import known_packages
from pytest_pdserve.results.compatibility import oldest_versions
from pytest_pdserve.values.compatibility import Package
from pytest_pdserve.values.compatibility import numbers
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.prerequisites import required
from pytest_pdserve.values.prerequisites import unchecked
from pytest_pdserve.values.prerequisites import unneeded
from pytest_pdserve.values.system import System

INSTALL_SERVE = "Install pytest-pdserve[serve], or run `make setup` in a checkout."
PLUGINS = ("UCX", "LIBFABRIC")
"""NIXL's plugins that a system file can name."""
_NIXL_WHEELS = ("nixl", "nixl-cu13", "nixl-cu12", "nixl-rocm")
_PLUGIN_FOLDER = "NIXL_PLUGIN_DIR"
"""Environment variable in which NIXL looks for its plugins."""
_LOAD = """\
import ctypes, sys
try:
    ctypes.CDLL(sys.argv[1])
except OSError as error:
    print(error)
"""
_BACKEND = "by kv_transfer"
Run = Callable[[Sequence[str]], str | None]
"""Runs a command and returns what it prints; None if it is absent, fails or hangs."""


def own_software() -> list[Prerequisite]:
    """Return the rows of Python and pytest, which every session needs."""
    packages = known_packages()
    return [
        package_row(packages["Python"], installed_version(packages["Python"]), advice=""),
        package_row(packages["pytest"], installed_version(packages["pytest"]), advice=""),
    ]


def package_row(package: Package, version: str | None, *, advice: str) -> Prerequisite:
    """Return the row of a package that the system needs.

    :param advice: what to do if it is not installed.
    """
    name = package.distributions[0] if package.distributions else package.name
    oldest = oldest_versions().get(name)
    needed = f"{oldest} or newer" if oldest else "any version"
    row = required(
        package.name,
        found=version or "none",
        needed=needed,
        there=version is not None,
        advice=advice,
    )
    if version is None:
        return row
    if oldest and numbers(version) < numbers(oldest):
        return replace(row, status="missing", advice=f"Install {package.name} {needed}.")
    tested = package.find(version)
    if tested is None:
        versions = ", ".join(package.tested)
        hint = f"Run suites/smoke first: tested were {versions} (docs/compatibility.md)."
        return replace(row, status="untested", advice=hint)
    return replace(row, found=version if tested.how == "run here" else f"{version} ({tested.how})")


def distribution_row(name: str, *, extra: str) -> Prerequisite:
    """Return the row of a Python package that the system needs.

    :param extra: extra of pytest-pdserve that installs it.
    """
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = None
    oldest = oldest_versions().get(name)
    return required(
        name,
        found=version or "none",
        needed=f"{oldest} or newer" if oldest else "any version",
        there=version is not None and numbers(version) >= numbers(oldest or "0"),
        advice=f"Install pytest-pdserve[{extra}].",
    )


def serving_software(
    system: System, own: Mapping[str, str] = MappingProxyType({})
) -> list[Prerequisite]:
    """Return the rows of vLLM, the router, and NIXL if it moves the KV caches.

    :param own: versions of the libraries that only this system's servers use, by distribution.
    """
    elsewhere, nixl = software_elsewhere(system), known_packages()["NIXL"]
    if system.container.contained:
        rows = [unchecked(what, found=str(elsewhere), needed="yes") for what in ("vLLM", "router")]
    else:
        rows = [
            program_row("vLLM", system.programs.vllm, key="vllm"),
            program_row("router", system.programs.router, key="router"),
        ]
    if nixl_plugin(system) is None:
        return rows
    if elsewhere is not None:
        return [*rows, unchecked("NIXL", found=elsewhere, needed="yes")]
    version = own.get("nixl") or installed_version(nixl)
    return [*rows, package_row(nixl, version, advice=INSTALL_SERVE)]


def software_elsewhere(system: System) -> str | None:
    """Return where vLLM is installed; None if that is this Python's environment."""
    if system.container.contained:
        return "in the container image"
    path = program_path(system.programs.vllm)
    if path is None or _beside_this_python(path):
        return None
    return f"in the environment of {path}"


def _beside_this_python(path: str) -> bool:
    return Path(path).parent == Path(sys.executable).parent


def program_row(name: str, program: str, *, key: str) -> Prerequisite:
    """Return the row of a program that the system needs, with its package's version.

    The version is shown only for a program beside this Python, whose packages can be read.

    :param key: key of ``[programs]`` that names the program.
    """
    package, path = known_packages()[name], program_path(program)
    if path is None:
        advice = f"{INSTALL_SERVE[:-1]}; or name the program in [programs] {key}."
        row = package_row(package, None, advice=advice)
        return replace(row, found=f"no {program} on PATH")
    version = installed_version(package)
    if version is None or not _beside_this_python(path):
        return required(name, found=path, needed=program, there=True, advice="")
    return package_row(package, version, advice="")


def plugin_name(name: str) -> str:
    """Return the name of a NIXL plugin's row."""
    return f"NIXL plugin {name}"


def nixl_plugin(system: System) -> str | None:
    """Return the NIXL plugin that moves the system's KV caches; None if another connector does."""
    transfer = system.kv_transfer
    return transfer.backend if transfer.uses_nixl else None


def plugin_rows(
    system: System, *, needed: str | None, here: bool, run: Run = run_quietly
) -> list[Prerequisite]:
    """Return a row for each of NIXL's plugins.

    A plugin is loaded as NIXL does it, in a separate process, so that missing libraries are
    found. No agent is started.

    :param needed: the plugin that servers use; None if they use none.
    :param here: whether servers run on this machine; if not, only the plugin's file is checked.
    """
    return [
        _needed_plugin_row(name, system, here=here, run=run)
        if name == needed
        else other_plugin_row(name, system, run)
        for name in PLUGINS
    ]


def _needed_plugin_row(name: str, system: System, *, here: bool, run: Run) -> Prerequisite:
    what = plugin_name(name)
    if (elsewhere := software_elsewhere(system)) is not None:
        return unchecked(what, found=elsewhere, needed=_BACKEND)
    path = plugin_path(name, _environment(system))
    if path is None:
        return required(what, found="none", needed=_BACKEND, there=False, advice=INSTALL_SERVE)
    if not here:
        return unchecked(what, found="is installed; its libraries are a node's", needed=_BACKEND)
    trouble = load_trouble(path, _environment(system), run)
    if trouble is None:
        return required(what, found="loads", needed=_BACKEND, there=True, advice="")
    library = missing_library(trouble)
    advice = f"Make it load; the loader says: {trouble}."
    if library is not None:
        advice = f"Install {library}, or name its folder in LD_LIBRARY_PATH of [env]."
    return required(what, found=_load_text(trouble), needed=_BACKEND, there=False, advice=advice)


def other_plugin_row(name: str, system: System, run: Run = run_quietly) -> Prerequisite:
    """Return the row of a NIXL plugin that the system does not need."""
    path = plugin_path(name, _environment(system))
    trouble = load_trouble(path, _environment(system), run) if path else None
    return unneeded(plugin_name(name), _load_text(trouble) if path else "none")


def _load_text(trouble: str | None) -> str:
    """Return the result of loading a plugin in a few words."""
    if trouble is None:
        return "loads"
    library = missing_library(trouble)
    return f"lacks {library}" if library else "does not load"


def missing_library(trouble: str) -> str | None:
    """Return the library that the loader did not find; None if the error is another one."""
    return trouble.partition(":")[0] if "cannot open shared object file" in trouble else None


def load_trouble(path: Path, env: Mapping[str, str], run: Run) -> str | None:
    """Return why a plugin cannot be loaded, on one line; None if it can."""
    # The loader reads LD_LIBRARY_PATH once, when a process starts.
    library_path = f"LD_LIBRARY_PATH={env.get('LD_LIBRARY_PATH', '')}"
    output = run(["env", library_path, sys.executable, "-I", "-c", _LOAD, str(path)])
    if output is None:
        return "the process that loaded it crashed or hung"
    return output.strip().partition("\n")[0] or None


def _environment(system: System) -> dict[str, str]:
    """Return the environment of an instance that moves KV caches."""
    return {**os.environ, **system.env, **system.pd_env}


def plugin_path(name: str, env: Mapping[str, str]) -> Path | None:
    """Return the file of a NIXL plugin where NIXL looks for it; None if it does not exist."""
    file = f"libplugin_{name}.so"
    if folder := env.get(_PLUGIN_FOLDER):
        path = Path(folder, file)
        return path if path.exists() else None
    for wheel in _NIXL_WHEELS:
        try:
            files = metadata.files(wheel) or []
        except metadata.PackageNotFoundError:
            continue
        # Wheels carry each twice; NIXL takes the one in `plugins` beside its own library.
        for each in files:
            if each.name == file and each.parent.name == "plugins":
                return Path(str(each.locate()))
    return None
