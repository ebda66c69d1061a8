"""Measured requests that are asked again alone: what was wrong under load, and is not alone."""

from __future__ import annotations

import pytest

from tests.support.house import STUBS
from tests.support.house import House

GREEDY = {"client": "vllm", "args": ["--temperature", "0"]}


@pytest.fixture
def greedy_house(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A project whose client tells what it sent, and asks for the likeliest tokens."""
    monkeypatch.setenv("PYTHONPATH", str(STUBS / "package"))
    house.system(bench=GREEDY)
    house.suites("sweep")
    return house


def findings(house: House) -> list[tuple[str, str]]:
    (record,) = house.records()
    return [
        (each["severity"], each["message"])
        for each in record["findings"]
        if each["check"].startswith("answers")
    ]


@pytest.mark.slow
def test_garbage_under_load_is_invalid_where_the_same_requests_alone_differ(
    greedy_house: House,
) -> None:
    greedy_house.faults(decode_0={"under_load": " bado"})
    text = greedy_house.run("--topology", "1p1d").stdout.str()
    assert "the run of 1p1d, random-32-8-n8-c4, stub is invalid:" in text
    assert findings(greedy_house) == [
        (
            "invalid",
            "all 8 answers are the same text, but 8 of these requests, sent alone, get 8 "
            "different texts: what was served under load is wrong",
        )
    ]


@pytest.mark.slow
def test_answers_that_are_the_same_alone_are_no_finding_and_no_prompt_is_kept(
    greedy_house: House,
) -> None:
    greedy_house.run("--topology", "1p1d").assert_outcomes(passed=1, skipped=1)
    assert findings(greedy_house) == []
    (record,) = greedy_house.records()
    assert "kept_requests" not in record["client"]
    kept = [path.name for path in greedy_house.runs.rglob("*") if path.is_file()]
    assert not [name for name in kept if name.endswith((".bench.json", ".pickle"))]
