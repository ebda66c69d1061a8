"""Flags and environment of servers, without those that change with every start."""

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
"""Value of a flag without an argument."""
_PROGRAM = {**dict.fromkeys(ROLES, "serve"), ROUTER: "vllm-router"}
"""By role: the word of a command after which the program's flags begin. Before it are flags of a
container engine."""
_ADDRESSES = frozenset(
    {
        *("--host", "--port", "--api-key", "--prometheus-host", "--prometheus-port"),
        *("--prefill", "--decode", "--worker-urls"),
        *("--data-parallel-address", "--data-parallel-rpc-port", "--data-parallel-start-rank"),
        *("VLLM_HOST_IP", "VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"),
        "CUDA_VISIBLE_DEVICES",
    }
)
"""Flags and variables that name where a process runs: they change with every start."""


def server_flags(processes: Sequence[ProcessRecord]) -> dict[str, str]:
    """Return the value of every flag and variable of the servers, by role and name.

    Different values of several instances of a role are joined by "or". Addresses, ports and GPUs,
    which change with every start, are left out.
    """
    found: dict[str, dict[str, None]] = {}
    for process in processes:
        role = process.name.partition("[")[0]
        if role not in _PROGRAM:
            continue
        begin = _begin(process.argv, _PROGRAM[role])
        own = _flags(process.argv[begin:])
        for name, value in (*own, *_contained(process.argv[:begin]), *process.env.items()):
            if name not in _ADDRESSES:
                found.setdefault(f"{role} {name}", {})[value] = None
    return {name: " or ".join(sorted(values)) for name, values in found.items()}


def _begin(argv: Sequence[str], program: str) -> int:
    """Return the index of a program's first argument; 1 if the program is not found."""
    return next((n for n, word in enumerate(argv, 1) if PurePath(word).name == program), 1)


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield flags and values of a program's arguments; of a repeated flag, all values."""
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
    """Yield the variables that the arguments of a container engine set."""
    for flag, word in itertools.pairwise(engine):
        name, equals, value = word.partition("=")
        if flag == "--env" and equals:
            yield name, value
