"""Names of workloads in one table: what all rows share is said once, and no two are the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from pytest_pdserve.report.names import short_names
from pytest_pdserve.values.sweep import Sweep
from pytest_pdserve.values.workload import UNKNOWN
from pytest_pdserve.values.workload import Workload

CONFUSING = [
    Workload(dataset="a-rate8", num_prompts=16),
    Workload(dataset="a", num_prompts=16, request_rate=8.0),
]
"""Both ``a-rate8`` without what they share."""
PLAIN = Workload(input_len=512, output_len=256, num_prompts=16, max_concurrency=4)


def named(*changes: dict[str, Any]) -> tuple[str, list[str]]:
    """What is shared by the loads of *changes*, and the name of each."""
    loads = [replace(PLAIN, **each) for each in changes]
    names = short_names(loads)
    return names.shared, [names.of(load) for load in loads]


def test_a_sweeps_rows_have_their_lengths_and_the_rest_is_said_once() -> None:
    sweep = Sweep(num_prompts=16, max_concurrency=4, input_lens=(512, 1024), output_lens=(256, 512))
    names = short_names(sweep.workloads())
    assert names.shared == "random, n16, c4"
    assert [names.of(load) for load in sweep.workloads()] == ["512-256", "1024-256", "512-512"]


@pytest.mark.parametrize(
    ("changes", "shared", "names"),
    [
        (
            [{"request_rate": 8.0}, {"request_rate": 0.5}],
            "random, 512-256, n16, c4",
            ["rate8", "rate0.5"],
        ),
        (
            [{}, {"request_rate": 8.0}],
            "random, 512-256, n16, c4",
            ["defaults", "rate8"],
        ),
        (
            [{"max_concurrency": None, "num_prompts": 8}, {"dataset": "sonnet"}],
            "512-256",
            ["random-n8", "sonnet-n16-c4"],
        ),
        (
            [{"options": {"goodput": "ttft:100"}}, {"options": {"goodput": "ttft:200"}}],
            "random, 512-256, n16, c4",
            ["goodput=ttft%3A100", "goodput=ttft%3A200"],
        ),
        (
            [
                {"options": {"goodput": "1", "seeded": ""}},
                {"options": {"goodput": "1"}, "num_prompts": 8},
            ],
            "random, 512-256, c4, goodput=1",
            ["n16-seeded=", "n8"],
        ),
        (
            [{"options": UNKNOWN, "num_prompts": 8}, {"options": UNKNOWN}],
            "random, 512-256, c4, unknown",
            ["n8", "n16"],
        ),
        (
            [{}, {"num_prompts": 8}, {"request_rate": 8.0}],
            "random, 512-256, c4",
            ["n16", "n8", "n16-rate8"],
        ),
    ],
    ids=[
        *("rates", "one rate", "little shared", "an option's values", "an option of one"),
        *("options unknown", "three"),
    ],
)
def test_a_name_is_what_is_left_without_what_all_share(
    changes: list[dict[str, Any]], shared: str, names: list[str]
) -> None:
    assert named(*changes) == (shared, names)


@pytest.mark.parametrize("rows", [1, 3])
def test_one_workload_alone_has_its_id_however_many_topologies_ran_it(rows: int) -> None:
    assert named(*[{}] * rows) == ("", ["random-512-256-n16-c4"] * rows)


def test_no_workload_has_no_name() -> None:
    names = short_names([])
    assert (names.shared, names.names) == ("", {})


def test_loads_with_nothing_in_common_have_their_ids() -> None:
    other = {"input_len": 64, "num_prompts": 8, "max_concurrency": 1, "dataset": "sonnet"}
    shared, names = named({}, other)
    assert (shared, names) == ("", ["random-512-256-n16-c4", "sonnet-64-256-n8-c1"])


def test_ids_are_told_whole_where_short_names_would_be_the_same() -> None:
    names = short_names(CONFUSING)
    assert names.shared == ""
    assert [names.of(load) for load in CONFUSING] == ["a-rate8-n16", "a-n16-rate8"]


LOADS = st.builds(
    Workload,
    num_prompts=st.integers(1, 2),
    request_rate=st.sampled_from([None, 1.0, 2.0, UNKNOWN]),
    max_concurrency=st.none() | st.integers(1, 2),
    dataset=st.sampled_from(["a", "a-rate2", "a-n1", "a-c1", "a-n1-rate2", "defaults"]),
    options=st.dictionaries(st.sampled_from("ab"), st.sampled_from(["", "1", "1-b"]), max_size=2),
)


@given(st.lists(LOADS, max_size=6))
@example(CONFUSING)
def test_no_two_loads_of_a_table_have_the_same_name(loads: list[Workload]) -> None:
    names = short_names(loads)
    assert len({names.of(load) for load in loads}) == len({load.id for load in loads})
