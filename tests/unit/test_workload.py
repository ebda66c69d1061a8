"""Workloads and the article's two panels."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.workload import Sweep
from pytest_pdserve.values.workload import Workload

PLAIN = Workload(input_len=512, output_len=256, num_prompts=1024)


@pytest.mark.parametrize(
    ("workload", "name"),
    [
        (PLAIN, "random-512-256"),
        (replace(PLAIN, request_rate=8.0), "random-512-256-rate8"),
        (replace(PLAIN, request_rate=0.5, dataset="sharegpt"), "sharegpt-512-256-rate0.5"),
    ],
)
def test_a_workload_is_named_for_what_it_asks(workload: Workload, name: str) -> None:
    assert workload.id == name
    assert workload.dataset + "-" + workload.lengths == name


def test_seeds_differ_between_cells_and_repeats_and_nothing_else() -> None:
    other = replace(PLAIN, output_len=512)
    seeds = [
        PLAIN.seed(0),
        PLAIN.seed(1),
        other.seed(0),
        replace(PLAIN, panels=("decode",)).seed(0),
    ]
    assert len(set(seeds)) == 3
    assert seeds[0] == seeds[3]


def test_the_articles_panels_share_a_cell() -> None:
    cells = {w.lengths: w.panels for w in Sweep().workloads()}
    assert cells == {
        "512-256": ("prefill", "decode"),
        "1024-256": ("prefill",),
        "2048-256": ("prefill",),
        "4096-256": ("prefill",),
        "512-512": ("decode",),
        "512-1024": ("decode",),
        "512-2048": ("decode",),
        "512-4096": ("decode",),
    }


def test_a_scaled_sweep_remembers_the_articles_lengths() -> None:
    cells = Sweep(length_divisor=16, num_prompts=4, request_rate=2.0).workloads()
    assert (cells[1].input_len, cells[1].output_len) == (64, 16)
    assert cells[1].article_lengths == (1024, 256)
    assert {(w.num_prompts, w.request_rate) for w in cells} == {(4, 2.0)}


def test_a_length_that_cannot_be_scaled_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep\.length_divisor = 3 does not divide length 512"):
        Sweep(length_divisor=3).workloads()


@given(
    st.builds(
        Workload,
        input_len=st.integers(1, 10**6),
        output_len=st.integers(1, 10**6),
        num_prompts=st.integers(1, 10**6),
        request_rate=st.floats(0, exclude_min=True, allow_nan=False),
        max_concurrency=st.none() | st.integers(1, 999),
        dataset=st.sampled_from(["random", "sharegpt"]),
        options=st.dictionaries(st.text(), st.text()).map(lambda d: tuple(d.items())),
        panels=st.sampled_from([(), ("prefill",), ("prefill", "decode")]),
        article_lengths=st.none() | st.tuples(st.integers(1), st.integers(1)),
    )
)
def test_a_workload_is_read_back_from_json(workload: Workload) -> None:
    written = json.dumps(workload.to_json(), allow_nan=False)
    assert Workload.from_json(json.loads(written)) == workload


def test_an_infinite_rate_is_written_as_vllm_does() -> None:
    assert PLAIN.to_json()["request_rate"] == "inf"
    assert math.isinf(Workload.from_json(PLAIN.to_json()).request_rate)
