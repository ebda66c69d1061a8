"""Verdicts as they are printed."""

from __future__ import annotations

import pytest

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict


@pytest.mark.parametrize(
    ("misses", "evidence", "message"),
    [
        ((), (), "FAIL: a cell"),
        (("x = 2, limit 1",), (), "x = 2, limit 1: a cell"),
        (
            ("x = 2, limit 1", "y is missing"),
            (("baseline", "b.json"), ("log", "l")),
            "x = 2, limit 1: a cell\ny is missing: a cell\n  baseline  b.json\n  log       l",
        ),
    ],
    ids=["no misses", "one", "all in one message"],
)
def test_a_message_holds_every_miss_and_the_evidence(
    misses: tuple[str, ...], evidence: tuple[tuple[str, str], ...], message: str
) -> None:
    verdict = Verdict(status=Status.FAIL, subject="a cell", misses=misses, evidence=evidence)
    assert verdict.message == message
