"""Checks a system's own fabric libraries, for ``pdserve doctor`` and before servers start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace

from pytest_pdserve.backends.examining import software
from pytest_pdserve.backends.fabric.folder import FI_INFO
from pytest_pdserve.backends.fabric.folder import default_folder
from pytest_pdserve.backends.fabric.folder import fabric_folder
from pytest_pdserve.backends.fabric.folder import find_installed
from pytest_pdserve.backends.fabric.folder import transfer_env
from pytest_pdserve.backends.fabric.install import COMPILERS
from pytest_pdserve.backends.fabric.probe import AgentProbe
from pytest_pdserve.backends.fabric.probe import probe_agent
from pytest_pdserve.backends.hosts.facts import run_quietly
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.prerequisites import required
from pytest_pdserve.values.prerequisites import unneeded
from pytest_pdserve.values.system import System

_PROVIDER = "FI_PROVIDER"
_NEEDED = "by kv_transfer"


def with_libraries(system: System) -> System:
    """Return *system* with the paths of its own libraries in its environment."""
    return replace(system, pd_env={**transfer_env(system, os.environ), **system.pd_env})


def server_env(system: System) -> dict[str, str]:
    """Return the environment of instances of *system* that move KV caches, without ports."""
    return {**os.environ, **system.env, **with_libraries(system).pd_env}


def install_command(system: System) -> str:
    """Return the command that installs *system*'s libraries."""
    folder = fabric_folder(system)
    named = "" if folder in (None, default_folder()) else f" --folder {folder}"
    return f"pdserve fabric install{named}"


def check_libraries(system: System) -> None:
    """Raise if the system's own libraries are not installed, or NIXL cannot use them.

    A NIXL agent is created in the environment of instances; this takes 2 s.

    :raises ConfigError: with what is missing, and the command to run.
    """
    folder = fabric_folder(system)
    if folder is None:
        return
    if find_installed(folder) is None:
        raise ConfigError(
            f"the libraries are missing: system {system.name!r} needs those of {folder} "
            f"(kv_transfer.libraries = {system.kv_transfer.libraries!r} in {system.source}), which "
            "are not installed, or were installed by another version of pdserve; run "
            f"`{install_command(system)}`"
        )
    if (elsewhere := software.software_elsewhere(system)) is not None:
        raise ConfigError(
            f"kv_transfer.libraries = {system.kv_transfer.libraries!r} in {system.source} is for "
            f"servers of this Python's environment, but vLLM is {elsewhere}; remove one of the two"
        )
    probe = probe_agent(server_env(system))
    if probe.trouble:
        raise ConfigError(_no_agent_text(system, probe))


def _no_agent_text(system: System, probe: AgentProbe) -> str:
    """Return the message for an agent that could not be created."""
    env = server_env(system)
    path = software.plugin_path(system.kv_transfer.backend, env)
    trouble = software.load_trouble(path, env, run_quietly) if path else None
    return (
        f"NIXL cannot create an agent with {system.kv_transfer.backend} and "
        f"{_provider_text(env)}: {trouble or probe.trouble}; expected a libfabric provider and a "
        f"network interface that is up, other than lo; change [pd_env] of {system.source}, or see "
        f"`pdserve doctor --system {system.name}`"
    )


def _provider_text(env: Mapping[str, str]) -> str:
    """Return the variables that choose provider and interface, with their values."""
    names = (_PROVIDER, "FI_TCP_IFACE")
    settings = [f"{name} = {env[name]!r}" for name in names if name in env]
    return " and ".join(settings) or f"no {_PROVIDER}"


def provider_used(system: System) -> dict[str, str]:
    """Return the fabric provider that NIXL reports, as record fields; empty if unknown."""
    folder = fabric_folder(system)
    if folder is None or find_installed(folder) is None:
        return {}
    probe = probe_agent(server_env(system))
    if probe.trouble:
        return {}
    return {"provider": probe.provider, "provider_interfaces": ", ".join(probe.interfaces)}


def library_rows(system: System) -> list[Prerequisite]:
    """Return the rows of a system's own libraries, its provider, and the C compiler."""
    folder = fabric_folder(system)
    if folder is None:
        return []
    found = find_installed(folder)
    versions = found.versions if found is not None else {}
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    advice = f"Run `{install_command(system)}`."
    return [
        required(
            "fabric folder",
            found=named or "not installed",
            needed=_NEEDED,
            there=found is not None,
            advice=advice,
        ),
        _provider_row(system, advice if found is None else ""),
        _compiler_row(needed=found is None),
    ]


def _provider_row(system: System, advice: str) -> Prerequisite:
    """Return the row of libfabric's provider, as ``fi_info`` finds it.

    :param advice: what to do if libfabric is not installed; empty if it is.
    """
    env, folder = server_env(system), fabric_folder(system)
    provider = env.get(_PROVIDER, "")
    paths = [f"{name}={env[name]}" for name in ("LD_LIBRARY_PATH", "FI_PROVIDER_PATH")]
    argv = ["env", *paths, f"{_PROVIDER}={provider}", f"{folder}/{FI_INFO}", "-p", provider]
    available = not advice and run_quietly(argv) is not None
    return required(
        "libfabric provider",
        found=provider if available else f"no {provider or 'name'}",
        needed=f"{_PROVIDER} {provider}",
        there=available,
        advice=advice or f"Write a provider in {_PROVIDER} of [pd_env] that `fi_info` lists.",
    )


def _compiler_row(*, needed: bool) -> Prerequisite:
    found = next((name for name in COMPILERS if shutil.which(name)), None)
    if not needed:
        return unneeded("C compiler", found or "none")
    return required(
        "C compiler",
        found=found or "none",
        needed="by pdserve fabric install",
        there=found is not None,
        advice="Install one, e.g. Debian's package gcc.",
    )
