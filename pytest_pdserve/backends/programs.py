"""Programs of a system file that must be installed on this machine before anything is started."""

from __future__ import annotations

import sys
from typing import Literal

from pytest_pdserve.backends.hosts.facts import program_path
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System

_CALLED = {"vllm": "vLLM", "router": "the router"}


def check_program(system: System, key: Literal["vllm", "router"], *, needed_for: str) -> None:
    """Refuse a system whose program is neither beside this Python nor on PATH.

    :param key: of ``[programs]``.
    :param needed_for: what runs it, as the message says.
    :raises ConfigError: naming it, and what to do.
    """
    program: str = getattr(system.programs, key)
    if program_path(program) is None:
        raise ConfigError(
            f"{_CALLED[key]} is missing: {needed_for} needs {program!r}, which is neither beside "
            f"{sys.executable} nor on PATH; install pytest-pdserve[serve], run `make setup` in a "
            f"checkout, or name the program in [programs] {key} of {system.source}"
        )
