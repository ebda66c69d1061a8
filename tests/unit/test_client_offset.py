"""What a client reports beside what a server of known timing says was true."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_pdserve.study.client_offset import OUTPUT_TOKENS
from pytest_pdserve.study.client_offset import in_flight
from pytest_pdserve.study.client_offset import offset_of
from pytest_pdserve.values.errors import ClientError

MS = 1_000_000
STEPS = OUTPUT_TOKENS - 1


def row(arrival_ms: float, ttft_ms: float, itl_ms: float, chunks: int = OUTPUT_TOKENS) -> list[int]:
    first = arrival_ms + ttft_ms
    return [*(int(at * MS) for at in (arrival_ms, first, first + itl_ms * STEPS)), chunks]


ROWS = np.array([row(0, 900, 1), row(1000, 200, 25), row(1010, 202, 26), row(1020, 1, 1, chunks=3)])
"""A warm-up, two requests, and one that was not answered in full."""


def test_a_report_is_held_against_the_requests_of_its_load() -> None:
    reported = {"mean_ttft_ms": 402.0, "mean_itl_ms": 25.5, "p99_ttft_ms": None, "other": 1}
    found = offset_of(reported, ROWS, 2)
    assert (found.streams, found.reached, found.answered) == (2, 2, 2)
    assert found.true["mean_ttft_ms"] == pytest.approx(201)
    assert found.true["p99_ttft_ms"] == pytest.approx(201.98)
    assert found.true["mean_itl_ms"] == found.true["mean_tpot_ms"] == pytest.approx(25.5)
    assert found.true["output_throughput"] == pytest.approx(128 / (1.85 - 0.0))
    assert found.off == {"mean_ttft_ms": pytest.approx(1.0), "mean_itl_ms": pytest.approx(0.0)}


def test_a_load_without_an_answer_is_no_measurement() -> None:
    with pytest.raises(ClientError, match="none of 2 requests was answered"):
        offset_of({}, ROWS[3:], 2)


def test_requests_in_flight_are_counted_at_their_peak() -> None:
    began, ended = np.array([0, 1, 5, 6]), np.array([5, 4, 9, 7])
    assert in_flight(began, ended) == 2
    assert in_flight(np.array([0, 1, 2]), np.array([9, 9, 9])) == 3
