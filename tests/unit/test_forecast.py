"""What a session will take, by what earlier ones took, or else by defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pytest_pdserve.plan.forecast import Forecast
from pytest_pdserve.plan.forecast import PastSession
from pytest_pdserve.plan.forecast import TopologyWork
from pytest_pdserve.plan.forecast import forecast
from pytest_pdserve.report.phases import forecast_line
from pytest_pdserve.values.phases import Held
from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.phases import StartTimes
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.workload import Workload

MakeRecord = Callable[..., Record]

SHORT = Workload(input_len=512, output_len=256, num_prompts=100)
LONG = Workload(input_len=512, output_len=1024, num_prompts=100)
LATE = replace(SHORT, request_rate=0.5)
TIMES = SessionTimes(
    seconds={"load": 20, "client": 14, "stop": 6, "other tests": 8, "overhead": 4},
    starts=(
        StartTimes(topology="1p3d", ready_s=50, warmup_s=10),
        StartTimes(topology="dp", ready_s=80, warmup_s=4),
    ),
    runs=2,
    ended=True,
)


@pytest.fixture
def past(make_record: MakeRecord) -> PastSession:
    """A session of one cell on two topologies."""
    return PastSession(
        records=(
            make_record(workload=SHORT, timings_s=timings_of(load_s=12)),
            make_record(workload=SHORT, timings_s=timings_of(load_s=8), topology="dp"),
        ),
        times=TIMES,
    )


def timings_of(*, load_s: float, client_s: float = 5, warm_s: float = 1) -> dict[str, float]:
    return {
        "ready": 40.0,
        "warmup": 7.0,
        "warm": warm_s,
        "client": load_s + client_s,
        "bench": load_s,
    }


def made(*past: PastSession, starts: int = 1, held: Held | None = None, **work: Any) -> Forecast:
    """The forecast of one topology, ``1p3d`` where *work* says nothing else."""
    asked = TopologyWork(**{"topology": "1p3d", "runs": (SHORT,), **work}, starts=starts)
    return forecast([asked], past, client_kind="vllm-command", gpus=4, held=held or Held())


def test_a_cell_takes_what_it_took_with_its_start_its_client_and_its_part_of_the_rest(
    past: PastSession,
) -> None:
    found = made(past)
    assert found.start_s == 50 + 10 + 6 / 2
    assert found.load_s == 12
    in_run, ours, client_start = 5 + 1, 4 / 2, 14 - 2 * 5
    assert found.rest_s == in_run + ours + client_start
    assert (found.sessions, found.uses_defaults) == (1, False)
    assert found.total_s == 63 + 12 + 12


@pytest.mark.parametrize(
    ("work", "start_s", "load_s"),
    [
        ({"starts": 3, "runs": (SHORT,) * 3}, 3 * 63, 3 * 12),
        ({"topology": "dp"}, 84 + 3, 8),
        ({"topology": "2p2d"}, (60 + 84) / 2 + 3, (12 + 8) / 2),
        ({"runs": (LONG,)}, 63, 12 * 2),
        ({"runs": (LATE,)}, 63, 200),
        ({"starts": 0}, 0, 12),
    ],
    ids=[
        "a new cell on three starts",
        "another topology",
        "a topology that never ran",
        "a cell that never ran, by its tokens",
        "a cell that never ran, by its arrivals",
        "somebody else's servers",
    ],
)
def test_what_is_not_known_is_taken_from_what_is_nearest(
    work: dict[str, Any], start_s: float, load_s: float, past: PastSession
) -> None:
    found = made(past, **work)
    assert found.start_s == start_s
    assert found.load_s == pytest.approx(load_s)
    assert not found.uses_defaults


def test_other_tests_of_a_topology_take_what_they_took(past: PastSession) -> None:
    assert made(past, other_tests=True).rest_s == made(past).rest_s + 8 / 2


def test_the_newest_session_that_tells_counts(past: PastSession, make_record: MakeRecord) -> None:
    newer = PastSession(records=(make_record(workload=SHORT, timings_s=timings_of(load_s=30)),))
    found = made(newer, past)
    assert found.load_s == 30
    assert found.start_s == 40 + 7 + 3  # as its records say; the end, as the earlier session says
    assert found.sessions == 2
    assert made(newer, past, topology="dp").load_s == 8


def test_runs_with_another_client_count_where_there_are_none_with_this(
    past: PastSession, make_record: MakeRecord
) -> None:
    other = make_record(workload=SHORT, timings_s=timings_of(load_s=12, client_s=1))
    newer = PastSession(records=(replace(other, client_kind="precise"),))
    assert made(newer, past).rest_s == made(past).rest_s
    assert made(newer).rest_s == 1 + 1


def test_a_session_that_was_killed_says_nothing_of_what_it_did_not_end(past: PastSession) -> None:
    killed = replace(past, times=replace(TIMES, ended=False))
    assert made(killed).start_s == 60
    assert made(killed).rest_s == 6


def test_without_earlier_sessions_it_takes_the_defaults_and_says_so() -> None:
    found = made(starts=3, runs=(SHORT,) * 3, held=Held(nodes=4, gpus=32))
    assert forecast_line(found) == (
        "about 7.8 min (from defaults: 150 s a start, 5 s a run without its load, 15,000 tokens/s "
        "a GPU, 50 a CPU slot): 3 starts 7.5 min, 3 runs and all else 19 s (load 4 s); "
        "4.2 GPU-hours"
    )


def test_imported_results_say_nothing(make_record: MakeRecord) -> None:
    imported = PastSession(records=(make_record(workload=SHORT, timings_s={}),))
    assert made(imported).uses_defaults
    assert made(imported).sessions == 0


def test_the_line_of_a_forecast_says_where_it_comes_from(past: PastSession) -> None:
    held = Held(nodes=4, gpus=32, price_per_gpu_hour=2.5, currency="EUR")
    assert forecast_line(made(past, past, starts=2, runs=(SHORT,) * 2, held=held)) == (
        "about 2.8 min (from 1 earlier session): 2 starts 2.1 min, 2 runs and all else 44 s "
        "(load 24 s); 1.5 GPU-hours, 3.78 EUR"
    )
