"""CUDA graphs reach the largest batch of a sweep, or the sweep is refused."""

from __future__ import annotations

import pytest

from pytest_pdserve.plan.capture import capture_args
from pytest_pdserve.plan.capture import captured_sizes
from pytest_pdserve.plan.capture import check_captured
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.sweep import Sweep
from pytest_pdserve.values.system import ClusterSpec
from pytest_pdserve.values.system import ModelSpec
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload


def system(*args: str, prompts: int = 1024, at_once: int | None = None) -> System:
    return System(
        name="s",
        source="s.toml",
        description="d",
        cluster=ClusterSpec(nodes=4, gpus_per_node=1, device="gpu"),
        model=ModelSpec(path="m", serve_args=args),
        sweep=Sweep(num_prompts=prompts, max_concurrency=at_once),
    )


def load(prompts: int, at_once: int | None = None) -> Workload:
    return Workload(input_len=8, output_len=8, num_prompts=prompts, max_concurrency=at_once)


@pytest.mark.parametrize(
    ("args", "sizes"),
    [
        ((), ()),
        (("--cudagraph-capture-sizes", "1", "2", "256", "--port", "8000"), (1, 2, 256)),
        (("--cudagraph_capture_sizes", "1,2,4"), (1, 2, 4)),
        (("--max-cudagraph-capture-size=1024",), (1024,)),
        (("--cuda-graph-sizes", "512"), (512,)),
        (("-cc.cudagraph_capture_sizes", "[1, 2]"), (1, 2)),
        (("--compilation-config.max-cudagraph-capture-size=64",), (64,)),
        (("--compilation-config", '{"cudagraph_capture_sizes": [8, 16]}'), (8, 16)),
        (('-O={"max_cudagraph_capture_size": 32}',), (32,)),
        (("-O", "3"), ()),
    ],
)
def test_sizes_are_read_however_they_are_written(
    args: tuple[str, ...], sizes: tuple[int, ...]
) -> None:
    assert captured_sizes(args) == sizes


@pytest.mark.parametrize(
    ("args", "prompts", "at_once", "role", "planned"),
    [
        ((), 512, None, "decode", []),
        ((), 1024, None, "decode", ["--max-cudagraph-capture-size", "1024"]),
        ((), 1024, None, "aggregated", ["--max-cudagraph-capture-size", "1024"]),
        ((), 1024, None, "prefill", []),
        ((), 1024, 64, "decode", []),
        (("--max-num-seqs", "768"), 1024, None, "decode", ["--max-cudagraph-capture-size", "768"]),
        (("--cudagraph-capture-sizes", "1", "2"), 1024, None, "decode", []),
        (("--enforce-eager",), 1024, None, "decode", []),
    ],
)
def test_vllm_captures_what_the_sweep_needs_beyond_its_default(
    args: tuple[str, ...], prompts: int, at_once: int | None, role: str, planned: list[str]
) -> None:
    assert capture_args(system(*args, prompts=prompts, at_once=at_once), role) == planned


@pytest.mark.parametrize(
    ("args", "workload"),
    [
        ((), load(4096)),
        (("--cudagraph-capture-sizes", "256"), load(256)),
        (("--cudagraph-capture-sizes", "256"), load(512, 256)),
        (("--cudagraph-capture-sizes", "256", "--max-num-seqs", "256"), load(512)),
        (("--cudagraph-capture-sizes", "256", "--enforce-eager"), load(512)),
    ],
)
def test_a_load_within_the_sizes_is_taken(args: tuple[str, ...], workload: Workload) -> None:
    check_captured(workload, system(*args), Topology.parse("2p2d"))


@pytest.mark.parametrize(("topology", "role"), [("2p2d", "decode"), ("dp", "aggregated")])
def test_a_larger_batch_than_the_captured_is_refused(topology: str, role: str) -> None:
    short = system("--cudagraph-capture-sizes", "1", "256")
    with pytest.raises(ConfigError) as caught:
        check_captured(load(512), short, Topology.parse(topology))
    assert str(caught.value) == (
        "workload random-8-8-n512 of 's': up to 512 requests generate at once on one "
        f"{role} instance, but CUDA graphs are captured up to 256, and larger batches run several "
        "times slower; capture sizes up to 512 in serve_args, or lower max_concurrency or "
        "--max-num-seqs"
    )
