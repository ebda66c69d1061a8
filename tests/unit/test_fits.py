"""Loads that are longer than instances take are refused, with both numbers."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest

from pytest_pdserve.plan.bench import extra_requests
from pytest_pdserve.plan.fits import check_fits
from pytest_pdserve.plan.fits import check_sweep_fits
from pytest_pdserve.plan.fits import longest_request
from pytest_pdserve.plan.fits import tokens_of
from pytest_pdserve.serving.provenance import longest_model_len
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.sweep import Sweep
from pytest_pdserve.values.system import BenchSpec
from pytest_pdserve.values.system import ClusterSpec
from pytest_pdserve.values.system import ModelSpec
from pytest_pdserve.values.system import RoleServing
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

LOAD = Workload(input_len=512, output_len=256, num_prompts=4)


def system(
    *args: str,
    bench: tuple[str, ...] = (),
    decode: tuple[str, ...] = (),
    sweep: Sweep | None = None,
) -> System:
    return System(
        name="s",
        source="s.toml",
        description="d",
        cluster=ClusterSpec(nodes=4, gpus_per_node=1),
        model=ModelSpec(
            path="m", serve_args=args, roles={"decode": RoleServing(serve_args=decode)}
        ),
        bench=BenchSpec(args=bench),
        sweep=sweep or Sweep(input_lens=(512,), output_lens=(256, 512)),
    )


@pytest.mark.parametrize(
    ("said", "tokens"),
    [("4096", 4096), ("4k", 4000), ("4K", 4096), ("1.5k", 1500), ("auto", None), ("", None)],
)
def test_a_length_is_read_as_vllm_does(said: str, tokens: int | None) -> None:
    assert tokens_of(("--max-model-len", said), "--max-model-len") == tokens
    assert tokens_of((f"--max-model-len={said}",), "--max-model-len") == tokens


@pytest.mark.parametrize(
    ("options", "bench", "longest"),
    [
        ({}, (), 768),
        ({"random-range-ratio": "0.5"}, (), 1152),
        ({"random-prefix-len": "64"}, (), 832),
        ({}, ("--random-prefix-len=64",), 832),
        ({"random-range-ratio": "{}"}, (), 768),
    ],
)
def test_the_longest_request_of_a_load(
    options: Mapping[str, str], bench: tuple[str, ...], longest: int
) -> None:
    load = Workload(input_len=512, output_len=256, num_prompts=4, options=options)
    assert longest_request(load, system(bench=bench)) == longest


@pytest.mark.parametrize(
    ("bench", "version", "extra"),
    [
        ((), "0.32.0", 0),
        ((), "0.14.0", 0),
        ((), "0.13.2", 1),  # it asked by itself whether the endpoint is ready
        ((), None, 0),
        (("--ready-check-timeout-sec", "0"), "0.12.0", 0),
        (("--ready-check-timeout-sec=60",), "0.32.0", 1),
        (("--num-warmups", "2"), "0.32.0", 2),
        (("--num-warmups", "2"), "0.11.0", 3),
        (("--num-warmups", "some"), "0.32.0", 0),
    ],
)
def test_requests_that_the_client_sends_by_itself(
    bench: tuple[str, ...], version: str | None, extra: int
) -> None:
    own = system(bench=bench)
    assert extra_requests(LOAD, own, version, kind="vllm-command") == extra
    assert extra_requests(LOAD, own, version, kind="precise") == 0


def test_a_data_set_with_lengths_of_its_own_is_not_refused() -> None:
    load = Workload(num_prompts=4, dataset="sharegpt")
    assert longest_request(load, system()) is None
    check_fits(load, system(), 1, "somebody")


@pytest.mark.parametrize(
    ("args", "decode", "topology", "said"),
    [
        (("--max-model-len", "1024"), (), "1p3d", None),
        (
            ("--max-model-len", "1000"),
            (),
            "dp",
            "workload random-512-512-n1024 of 's': a request has up to 1024 tokens, but instances "
            "take 1000 (--max-model-len of aggregated); shorten prompts or outputs, or raise that "
            "limit",
        ),
        (("--max-model-len", "2048"), ("--max-model-len=900",), "1p3d", "(--max-model-len of dec"),
        (("--max-model-len", "2048"), ("--max-model-len=900",), "dp", None),
        (
            ("--num-gpu-blocks-override", "63", "--block-size", "16"),
            (),
            "dp",
            "but instances take 1008 (--num-gpu-blocks-override x --block-size of aggregated)",
        ),
        ((), (), "dp", None),
        (("--max-model-len", "-1"), (), "dp", None),  # as long as fits
        (("--max-model-len", "513"), ("--max-model-len=2048",), "1p3d", None),  # one token there
        (
            ("--max-model-len", "512"),
            ("--max-model-len=2048",),
            "1p3d",
            "has up to 513 tokens, but instances take 512 (--max-model-len of prefill)",
        ),
    ],
)
def test_a_sweep_that_does_not_fit_is_refused(
    args: tuple[str, ...], decode: tuple[str, ...], topology: str, said: str | None
) -> None:
    asked = system(*args, decode=decode)
    if said is None:
        check_sweep_fits(asked, Topology.parse(topology))
        return
    with pytest.raises(ConfigError) as refused:
        check_sweep_fits(asked, Topology.parse(topology))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("status", "body", "limit"),
    [
        (200, '{"data": [{"id": "m", "max_model_len": 4096}]}', 4096),
        (200, '{"data": [{"id": "m", "max_model_len": 1e999}]}', None),
        (200, f'{{"data": [{{"id": "m", "max_model_len": "{"9" * 5000}"}}]}}', None),
        (200, '{"data": [{"id": "m"}]}', None),
        (200, '{"data": []}', None),
        (200, "[]", None),
        (404, "not here", None),
    ],
)
def test_what_an_endpoint_takes(status: int, body: str, limit: int | None) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text=body))
    with httpx.Client(transport=transport) as client:
        assert longest_model_len(client, "http://node0:8000") == limit
