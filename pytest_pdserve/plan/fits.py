"""Whether a load fits into what instances take: tokens of one request against ``max_model_len``."""

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
"""As ``vllm serve --max-model-len`` takes them."""


def longest_request(workload: Workload, system: System, *, one_token: bool = False) -> int | None:
    """Return the most tokens, prompt and output, that one request of *workload* can have.

    None where the data set brings its own lengths.

    :param one_token: count one output token only, as an instance that prefills generates.
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
    """Return the number of tokens that *args* give to *flag*; None if they give none."""
    said = value_of(args, flag) or ""
    factor = _SUFFIXES.get(said[-1:], 1)
    try:
        return int(float(said[:-1] if factor > 1 else said) * factor)
    except ValueError:
        return None


def check_fits(
    workload: Workload, system: System, limit: int, said_by: str, *, one_token: bool = False
) -> None:
    """Refuse a load of which a request can be longer than instances take.

    :param limit: tokens of a request, at most.
    :param said_by: who says so.
    :param one_token: whether these instances generate one token of each answer.
    :raises ConfigError: with both numbers.
    """
    longest = longest_request(workload, system, one_token=one_token)
    if longest is not None and longest > limit:
        raise ConfigError(
            f"workload {workload.id} of {system.name!r}: a request has up to {longest} tokens, but "
            f"instances take {limit} ({said_by}); shorten prompts or outputs, or raise that limit"
        )


def check_sweep_fits(system: System, topology: Topology) -> None:
    """Refuse a sweep of which a load does not fit what *topology*'s instances are started with.

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
                one = part.role in kv_sources()  # these generate one token of each answer
                check_fits(workload, system, limit or 0, f"{flag} of {part.role}", one_token=one)
