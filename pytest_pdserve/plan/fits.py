"""Check that the longest request of a load fits into ``max_model_len`` of the instances."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pdserve.plan.bench import client_options
from pytest_pdserve.plan.command import value_of
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.roles import kv_sources
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

_SUFFIXES = {"k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}
"""Suffixes of ``vllm serve --max-model-len``."""


def longest_request(workload: Workload, system: System, *, one_token: bool = False) -> int | None:
    """Return the largest number of tokens, prompt and output, of a request of *workload*.

    :param one_token: count only one output token, as a prefill instance generates.
    :returns: None for data sets with lengths of their own.
    """
    if workload.lengths is None:
        return None
    options = client_options(workload, system)
    try:
        ratio = float(options.get("random-range-ratio", 0))
        prefix = int(options.get("random-prefix-len", 0))
    except ValueError:
        ratio, prefix = 0.0, 0
    tokens = workload.lengths[0] if one_token else sum(workload.lengths)
    return int(tokens * (1 + ratio)) + prefix + one_token


def tokens_of(args: Sequence[str], flag: str) -> int | None:
    """Return the number of tokens that *args* set with *flag*; None if they do not."""
    value = value_of(args, flag) or ""
    factor = _SUFFIXES.get(value[-1:], 1)
    try:
        return int(float(value[:-1] if factor > 1 else value) * factor)
    except ValueError:
        return None


def check_fits(
    workload: Workload, system: System, limit: int, limit_source: str, *, one_token: bool = False
) -> None:
    """Raise if a request of a load can be longer than instances accept.

    :param limit: largest number of tokens of a request.
    :param limit_source: where the limit comes from, for the message.
    :param one_token: whether these instances generate only one token of each answer.
    :raises ConfigError: with both numbers.
    """
    longest = longest_request(workload, system, one_token=one_token)
    if longest is not None and longest > limit:
        raise ConfigError(
            f"workload {workload.id} of {system.name!r}: a request has up to {longest} tokens, "
            f"but instances take {limit} ({limit_source}); shorten prompts or outputs, or raise "
            "that limit"
        )


def check_sweep_fits(system: System, topology: Topology) -> None:
    """Raise if a load of the sweep does not fit the arguments of *topology*'s instances.

    :raises ConfigError: with both numbers.
    """
    for part in topology.parts:
        args = system.serve_args(part.role)
        limits = {"--max-model-len": tokens_of(args, "--max-model-len")}
        blocks, size = (
            tokens_of(args, flag) for flag in ("--num-gpu-blocks-override", "--block-size")
        )
        if blocks is not None and size is not None:
            limits["--num-gpu-blocks-override x --block-size"] = blocks * size
        for flag, limit in limits.items():
            for workload in system.sweep.workloads() if limit and limit > 0 else ():
                # Prefill instances generate one token of each answer.
                one = part.role in kv_sources()
                check_fits(workload, system, limit or 0, f"{flag} of {part.role}", one_token=one)
