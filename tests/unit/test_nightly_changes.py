"""What a night's report becomes: events, each once, and one identity for each regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import date
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.nightly.changes import GONE_NIGHTS
from pytest_pdserve.nightly.changes import UNMEASURED_NIGHTS
from pytest_pdserve.nightly.changes import Tonight
from pytest_pdserve.nightly.changes import advance
from pytest_pdserve.nightly.changes import trouble_events
from pytest_pdserve.nightly.changes import undelivered_events
from pytest_pdserve.nightly.changes import what_changed
from pytest_pdserve.nightly.expecting import expected_by
from pytest_pdserve.nightly.observations import observations
from pytest_pdserve.nightly.observations import troubles
from pytest_pdserve.nightly.outcome import codes_of_report
from pytest_pdserve.results.kinds import NIGHTLY_EVENT
from pytest_pdserve.results.kinds import NIGHTLY_STATE
from pytest_pdserve.values.exit_codes import combined_code
from pytest_pdserve.values.nightly import Event
from pytest_pdserve.values.nightly import NightlyState
from pytest_pdserve.values.report import Reason
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import VerdictReport
from pytest_pdserve.values.system import System
from tests.support.reports import HOSTILE
from tests.support.reports import ITL
from tests.support.reports import cell
from tests.support.reports import claim
from tests.support.reports import report_of

FIRST = date(2026, 11, 20)
KEY = "p5-efa/1p3d/random-512-256-n4/speed"
WHOLE = "p5-efa/1p3d/*/speed"
FAIL = (cell(),)
FINE = (cell(status="PASS", metrics=(replace(ITL, status="PASS"),), misses=()),)
SUSPICIOUS = (cell(status="SUSPICIOUS", metrics=(replace(ITL, status="SUSPICIOUS"),)),)
EXPECTED = (cell(status="EXPECTED", metrics=(replace(ITL, status="EXPECTED"),)),)
UNMEASURED = (cell(status="NEW", workload="random-9-9-n9", metrics=(), misses=()),)
OTHER = cell(workload="random-1024-256-n4")
ALL_SLOW = (replace(cell(), kind="topology", workload=None, records=()), cell(), OTHER)


@dataclass
class Diary:
    """Nights one after the other, each by its verdicts."""

    state: NightlyState | None = None
    night: date = FIRST - timedelta(days=1)

    def after(self, *verdicts: VerdictReport, days: int = 1, **fields: Any) -> list[str]:
        """Return the events of one more night, in words."""
        return [
            f"{e.kind} {e.key} since {e.since}" for e in self.events(*verdicts, days=days, **fields)
        ]

    def events(
        self, *verdicts: VerdictReport, days: int = 1, expected: Sequence[str] = (), **fields: Any
    ) -> Sequence[Event]:
        self.night += timedelta(days=days)
        report = report_of(*verdicts, **fields)
        tonight = Tonight(
            night=self.night,
            system="p5-efa",
            seen=observations(report, lambda _: expected),
            troubles=troubles(report),
            changed=what_changed(self.state, report),
            measured=report.measured,
        )
        followed, events = advance(self.state, tonight)
        since, of_machines = trouble_events(self.state, tonight)
        self.state = NightlyState(
            system="p5-efa",
            night=self.night.isoformat(),
            versions=report.versions,
            nodes=report.nodes,
            followed=followed,
            trouble_since=since,
        )
        stored = NIGHTLY_STATE.dump(self.state, "state")
        assert NIGHTLY_STATE.parse(stored, "state") == self.state
        for event in (*events, *of_machines):
            assert NIGHTLY_EVENT.parse(NIGHTLY_EVENT.dump(event, "event"), "event") == event
        return (*events, *of_machines)


@pytest.fixture
def diary() -> Diary:
    return Diary()


def test_a_regression_is_new_once_then_still_there_and_gone_after_two_nights(diary: Diary) -> None:
    assert diary.after(*FAIL) == [f"new {KEY} since 2026-11-20"]
    assert diary.after(*FAIL) == [f"still {KEY} since 2026-11-20"]
    assert diary.after(*FINE) == []
    assert diary.after(*FINE) == [f"gone {KEY} since 2026-11-20"]
    assert diary.after(*FINE) == []


def test_a_regression_that_comes_back_after_one_clean_night_is_the_same(diary: Diary) -> None:
    diary.after(*FAIL)
    assert diary.after(*FINE) == []
    assert diary.after(*SUSPICIOUS) == []
    assert diary.after(*FAIL) == [f"still {KEY} since 2026-11-20"]
    assert diary.after(*FINE) == []


def test_a_suspicion_tells_nobody_and_a_fail_dates_from_its_first_night(diary: Diary) -> None:
    assert diary.after(*SUSPICIOUS) == []
    assert diary.after(*FAIL) == [f"new {KEY} since 2026-11-20"]


def test_a_suspicion_that_was_not_confirmed_is_forgotten(diary: Diary) -> None:
    diary.after(*SUSPICIOUS)
    diary.after(*FINE)
    assert diary.after(*FAIL) == [f"new {KEY} since 2026-11-22"]


def test_a_second_session_of_a_night_tells_nothing_twice(diary: Diary) -> None:
    diary.after(*FAIL)
    assert diary.after(*FAIL, days=0) == []
    assert diary.after(*FINE) == []
    assert diary.after(*FINE, days=0) == []
    assert diary.after(*FINE) == [f"gone {KEY} since 2026-11-20"]


def test_lost_nights_in_between_change_nothing(diary: Diary) -> None:
    diary.after(*FAIL)
    assert diary.after(*FAIL, days=3) == [f"still {KEY} since 2026-11-20"]


@pytest.mark.parametrize("jump", [-4000, 30_000], ids=["back", "forward"])
def test_a_clock_that_jumps_counts_nights_on_and_no_beginning_lies_ahead(
    jump: int, diary: Diary
) -> None:
    diary.after(*FAIL)
    (jumped,) = diary.events(*FAIL, days=jump)
    assert jumped.kind == "still"
    assert jumped.since <= jumped.night
    (back,) = diary.events(*FAIL, days=1 - jump)
    assert (back.kind, back.night) == ("still", date(2026, 11, 21))
    assert back.since <= back.night
    assert diary.after(*FINE) == []
    assert len(diary.after(*FINE)) == 1


def test_what_changed_on_the_first_night_stays_with_the_regression(diary: Diary) -> None:
    versions = {"vllm": "0.15.1", "image": "sha256:a"}
    diary.events(*FINE, versions=versions, nodes=("h01", "h02"))
    after = {"vllm": "0.15.2", "image": "sha256:a"}
    diary.events(*SUSPICIOUS, versions=after, nodes=("h02", "h03"))
    (new,) = diary.events(*FAIL, versions=after, nodes=("h03", "h02"))
    assert new.changed == (
        "vLLM 0.15.1 -> 0.15.2",
        "nodes that are new: h03",
        "nodes that are no longer used: h01",
    )


def test_a_changed_node_list_alone_is_no_event(diary: Diary) -> None:
    diary.events(*FINE, nodes=("h01", "h02"))
    assert diary.events(*FINE, nodes=("h03", "h04")) == ()


def test_a_renamed_cell_is_followed_for_two_weeks_and_then_let_go_with_a_word(
    diary: Diary,
) -> None:
    diary.after(*FAIL)
    for _ in range(UNMEASURED_NIGHTS - 1):
        assert diary.after(*UNMEASURED) == []
    (gone,) = diary.events(*UNMEASURED)
    assert (gone.kind, gone.key) == ("gone", KEY)
    assert gone.evidence == (
        "It has not been measured for 14 nights in a row, and is no longer followed: the cell was "
        "renamed or removed, or was always left out. It may still be there.",
    )
    assert diary.after(*UNMEASURED) == []


def test_nights_that_did_not_measure_a_cell_do_not_close_it(diary: Diary) -> None:
    diary.after(*FAIL)
    diary.after(*FINE)
    for _ in range(5):
        assert diary.after(*UNMEASURED) == []
    assert diary.after(*FINE) == [f"gone {KEY} since 2026-11-20"]
    assert GONE_NIGHTS == 2


def test_a_slower_topology_is_one_regression_and_not_one_a_cell(diary: Diary) -> None:
    (new,) = diary.events(*ALL_SLOW)
    assert (new.kind, new.key, new.title) == ("new", WHOLE, "1p3d as a whole is slower on p5-efa")
    assert new.cells == ("1p3d random-512-256-n4", "1p3d random-1024-256-n4")
    assert diary.after(*FAIL) == [f"still {WHOLE} since 2026-11-20"]
    assert diary.after(*FINE, replace(ALL_SLOW[0], metrics=FINE[0].metrics)) == []


def test_a_cell_that_is_a_regression_already_stays_one_of_its_own(diary: Diary) -> None:
    diary.after(*FAIL)
    assert diary.after(*ALL_SLOW) == [
        f"still {KEY} since 2026-11-20",
        f"new {WHOLE} since 2026-11-21",
    ]


def test_a_topology_takes_up_the_suspicion_of_a_cell(diary: Diary) -> None:
    diary.after(*SUSPICIOUS)
    assert diary.after(*ALL_SLOW) == [f"new {WHOLE} since 2026-11-20"]
    assert diary.state is not None
    assert [each.key for each in diary.state.followed] == [WHOLE]


def test_a_wrong_count_is_another_regression_than_a_slow_cell(diary: Diary) -> None:
    wrong = cell(misses=("completed 63 requests, expected 64", *cell().misses))
    speed, counts = diary.events(wrong)
    assert (speed.key, speed.evidence[0]) == (KEY, cell().misses[0])
    assert counts.key == "p5-efa/1p3d/random-512-256-n4/counts"
    assert counts.evidence[0] == "completed 63 requests, expected 64"


def test_a_claim_that_does_not_hold_names_its_topologies(diary: Diary) -> None:
    (new,) = diary.events(claim(status="FAIL", misses=("ITL is above DP's",)))
    assert (new.key, new.topology) == ("p5-efa/1p3d+dp/itl/claim", "1p3d,dp")
    assert diary.after(claim(status="NOT ASKED")) == []
    assert diary.after(claim()) == []
    assert diary.after(claim()) == ["gone p5-efa/1p3d+dp/itl/claim since 2026-11-20"]


def test_what_is_expected_is_no_regression_and_one_that_was_there_shows_who_set_it(
    diary: Diary,
) -> None:
    assert diary.events(*EXPECTED) == ()
    diary.after(*FAIL)
    (still,) = diary.events(*EXPECTED, expected=("Expected until 2026-12-31: vllm#1, set by ann",))
    assert (still.kind, still.expected[0][-10:]) == ("still", "set by ann")


def test_entries_of_expected_toml_are_found_by_topology_cell_and_metric(
    tmp_path: Path, p5_efa: System
) -> None:
    folder = tmp_path / "baselines" / p5_efa.name
    folder.mkdir(parents=True)
    (folder / "system.toml").touch()
    system = replace(p5_efa, source=str(folder / "system.toml"))
    (folder / "expected.toml").write_text(
        "schema_version = 1\n"
        '[[expected]]\nuntil = "9999-12-31"\nowner = "ann"\nreason = "vllm#1"\n'
        'topologies = ["1p3d"]\nmetrics = ["mean_itl_ms"]\nmax_worse = 0.05\n'
        '[[expected]]\nuntil = "2020-01-01"\nowner = "bob"\nreason = "old"\n'
    )
    about = expected_by(system, tmp_path)
    (said,) = about(cell())
    assert said.startswith("Expected until 9999-12-31, up to 5 % worse: vllm#1, set by ann (")
    assert about(replace(cell(), topologies=("dp",))) == ()


def test_machines_that_fail_are_one_trouble_however_long_it_lasts(diary: Diary) -> None:
    broken = cell(status="ERROR", metrics=(), misses=("decode[1] on h04 exited",))
    (first,) = diary.events(broken)
    assert (first.kind, first.key) == ("cluster-trouble", "p5-efa/cluster")
    assert first.evidence == ("1p3d random-512-256-n4: decode[1] on h04 exited",)
    assert diary.after(broken, days=0) == []
    assert diary.after(broken) == ["cluster-trouble p5-efa/cluster since 2026-11-20"]
    assert diary.after(*FINE) == ["cluster-ok p5-efa/cluster since 2026-11-20"]
    assert diary.after(*FINE) == []


def test_a_night_that_measured_nothing_is_trouble_and_keeps_what_is_followed(diary: Diary) -> None:
    diary.after(*FAIL)
    (event,) = diary.events(errors=(Reason(subject="nodes", why="no job started"),))
    assert event.kind == "cluster-trouble"
    assert event.evidence[0] == "nodes: no job started"
    assert "Nothing was measured on p5-efa" in event.evidence[1]
    assert diary.after(*FAIL)[0] == f"still {KEY} since 2026-11-20"


def test_nights_without_any_measurement_close_no_regression(diary: Diary) -> None:
    diary.after(*FAIL)
    for _ in range(UNMEASURED_NIGHTS + 1):
        assert {e.kind for e in diary.events()} == {"cluster-trouble"}
    assert diary.after(*FAIL)[0] == f"still {KEY} since 2026-11-20"


@pytest.mark.parametrize(
    ("report", "partial", "code"),
    [
        (report_of(*FINE), False, 0),
        (report_of(*FAIL), False, 1),
        (report_of(*SUSPICIOUS), False, 0),
        (report_of(), False, 6),
        (report_of(*FINE, left_out=("dp random",)), False, 6),
        (report_of(*FINE, left_out=("dp random",)), True, 0),
        (report_of(*FINE, ended=False), True, 7),
        (report_of(*FAIL, errors=(Reason(subject="t", why="w"),)), False, 7),
        (report_of(cell(status="MEASURED")), False, 6),
    ],
    ids=[
        *("clean", "FAIL", "suspicious", "nothing", "left out", "partial", "cut off", "errors"),
        "not judged",
    ],
)
def test_a_night_ends_with_the_code_of_its_worst(report: Report, partial: bool, code: int) -> None:
    assert combined_code(codes_of_report(report, partial=partial)) == code


def test_events_that_wait_are_not_said_twice() -> None:
    one = Event(kind="new", key="a", title="a", system="s", since=FIRST, night=FIRST)
    still = replace(one, kind="still", night=FIRST + timedelta(days=1))
    later = replace(still, night=FIRST + timedelta(days=2))
    other = replace(one, key="b")
    assert undelivered_events((one, still), (other, later)) == (one, other, later)
    assert undelivered_events((one, still, replace(one, kind="gone")), (one,))[-1] == one


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_whatever_servers_say_an_event_can_be_stored(text: str, diary: Diary) -> None:
    said = claim(status="FAIL", kind="smoke", name=text, misses=(text,), topologies=("1p3d",))
    (new,) = diary.events(said)
    assert new.evidence == (text,)
    assert "\n" not in new.title + new.key
