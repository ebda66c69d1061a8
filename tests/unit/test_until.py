"""``--until``: the next such local time, whatever the clocks do; and how much still fits."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pytest_pdserve.session.deadline import Deadline
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.until import parse_until
from tests.support.sessions import session_in

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("now", "text", "until"),
    [
        ("2026-11-28T22:00+01:00", "06:00", "2026-11-29T06:00+01:00"),
        ("2026-11-28T05:59+01:00", "06:00", "2026-11-28T06:00+01:00"),
        ("2026-11-28T06:00+01:00", "06:00", "2026-11-29T06:00+01:00"),
        # Clocks go back at 03:00 of 25 October, and forward at 02:00 of 29 March
        ("2026-10-24T22:00+02:00", "06:00", "2026-10-25T06:00+01:00"),
        ("2026-10-25T01:00+02:00", "02:30", "2026-10-25T02:30+02:00"),
        ("2026-10-25T02:45+02:00", "02:30", "2026-10-25T02:30+01:00"),
        ("2026-03-28T22:00+01:00", "06:00", "2026-03-29T06:00+02:00"),
        ("2026-03-28T22:00+01:00", "02:30", "2026-03-29T03:30+02:00"),
        ("2026-11-28T22:00+01:00", "2026-11-29T06:00:00+01:00", "2026-11-29T06:00+01:00"),
        ("2026-11-28T22:00+01:00", "2026-11-29T05:00:00+00:00", "2026-11-29T06:00+01:00"),
    ],
    ids=[
        *(
            "tomorrow",
            "today",
            "the same minute",
            "a longer night",
            "first of two",
            "second of two",
        ),
        *("a shorter night", "a time that is skipped", "a moment", "a moment elsewhere"),
    ],
)
def test_the_next_such_time_counts(now: str, text: str, until: str) -> None:
    found = parse_until(text, datetime.fromisoformat(now), zone=BERLIN)
    assert found == datetime.fromisoformat(until)


@pytest.mark.parametrize(
    "text", ["", "6", "24:00", "6:00", "06:60", "now", "2026-11-29", "2026-11-29T06:00"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a local time such as 06:00"):
        parse_until(text, datetime.now(UTC))


def test_a_moment_that_is_over_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a time in the future"):
        parse_until("2020-01-01T00:00:00+00:00", datetime.now(UTC))


def test_what_takes_longer_than_is_left_does_not_begin() -> None:
    now = 100.0
    deadline = Deadline(until=datetime.now(UTC), ends_s=160.0, clock=lambda: now)
    assert deadline.has_time_for(1000)
    with deadline.timing():
        now = 125.0
    assert deadline.has_time_for()
    assert not deadline.has_time_for(2)
    now = 135.0
    assert not deadline.has_time_for()


def test_a_clock_that_is_set_changes_no_deadline() -> None:
    steady = 1000.0
    deadline = Deadline.at(datetime.now(UTC) + timedelta(hours=8), lambda: steady)
    assert deadline.ends_s == pytest.approx(1000 + 8 * 3600, abs=60)
    assert Deadline().has_time_for(10**9)


def test_a_suspicious_cell_does_not_run_again_once_there_is_no_time(
    tmp_path: Path, p5_efa: System
) -> None:
    session = session_in(tmp_path, p5_efa, fingerprint="0123456789ab")
    assert not session.reruns_exhausted(1, ("1p3d", "random"))
    until = datetime(2026, 11, 29, 5, tzinfo=UTC)
    session.deadline = Deadline(until=until, ends_s=0.0)
    assert session.reruns_exhausted(1, ("1p3d", "random"))
    why = session.session_judge.why_unconfirmed["1p3d", "random"]
    assert why == f"no time is left before {until.astimezone():%H:%M}"
