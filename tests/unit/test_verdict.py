"""Verdicts as they are printed, and the exit codes that they ask for."""

from __future__ import annotations

import pytest

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.judge.verdict import exit_code_of


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


@pytest.mark.parametrize(
    ("misses", "reason"),
    [((), "NOT JUDGED: a cell"), (("x is missing", "y too"), "NOT JUDGED: x is missing")],
    ids=["no misses", "the first of two"],
)
def test_a_reason_is_one_line(misses: tuple[str, ...], reason: str) -> None:
    verdict = Verdict(status=Status.NOT_JUDGED, subject="a cell", misses=misses)
    assert verdict.reason == reason


@pytest.mark.parametrize(
    ("status", "code", "strict_code"),
    [
        (Status.PASS, 0, 0),
        (Status.NEW, 0, 6),
        (Status.SUSPICIOUS, 0, 6),
        (Status.INCONCLUSIVE, 0, 6),
        (Status.REPORTED, 0, 0),
        (Status.EXPECTED, 0, 0),
        (Status.NOT_ASKED, 0, 0),
        (Status.FAIL, 1, 1),
        (Status.NOT_JUDGED, 6, 6),
        (Status.ERROR, 7, 7),
    ],
)
def test_a_verdict_asks_for_an_exit_code(status: Status, code: int, strict_code: int) -> None:
    codes = [exit_code_of(status, strict=strict) for strict in (False, True)]
    assert codes == [code, strict_code]


def test_evidence_is_added_behind_what_is_there() -> None:
    verdict = Verdict(status=Status.PASS, subject="a cell", evidence=(("baseline", "b.json"),))
    added = verdict.with_evidence(("look", "r.json"))
    assert added.evidence == (("baseline", "b.json"), ("look", "r.json"))
