"""Variables that are passed through: from the session's environment to what it starts."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pytest_pdserve.plan.command import Command
from pytest_pdserve.results.redaction import keep_secret
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System


def check_passed(system: System) -> None:
    """Refuse a system that passes a variable through which is not set here.

    :raises ConfigError: naming it.
    """
    for position, name in enumerate(system.pass_env):
        if name not in os.environ:
            raise ConfigError(
                f"{system.source}: /pass_env/{position}: {name!r} is not set in the environment of "
                "this session; export it, or remove it from pass_env"
            )


def unwritten_values(commands: Sequence[Command], api_key: str) -> dict[str, str]:
    """Return the variables of *commands* that stand in no file and no argument, with their values.

    :param api_key: the session's key; empty where there is none.
    """
    keys = dict.fromkeys((name for command in commands for name in command.secrets), api_key)
    names = dict.fromkeys(name for command in commands for name in command.passed)
    keep_secret(names)
    passed = {name: os.environ.get(name, "") for name in names}
    return {name: value for name, value in {**passed, **keys}.items() if value}
