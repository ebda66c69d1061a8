"""Flags and environment that servers were started with, as far as they are the same every time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import PurePath

from pytest_pdserve.plan.serve_flags import flag_name
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.roles import ROLES

ROUTER = "router"
SWITCH = "set"
"""Value of a flag that takes none."""
_PROGRAM = {**dict.fromkeys(ROLES, "serve"), ROUTER: "vllm-router"}
"""By role: the word of a command after which its own flags begin; before are those of a container
engine."""
_PLACES = frozenset(
    {
        *("--host", "--port", "--api-key", "--prometheus-host", "--prometheus-port"),
        *("--prefill", "--decode", "--worker-urls"),
        *("--data-parallel-address", "--data-parallel-rpc-port", "--data-parallel-start-rank"),
        *("VLLM_HOST_IP", "VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"),
        "CUDA_VISIBLE_DEVICES",
    }
)
"""Flags and variables that say where a process runs: they differ from start to start."""


def server_flags(processes: Sequence[ProcessRecord]) -> dict[str, str]:
    """Return the value of every flag and variable of the servers, by role and name.

    Values of several instances of a role stand beside each other where they differ. Addresses,
    ports and GPUs, which are others at every start, are left out.
    """
    found: dict[str, dict[str, None]] = {}
    for process in processes:
        role = process.name.partition("[")[0]
        if role not in _PROGRAM:
            continue
        begin = _begin(process.argv, _PROGRAM[role])
        own = _flags(process.argv[begin:])
        for name, value in (*own, *_contained(process.argv[:begin]), *process.env.items()):
            if name not in _PLACES:
                found.setdefault(f"{role} {name}", {})[value] = None
    return {name: " or ".join(sorted(values)) for name, values in found.items()}


def _begin(argv: Sequence[str], program: str) -> int:
    """Return the place of the first argument of a program; that of the command's if not found."""
    return next((n for n, word in enumerate(argv, 1) if PurePath(word).name == program), 1)


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return flags and values of a program's arguments; of a repeated flag, all values."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in arguments:
        if flag := flag_name(word):
            name = flag
            values = found.setdefault(name, [])
            if "=" in word:
                values.append(word.partition("=")[2])
        elif name:
            found[name].append(word)
    for flag, values in found.items():
        yield flag, " ".join(values) or SWITCH


def _contained(engine: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return the variables that the arguments of a container engine set."""
    for flag, word in itertools.pairwise(engine):
        name, equals, value = word.partition("=")
        if flag == "--env" and equals:
            yield name, value
