"""Which cells of two sides have the same load, may have it, or have not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from pytest_pdserve.judge.cell_pairs import Cells
from pytest_pdserve.judge.cell_pairs import load_differences
from pytest_pdserve.judge.cell_pairs import match_cells
from pytest_pdserve.values.measurements import MeasuredCell
from pytest_pdserve.values.measurements import MeasuredRun
from pytest_pdserve.values.workload import RampUp
from pytest_pdserve.values.workload import Workload

LOAD = Workload(input_len=512, output_len=256, num_prompts=100, request_rate=8.0)
IMPORTED = replace(LOAD, options="unknown")
COUNTED = Workload(
    num_prompts=100,
    request_rate=8.0,
    dataset="unknown",
    options="unknown",
    counted_tokens=(51200, 25600),
)
RAMP = RampUp(strategy="linear", start_rps=1, end_rps=8)


def cells(*loads: Workload, topology: str = "1p3d") -> Cells:
    found = [
        MeasuredRun(
            where="here",
            topology=topology,
            workload=load,
            workload_id=load.id,
            evidence=("s",),
            client="vllm",
            metrics={},
        )
        for load in loads
    ]
    return {run.key: MeasuredCell(runs=(run,)) for run in found}


@pytest.mark.parametrize(
    ("other", "unlike"),
    [
        (replace(LOAD, request_rate=16.0), "request rate: 8 | 16"),
        (replace(LOAD, request_rate=None), "request rate: 8 | all at once"),
        (replace(LOAD, num_prompts=200), "prompts: 100 | 200"),
        (replace(LOAD, max_concurrency=4), "concurrency: no bound | 4"),
        (replace(LOAD, burstiness=2.0), "burstiness: 1 | 2"),
        (replace(LOAD, input_len=1024), "prompt length: 512 | 1024"),
        (replace(LOAD, output_len=128), "output length: 256 | 128"),
        (replace(LOAD, options={"temperature": "0"}), "option temperature: not set | 0"),
        (
            replace(LOAD, request_rate=None, ramp_up=RAMP),
            "ramp-up: none | linear from 1 to 8 req/s",
        ),
        (
            replace(COUNTED, counted_tokens=(102400, 25600)),
            "prompt tokens of a request: 512 | 1024",
        ),
    ],
)
def test_what_is_another_is_said(other: Workload, unlike: str) -> None:
    assert unlike in load_differences(LOAD, other).unlike


def test_equal_loads_do_not_differ() -> None:
    found = load_differences(LOAD, LOAD)
    assert (found.unlike, found.unsure) == ((), ())


def test_what_a_file_does_not_say_may_differ() -> None:
    assert load_differences(LOAD, IMPORTED).unlike == ()
    assert load_differences(LOAD, IMPORTED).unsure == ("options: none | unknown",)
    found = load_differences(COUNTED, LOAD)
    assert found.unlike == ()
    assert "prompt length: unknown | 512" in found.unsure


def test_outputs_that_end_by_themselves_are_no_other_load() -> None:
    other = replace(COUNTED, counted_tokens=(51200, 25001))
    found = load_differences(COUNTED, other)
    assert found.unlike == ()
    assert "output tokens in all: 25600 | 25001" in found.unsure


def test_cells_are_matched_by_topology_and_load() -> None:
    longer = replace(LOAD, input_len=1024)
    matched = match_cells(
        {**cells(LOAD, longer), **cells(LOAD, topology="dp")}, cells(longer, topology="dp")
    )
    assert matched.pairs == ()
    matched = match_cells(
        {**cells(LOAD, longer), **cells(LOAD, topology="dp")},
        {**cells(longer), **cells(longer, topology="dp")},
    )
    assert [pair.a.workload for pair in matched.pairs] == [longer]
    assert [cell.topology for cell in matched.only_a] == ["1p3d", "dp"]
    assert [cell.topology for cell in matched.only_b] == ["dp"]
    assert matched.unlike == ()


@pytest.mark.parametrize(
    ("a", "b", "pairs"),
    [
        (cells(LOAD), cells(IMPORTED), 1),
        (cells(LOAD), cells(IMPORTED, topology="unknown"), 1),
        (cells(LOAD), cells(LOAD, topology="dp"), 1),
        (
            {**cells(LOAD), **cells(LOAD, topology="dp")},
            cells(IMPORTED, topology="unknown"),
            0,
        ),
        (
            cells(LOAD),
            {**cells(IMPORTED), **cells(replace(IMPORTED, burstiness="unknown"))},
            0,
        ),
    ],
    ids=[
        "options unknown",
        "topology unknown",
        "one topology each",
        "two topologies that it may be",
        "two loads that it may be",
    ],
)
def test_a_cell_that_is_partly_unknown_has_the_only_counterpart_that_it_may_be(
    a: Cells, b: Cells, pairs: int
) -> None:
    found = match_cells(a, b)
    assert len(found.pairs) == pairs
    assert bool(found.unlike) is (pairs == 0)


def test_single_cells_of_unlike_loads_are_a_pair_that_says_so() -> None:
    matched = match_cells(cells(LOAD), cells(replace(LOAD, request_rate=16.0)))
    assert len(matched.pairs) == 1
    assert matched.unlike == ("request rate: 8 | 16",)


def test_several_unlike_loads_are_told_by_what_they_have_in_common() -> None:
    longer = replace(LOAD, input_len=1024)
    faster = [replace(load, request_rate=16.0) for load in (LOAD, longer)]
    matched = match_cells(cells(LOAD, longer), cells(*faster))
    assert matched.pairs == ()
    assert matched.unlike == ("request rate: 8 | 16",)


def test_cells_without_anything_in_common_are_unlike_too() -> None:
    a: Mapping[tuple[str, str], MeasuredCell] = cells(LOAD, replace(LOAD, input_len=1024))
    b = cells(replace(LOAD, output_len=1), replace(LOAD, output_len=2))
    assert match_cells(a, b).unlike == (
        "no cell has the topology and load of a cell of the other side",
    )
