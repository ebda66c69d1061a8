"""Environment variables that servers get from the session's own environment (``pass_env``)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pytest_pdserve.plan.command import Command
from pytest_pdserve.results.redaction import keep_secret
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System


def check_passed(system: System) -> None:
    """Raise if a variable of ``pass_env`` is not set in this environment.

    :raises ConfigError: naming it.
    """
    for position, name in enumerate(system.pass_env):
        if name not in os.environ:
            raise ConfigError(
                f"{system.source}: /pass_env/{position}: {name!r} is not set in the environment of "
                "this session; export it, or remove it from pass_env"
            )


def secret_env(commands: Sequence[Command], api_key: str) -> dict[str, str]:
    """Return the variables of *commands* that must not be written to files or arguments.

    :param api_key: the session's key; empty if it has none.
    """
    keys = dict.fromkeys((name for command in commands for name in command.secrets), api_key)
    names = dict.fromkeys(name for command in commands for name in command.passed)
    keep_secret(names)
    passed = {name: os.environ.get(name, "") for name in names}
    return {name: value for name, value in {**passed, **keys}.items() if value}
