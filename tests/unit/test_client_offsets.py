"""How far off a client is at a load, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.judge.client_offset import check_client_offset
from pytest_pdserve.report.client_offsets import offset_lines
from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.results.client_offsets import offsets_path
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.serving.client import max_in_flight
from pytest_pdserve.study.client_calibration import default_streams
from pytest_pdserve.values.client_offsets import ClientOffsets
from pytest_pdserve.values.client_offsets import OffsetAt
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

FOUND = ClientOffsets(
    client="vllm",
    version="0.32.0",
    measured_on="2026-11-28",
    machine={"cores": "2"},
    rows=(
        OffsetAt(streams=1, off_ms={"mean_ttft_ms": 0.8}),
        OffsetAt(streams=64, off_ms={"mean_ttft_ms": 33.4, "mean_itl_ms": 0.01}),
    ),
)


@pytest.mark.parametrize(
    ("streams", "ttft"), [(1, 0.8), (2, 33.4), (64, 33.4), (65, None)], ids=str
)
def test_a_load_takes_the_next_larger_number_of_streams(streams: int, ttft: float | None) -> None:
    assert FOUND.at(streams).get("mean_ttft_ms") == ttft


@pytest.mark.parametrize(
    ("load", "streams"),
    [
        ({"num_prompts": 16}, 16),
        ({"num_prompts": 16, "max_concurrency": 4}, 4),
        ({"num_prompts": 16, "max_concurrency": 64}, 16),
    ],
    ids=["all at once", "bounded", "a bound above all"],
)
def test_requests_in_flight_at_once(load: Mapping[str, int], streams: int) -> None:
    asked: dict[str, Any] = {**load}
    assert max_in_flight(Workload(input_len=8, output_len=8, **asked)) == streams


@pytest.mark.parametrize(
    ("off", "said"),
    [
        ({}, []),
        ({"mean_ttft_ms": 0.5}, []),
        ({"mean_ttft_ms": 20.0, "mean_itl_ms": 0.01}, ["mean_ttft_ms +20.0 of 100.0 ms (+20%)"]),
        ({"mean_ttft_ms": -20.0}, ["mean_ttft_ms -20.0 of 100.0 ms (-20%)"]),
    ],
    ids=["not measured", "below a hundredth", "too much", "too little"],
)
def test_what_is_worth_a_note(
    off: Mapping[str, float], said: list[str], make_result: Callable[..., BenchResult]
) -> None:
    seen = Observation(
        topology=Topology.parse("dp"),
        workload=Workload(input_len=8, output_len=8, num_prompts=4),
        result=make_result(raw={"mean_ttft_ms": 100.0, "mean_itl_ms": 5.0}),
        client_offset_ms=off,
    )
    found = list(check_client_offset(seen))
    assert [each.severity for each in found] == ["note"] * len(said)
    assert all(text in each.message for text, each in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("host", "same"),
    [
        ({"cores": "2", "gpu": "H200"}, True),
        ({"endpoint": "http://10.0.0.7"}, True),
        ({"cores": "64"}, False),
    ],
    ids=["the same machine", "not known", "another machine"],
)
def test_offsets_hold_on_the_machine_that_they_were_measured_on(
    host: Mapping[str, str], same: bool
) -> None:
    assert FOUND.is_of(host) is same


@pytest.mark.parametrize(
    ("name", "streams", "folder"),
    [
        ("local-cpu", (1, 4, 64, 256, 1024), "state/baselines/local-cpu"),
        ("p5-efa", (1, 64, 256, 1024), "project/baselines/p5-efa"),
    ],
)
def test_a_client_is_measured_at_the_systems_own_concurrency_and_kept_with_its_baseline(
    name: str, streams: tuple[int, ...], folder: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    system = load_system(name, SHIPPED)
    assert default_streams(system) == streams
    path = offsets_path(system, tmp_path / "project", "vllm")
    kept = str(path.parent).replace(str(state_folder()), f"{tmp_path}/state")
    assert (kept, path.name) == (f"{tmp_path}/{folder}", "client.vllm.json")


def test_the_table_has_a_row_for_each_number() -> None:
    assert [line.split() for line in offset_lines(FOUND)][1:] == [
        ["streams", "mean_ttft_ms", "mean_itl_ms"],
        [offset_lines(FOUND)[2].strip()],
        ["1", "+0.80", "-"],
        ["64", "+33.40", "+0.01"],
    ]
