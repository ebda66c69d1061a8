"""Checks of what must be installed on this machine before servers start on it."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Literal

from pytest_pdserve.backends.examining import machine
from pytest_pdserve.backends.examining import software
from pytest_pdserve.backends.hosts.facts import program_path
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System

_NAMES = {"vllm": "vLLM", "router": "the router"}
_NIXL_MODULES = ("nixl", "rixl")
"""NIXL for CUDA and CPUs, and for ROCm."""


def check_program(system: System, key: Literal["vllm", "router"], *, needed_for: str) -> None:
    """Raise if a program is neither beside this Python nor on PATH.

    :param key: of ``[programs]``.
    :param needed_for: what needs the program, for the message.
    :raises ConfigError: naming it, and what to do.
    """
    program: str = getattr(system.programs, key)
    if program_path(program) is None:
        raise ConfigError(
            f"{_NAMES[key]} is missing: {needed_for} needs {program!r}, which is neither beside "
            f"{sys.executable} nor on PATH; install pytest-pdserve[serve], run `make setup` in a "
            f"checkout, or name the program in [programs] {key} of {system.source}"
        )


def check_containers(system: System) -> None:
    """Raise if the container engine is missing or does not answer, or the image file is missing.

    :raises ConfigError: naming it, and what to do.
    """
    spec = system.container
    row = machine.engine_row(system)
    if row.status == "missing":
        raise ConfigError(
            f"the container engine is missing: system {system.name!r} needs {spec.engine} on this "
            f"machine (container.kind = {spec.kind!r} in {system.source}), found was {row.found}; "
            f"install {spec.engine} and start it, or choose another container.kind"
        )
    if spec.image_source in ("squashfs", "tarball") and not os.path.exists(spec.image):
        raise ConfigError(
            f"the image is missing: system {system.name!r} needs {spec.image}, which does not "
            f"exist on this machine; put it there, or name another in [container] image of "
            f"{system.source}"
        )


def check_nixl(system: System) -> None:
    """Raise if servers run from this environment and need NIXL, which it does not have.

    :raises ConfigError: naming the environment, and what to do.
    """
    if software.nixl_plugin(system) is None or software.software_elsewhere(system) is not None:
        return
    if not any(find_spec(name) for name in _NIXL_MODULES):
        raise ConfigError(
            f"NIXL is missing: system {system.name!r} moves KV caches by "
            f"{system.kv_transfer.connector}, and {sys.executable} has no package nixl; install "
            "pytest-pdserve[serve], or run `make setup` in a checkout"
        )
