"""Where the time of a session goes, by a clock that the tests turn."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.slurm.options import Preflight
from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.report.phases import phase_line
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.store import load_times
from pytest_pdserve.session.phases import SessionPhases
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.phases import Held
from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.phases import StartTimes
from pytest_pdserve.values.phases import duration_text
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.system import System
from tests.support.records import SESSION

MakeRecord = Callable[..., Record]


@dataclass(kw_only=True)
class Told:
    """Phases of a session, and the clock that they are told by."""

    now: float = 0.0
    store: RunStore | None = None
    phases: SessionPhases = field(init=False)

    def __post_init__(self) -> None:
        self.phases = SessionPhases(self.store, clock=lambda: self.now)

    def takes(self, seconds: float) -> None:
        self.now += seconds

    @contextlib.contextmanager
    def block(self, enter_s: float, leave_s: float, value: Any = None) -> Iterator[Any]:
        """Something that takes a while to enter, and to leave."""
        self.takes(enter_s)
        yield value
        self.takes(leave_s)

    @property
    def times(self) -> SessionTimes:
        return self.phases.times


class Warm:
    """Servers that are up."""

    timings_s = {"ready": 50.0, "warmup": 20.0}  # noqa: RUF012


@dataclass
class Nodes:
    """Nodes that an allocation says to have."""

    gpu: str = ""
    queued_s: float | None = None
    endpoint: Any = None
    hosts: tuple[str, ...] = ("h1", "h2", "h3", "h4")

    def describe_nodes(self) -> dict[str, str]:
        return {"cpu": "Xeon", **({"gpu": self.gpu} if self.gpu else {})}

    def describe(self) -> dict[str, Any]:
        return {} if self.queued_s is None else {"queued_s": self.queued_s}


@pytest.fixture
def told() -> Told:
    return Told()


def test_each_moment_counts_for_the_innermost_phase_and_else_for_the_session_itself(
    told: Told,
) -> None:
    told.takes(1)
    with told.phases.of("other tests"):
        told.takes(10)
        with told.phases.of("start"):
            told.takes(100)
        told.takes(20)
    told.takes(2)
    assert told.times.seconds == {"overhead": 3, "other tests": 30, "start": 100}
    assert told.times.total_s == told.now


def test_a_start_is_told_from_its_warm_up_and_from_the_end_of_the_servers(told: Told) -> None:
    with told.phases.serving("1p3d", told.block(75, 5, Warm())):
        told.takes(1)
    assert told.times.seconds == {"start": 55, "warm-up": 20, "overhead": 1, "stop": 5}
    assert told.times.starts == (StartTimes(topology="1p3d", ready_s=55, warmup_s=20),)


def test_servers_that_do_not_come_up_have_taken_their_time_and_are_no_start(told: Told) -> None:
    @contextlib.contextmanager
    def failing() -> Iterator[Any]:
        told.takes(30)
        raise ClientError("it ended")
        yield

    with pytest.raises(ClientError), told.phases.serving("dp", failing()):
        told.takes(1)
    assert told.times.seconds == {"start": 30}
    assert told.times.starts == ()


def test_servers_that_are_ended_by_an_error_take_their_time_to_end(told: Told) -> None:
    @contextlib.contextmanager
    def slow() -> Iterator[Any]:
        try:
            yield Warm()
        finally:
            told.takes(15)

    with pytest.raises(ClientError), told.phases.serving("dp", slow()):
        raise ClientError("it hung")
    assert told.times.seconds == {"stop": 15}


def test_a_run_is_divided_as_its_record_says(told: Told, make_record: MakeRecord) -> None:
    record = make_record(timings_s={"ready": 50.0, "warm": 3.0, "client": 30.0, "bench": 20.0})

    def measure() -> tuple[Record, Path]:
        told.takes(35)
        return record, Path("x")

    assert told.phases.measured(measure) == (record, Path("x"))
    assert told.times.seconds == {"load": 20, "client": 10, "warm-up": 3, "overhead": 2}
    assert told.times.runs == 1


def test_a_run_that_leaves_no_record_is_told_apart(told: Told) -> None:
    def measure() -> tuple[Record, Path]:
        told.takes(35)
        raise ClientError("it hung")

    with pytest.raises(ClientError):
        told.phases.measured(measure)
    assert told.times.seconds == {"failed runs": 35}
    assert told.times.runs == 0


def test_reruns_are_counted_once_whatever_their_phases(told: Told) -> None:
    with told.phases.rerunning(), told.phases.of("start"):
        told.takes(10)
        with told.phases.rerunning():
            told.takes(5)
    with told.phases.of("queue"):
        told.takes(100)
    told.takes(2)
    assert (told.times.rerun_s, told.times.forecastable_s) == (15, 2)


@pytest.mark.parametrize(
    ("nodes", "held", "seconds"),
    [
        (Nodes(gpu="H100"), Held(nodes=4, gpus=32, seconds=60), {"queue": 300, "overhead": 55}),
        (Nodes(), Held(nodes=4, seconds=60), {"queue": 300, "overhead": 55}),
        (
            Nodes(gpu="H100", queued_s=280.0),
            Held(nodes=4, gpus=32, seconds=80),
            {"queue": 280, "overhead": 75},
        ),
        (Nodes(endpoint="http://h1"), Held(seconds=60), {"queue": 300, "overhead": 55}),
    ],
    ids=["GPUs", "no GPUs", "prepared after the queue", "somebody else's servers"],
)
def test_nodes_are_held_from_when_they_are_there_until_they_are_given_back(
    nodes: Any, held: Held, seconds: dict[str, float], told: Told, p5_efa: System
) -> None:
    p5_efa = replace(p5_efa, tables={})  # nothing says beforehand that there are GPUs
    with told.phases.holding(p5_efa, told.block(300, 5, nodes)):
        told.takes(55)
    assert told.times.seconds == {**seconds, "stop": 5}
    assert told.times.held == held


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (Held(nodes=4, gpus=32, seconds=1080), "9.6 GPU-hours"),
        (
            Held(nodes=4, gpus=32, seconds=1080, price_per_gpu_hour=2.5, currency="EUR"),
            "9.6 GPU-hours, 24.00 EUR",
        ),
        (Held(nodes=4, seconds=1800), "2 node-hours"),
        (Held(nodes=1, seconds=1800), ""),
        (Held(seconds=1800), ""),
    ],
    ids=["GPUs", "with a price", "nodes without GPUs", "one machine without", "nothing held"],
)
def test_what_was_held_is_said_in_hours(held: Held, words: str) -> None:
    assert held.text == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (119, "119 s"), (1092, "18.2 min"), (9000, "2.5 h")]
)
def test_a_duration_is_said_in_the_unit_that_people_use(seconds: float, words: str) -> None:
    assert duration_text(seconds) == words


def test_the_summary_has_a_line_of_phases_the_longest_first_and_overhead_last() -> None:
    times = SessionTimes(
        seconds={"overhead": 55, "queue": 22, "start": 240, "load": 775, "stop": 2},
        rerun_s=180,
        held=Held(nodes=4, gpus=32, seconds=1080),
        forecast_s=900,
    )
    assert phase_line(times) == (
        "18.2 min: load 71 %, start 22 %, queue 2 %, overhead 5 %; of this, 3.0 min for reruns; "
        "9.6 GPU-hours; forecast 15.0 min, it took 14.9 min without queue and reruns"
    )


def test_the_times_of_a_session_that_is_killed_are_those_after_its_last_start_or_run(
    tmp_path: Path,
) -> None:
    told = Told(store=RunStore(folder=tmp_path, session=SESSION))
    with told.phases.serving("dp", told.block(75, 5, Warm())):
        told.takes(1)
    kept = load_times(tmp_path)
    assert kept is not None
    assert (kept.seconds, kept.ended) == ({"start": 55, "warm-up": 20}, False)
    told.phases.end()
    assert load_times(tmp_path) == replace(told.times, ended=True)
    assert json.loads((tmp_path / "phases.json").read_text())["schema_version"] == 1


@pytest.mark.parametrize(
    ("tables", "has_gpus"),
    [
        ({"preflight": Preflight(gpus=8)}, True),
        ({"preflight": Preflight(gpus=0)}, False),
        ({"slurm": SlurmSpec(gres="gpu:8")}, True),
        ({}, None),
    ],
    ids=["preflight", "preflight without", "gres", "nobody says"],
)
def test_slurm_nodes_have_gpus_where_the_system_file_asks_for_some(
    tables: dict[str, Any], has_gpus: bool | None, p5_efa: System
) -> None:
    assert backend_of(p5_efa).has_gpus(replace(p5_efa, tables=tables)) is has_gpus
