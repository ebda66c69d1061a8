"""CUDA graphs: make sure that captured batch sizes reach the largest batch of a load.

A larger batch runs without a graph, and vLLM does not report it: on four H200, with 256 as the
largest size and 512 requests over two decode instances, ITL was 46 ms instead of 9 ms.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.plan.fits import tokens_of
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.roles import kv_sources
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

DEFAULT_LARGEST = 512
"""Largest batch that vLLM captures by default (0.11 to 0.32); fewer with a smaller
``--max-num-seqs``, which such a batch cannot exceed either."""
LARGEST_FLAG = "--max-cudagraph-capture-size"
_SIZES_FLAGS = ("--cudagraph-capture-sizes", "--cuda-graph-sizes")
_CONFIG_FLAGS = ("--compilation-config", "-cc", "-O")
_SIZES_KEY, _LARGEST_KEY = "cudagraph_capture_sizes", "max_cudagraph_capture_size"


def capture_args(system: System, role: str) -> list[str]:
    """Return arguments for vLLM to capture graphs up to the largest batch of the sweep's loads.

    Empty if vLLM's default is sufficient, if ``serve_args`` set sizes, for instances that generate
    only the first token, and if ``[cluster] device`` is not ``gpu``.
    """
    args = system.serve_args(role)
    if system.cluster.device != "gpu" or role in kv_sources() or _eager(args):
        return []
    needed = max((_batch(load, args) or 0 for load in system.sweep.workloads()), default=0)
    if captured_sizes(args) or needed <= DEFAULT_LARGEST:
        return []
    return [LARGEST_FLAG, str(needed)]


def check_captured(workload: Workload, system: System, topology: Topology) -> None:
    """Raise if the largest batch of a load on one instance exceeds the captured sizes.

    :raises ConfigError: with both numbers.
    """
    for role in (part.role for part in topology.parts if part.role not in kv_sources()):
        args = system.serve_args(role)
        sizes, batch = captured_sizes(args), _batch(workload, args)
        if not sizes or batch is None or batch <= max(sizes) or _eager(args):
            continue
        raise ConfigError(
            f"workload {workload.id} of {system.name!r}: up to {batch} requests generate at once "
            f"on one {role} instance, but CUDA graphs are captured up to {max(sizes)}, and larger "
            f"batches run several times slower; capture sizes up to {batch} in serve_args, or "
            "lower max_concurrency or --max-num-seqs"
        )


def captured_sizes(args: Sequence[str]) -> tuple[int, ...]:
    """Return the batch sizes that arguments of ``vllm serve`` capture; empty if not set."""
    sizes: list[int] = []
    for position, word in enumerate(args):
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-") if flag.startswith("--") else flag
        rest = ([value] if equals else []) + list(args[position + 1 :])
        if flag in (*_SIZES_FLAGS, LARGEST_FLAG):
            sizes += _numbers(rest)
        elif flag in _CONFIG_FLAGS:
            sizes += _of_config("".join(rest[:1]))
        elif flag.rpartition(".")[0] in _CONFIG_FLAGS:
            sizes += _of_key(flag.rpartition(".")[2].replace("-", "_"), "".join(rest[:1]))
    return tuple(sizes)


def _eager(args: Sequence[str]) -> bool:
    return "--enforce-eager" in args or "--enforce_eager" in args


def _batch(workload: Workload, args: Sequence[str]) -> int | None:
    """Return the largest number of requests in one engine at once; None if not known."""
    prompts = workload.num_prompts
    if not isinstance(prompts, int):
        return None
    bounds = (workload.max_concurrency, tokens_of(args, "--max-num-seqs"))
    return min([prompts, *(bound for bound in bounds if isinstance(bound, int))])


def _numbers(words: Iterable[str]) -> Iterator[int]:
    for word in itertools.takewhile(lambda word: not word.startswith("-"), words):
        yield from (int(part) for part in word.replace(",", " ").split() if part.isdecimal())


def _of_config(text: str) -> Iterator[int]:
    try:
        config = json.loads(text)
    except ValueError:
        return
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _of_key(key, json.dumps(value))


def _of_key(key: str, text: str) -> Iterator[int]:
    if key in (_SIZES_KEY, _LARGEST_KEY):
        yield from _numbers([text.strip("[]")])
