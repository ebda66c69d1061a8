"""CUDA graphs: whether the captured batch sizes reach the largest batch that a load can make.

A larger batch runs without a graph, and nothing says so: on four H200, with 256 as the largest size
and 512 requests over two decode instances, ITL was 46 ms instead of 9.
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
    """Return the arguments that make vLLM capture batches as large as the sweep's loads make.

    None where its default reaches, ``serve_args`` say which sizes, instances of *role* generate
    one token of each answer, or the system is not said to compute on GPUs.
    """
    args = system.serve_args(role)
    if system.cluster.device != "gpu" or role in kv_sources() or _eager(args):
        return []
    needed = max((_batch(load, args) or 0 for load in system.sweep.workloads()), default=0)
    if captured_sizes(args) or needed <= DEFAULT_LARGEST:
        return []
    return [LARGEST_FLAG, str(needed)]


def check_captured(workload: Workload, system: System, topology: Topology) -> None:
    """Refuse a load whose largest batch on one instance is beyond the captured sizes.

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
    """Return the batch sizes that arguments of ``vllm serve`` have captured; none if not said."""
    found: list[int] = []
    for position, word in enumerate(args):
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-") if flag.startswith("--") else flag
        rest = ([value] if equals else []) + list(args[position + 1 :])
        if flag in (*_SIZES_FLAGS, LARGEST_FLAG):
            found += _numbers(rest)
        elif flag in _CONFIG_FLAGS:
            found += _of_config("".join(rest[:1]))
        elif flag.rpartition(".")[0] in _CONFIG_FLAGS:
            found += _of_key(flag.rpartition(".")[2].replace("-", "_"), "".join(rest[:1]))
    return tuple(found)


def _eager(args: Sequence[str]) -> bool:
    return "--enforce-eager" in args or "--enforce_eager" in args


def _batch(workload: Workload, args: Sequence[str]) -> int | None:
    """Requests that one engine can have at once; None where nothing says it."""
    asked = workload.num_prompts
    if not isinstance(asked, int):
        return None
    bounds = (workload.max_concurrency, tokens_of(args, "--max-num-seqs"))
    return min([asked, *(bound for bound in bounds if isinstance(bound, int))])


def _numbers(words: Iterable[str]) -> Iterator[int]:
    for word in itertools.takewhile(lambda word: not word.startswith("-"), words):
        yield from (int(part) for part in word.replace(",", " ").split() if part.isdecimal())


def _of_config(text: str) -> Iterator[int]:
    try:
        said = json.loads(text)
    except ValueError:
        return
    if isinstance(said, dict):
        for key, value in said.items():
            yield from _of_key(key, json.dumps(value))


def _of_key(key: str, text: str) -> Iterator[int]:
    if key in (_SIZES_KEY, _LARGEST_KEY):
        yield from _numbers([text.strip("[]")])
