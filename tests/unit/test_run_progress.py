"""How far a run is, and what it hangs on, by what instances count meanwhile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.run_progress import Rate
from pytest_pdserve.serving.run_progress import RunProgress
from pytest_pdserve.serving.run_progress import RunState
from pytest_pdserve.serving.run_progress import progress_text
from pytest_pdserve.serving.scrape import Counters
from pytest_pdserve.serving.stalls import EngineWork
from pytest_pdserve.serving.stalls import Stalls
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import StuckError
from pytest_pdserve.values.workload import Workload

WORKLOAD = Workload(input_len=512, output_len=256, num_prompts=1024)


def run_of(
    finished: Mapping[str, float],
    *,
    before: float = 0.0,
    still_s: float = 0.0,
    limit_s: float = 100.0,
) -> RunProgress:
    """A run of instances that have finished so many requests.

    :param before: what each had finished before it.
    :param still_s: for how long each has made no token, with a request running.
    """
    stalls, now = Stalls(), time.monotonic()
    for name, count in finished.items():
        for at in (now - still_s, now):
            stalls.add_sample(name, at, {"0": EngineWork(1.0, 1.0 if still_s else 0.0, 0.0, count)})
    return RunProgress(
        workload=WORKLOAD,
        instances=[
            Server(name=name, role=name.partition("[")[0], url="http://x", process=None)
            for name in (*finished, "decode[9]")
        ],
        before={name: Counters(counts={"requests": before}) for name in (*finished, "decode[9]")},
        stalls=stalls,
        limit_s=limit_s,
    )


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (
            run_of({"prefill[0]": 900.0, "decode[0]": 400.0, "decode[1]": 240.0}),
            "random-512-256-n1024: 640 of 1,024 requests",
        ),
        (run_of({"aggregated[0]": 53.0}, before=50.0), "random-512-256-n1024: 3 of 1,024 requests"),
        (run_of({"aggregated[0]": 2e3}), "random-512-256-n1024: 1,024 of 1,024 requests"),
        (run_of({}), "random-512-256-n1024: measuring"),
    ],
    ids=["prefill does not count", "since the run began", "a request of the client's own", "blind"],
)
def test_how_far_a_run_is_is_told_by_what_instances_have_finished(
    run: RunProgress, words: str
) -> None:
    assert str(run) == words


@pytest.mark.parametrize(
    ("still_s", "kind"),
    [(0.0, ClientError), (5.0, ClientError), (15.0, StuckError)],
    ids=["idle", "a pause", "stuck"],
)
def test_a_run_hangs_on_an_instance_that_makes_no_token_for_a_tenth_of_its_time(
    still_s: float, kind: type[ClientError]
) -> None:
    error = run_of({"decode[0]": 3.0}, still_s=still_s).timeout_error("it did not end", "its log")
    assert type(error) is kind


def test_a_run_that_hangs_says_what_is_missing_before_the_clients_log() -> None:
    error = run_of({"decode[0]": 3.0}).timeout_error("it did not end", "its log")
    assert str(error) == (
        "it did not end; 1,021 of 1,024 requests have no answer; decode[0] has no request; its log"
    )


def test_a_run_of_instances_that_show_nothing_hangs_with_the_clients_log_alone() -> None:
    assert str(run_of({}).timeout_error("it did not end", "its log")) == "it did not end; its log"


def far(**fields: Any) -> RunState:
    """640 of 1,024 requests, and half of the tokens."""
    known = {
        "workload": "w",
        "finished": 640,
        "num_prompts": 1024,
        "generated_tokens": 500.0,
        "total_tokens": 1000.0,
    }
    return RunState(**{**known, **fields})


@pytest.mark.parametrize(
    ("state", "tok_s", "words"),
    [
        (far(), 3214.4, "640/1,024 requests, 3,214 tok/s, 1:10 left"),
        (far(total_tokens=None), 10.0, "640/1,024 requests, 10 tok/s, 0:42 left"),
        (far(finished=0, generated_tokens=0.0), None, "0/1,024 requests"),
        (
            far(finished=1025, generated_tokens=1010.0),
            0.0,
            "1,024/1,024 requests, 0 tok/s, 0:00 left",
        ),
        (far(finished=None), None, "70 s"),
    ],
    ids=["by tokens", "of unknown lengths", "at the start", "more than asked", "blind"],
)
def test_a_bar_says_requests_done_tokens_and_the_time_left(
    state: RunState, tok_s: float | None, words: str
) -> None:
    assert progress_text(state, tok_s=tok_s, elapsed_s=70.0) == words


def test_tokens_per_second_are_those_of_the_last_five_seconds() -> None:
    rate = Rate()
    counts = [(0, 0), (2, 200), (4, 400), (6, 400), (8, 400), (10, 400)]
    assert [rate.at(now, count) for now, count in counts] == [
        None,
        100,
        100,
        *(200 / 4, 0, 0),
    ]


def test_the_state_of_a_run_is_what_is_counted_since_it_began() -> None:
    stalls = Stalls()
    stalls.add_sample("decode[0]", 0.0, {"0": EngineWork(1.0, 1.0, 0.0, 300.0, generated=9000.0)})
    stalls.add_sample("prefill[0]", 0.0, {"0": EngineWork(1.0, 1.0, 0.0, 900.0, generated=900.0)})
    names = ("prefill[0]", "decode[0]")
    run = replace(
        run_of({}),
        stalls=stalls,
        instances=[
            Server(name=name, role=name.partition("[")[0], url="http://x", process=None)
            for name in names
        ],
        before={n: Counters(counts={"requests": 100.0, "generation_tokens": 808}) for n in names},
    )
    assert run.state() == RunState(
        workload=WORKLOAD.id,
        finished=200,
        num_prompts=1024,
        generated_tokens=8192.0,
        total_tokens=1024.0 * 256,
    )
    assert run.state().share == 1 / 32
