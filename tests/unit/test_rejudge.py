"""Stored sessions judged by the baseline of today: verdicts and exit codes of ``pdserve judge``."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.results import folders
from pytest_pdserve.results.baselines import host_baseline_path
from pytest_pdserve.results.baselines import write_baseline
from pytest_pdserve.values.record import Record
from tests.support.judging import JudgeCommand
from tests.support.stored_nights import LONG
from tests.support.stored_nights import SHORT
from tests.support.stored_nights import Shelf
from tests.support.stored_nights import typical_baseline

WORKLOAD = "random-512-256-n4"
DP = f"dp {WORKLOAD}"
SUBJECT = f"dp, {WORKLOAD}, p5-efa"
BELOW, BEYOND = 0.035, 0.06
"""Worse by so much in logarithms: suspicious, and worse than the limit of ITL and throughput."""


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    """A project with 20 nights of ``dp``; what a test does not make slower is as in these."""
    monkeypatch.chdir(tmp_path)
    made = Shelf(folder=tmp_path, make_record=make_record, night_sd=0.0, run_sd=0.0, cells=("dp",))
    made.baseline()
    return made


@pytest.fixture
def judge(capsys: pytest.CaptureFixture[str]) -> JudgeCommand:
    return JudgeCommand(capsys=capsys)


CLEAN = {
    "run_id": "20261121T220000-p5-efa",
    "system": "p5-efa",
    "simulated": False,
    "nights_before": 0,
    "one_night_can_fail": True,
    "exit_code": 0,
    "invalid": [],
    "unreadable": [],
    "unproven": ["client: not seen"],
    "not_measured": [],
    "topologies": {},
    "claims": {},
    "again": [],
}
METRIC = {
    "metric": "mean_itl_ms",
    "verdict": "PASS",
    "unit": "ms",
    "reference": pytest.approx(10.0),
    "nights": 20,
    "provisional": False,
    "runs": [pytest.approx(0.0)],
    "change": pytest.approx(0.0),
    "limit": pytest.approx(0.04),
    "suspicious_nights": 0,
    "better": False,
}


def metric_of(said: dict[str, Any], name: str = "mean_itl_ms", cell: str = DP) -> dict[str, Any]:
    (found,) = (each for each in said["cells"][cell]["metrics"] if each["metric"] == name)
    return dict(found)


def test_a_clean_night_passes_as_json(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.session(21)
    said = judge.told()
    cells = said.pop("cells")
    assert said == CLEAN
    assert list(cells) == [DP]
    assert (cells[DP]["verdict"], cells[DP]["misses"]) == ("PASS", [])
    assert metric_of({"cells": cells}) == METRIC
    assert {each["metric"] for each in cells[DP]["metrics"]} == {
        *("mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "output_throughput")
    }


def test_a_slow_metric_has_its_runs_and_their_median_as_json(
    shelf: Shelf, judge: JudgeCommand
) -> None:
    shelf.session(20, slower=BELOW)
    shelf.session(21, slower=BEYOND, repeats=3)
    worse = math.expm1(BEYOND)
    assert metric_of(judge.told(code=1)) == {
        **METRIC,
        "verdict": "FAIL",
        "runs": [pytest.approx(worse)] * 3,
        "change": pytest.approx(worse),
        "suspicious_nights": 1,
    }


def test_a_throughput_that_is_worse_has_fewer_as_json(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.session(21, slower=BEYOND, repeats=3)
    said = metric_of(judge.told(code=1), "output_throughput")
    assert said["change"] == pytest.approx(math.expm1(-BEYOND))
    assert said["limit"] == pytest.approx(1 / 1.04 - 1)


def test_a_clean_night_passes_as_text(shelf: Shelf, judge: JudgeCommand) -> None:
    run = shelf.session(21)
    path = shelf.folder / "baselines" / "p5-efa" / "sweep.json"
    first, *table, unproven, baseline = judge().splitlines()
    assert first == f"{run}, 2026-11-21"
    assert [line.split() for line in table if "dp" in line] == [["dp", WORKLOAD, "PASS"]]
    assert unproven == "unproven: client: not seen"
    assert baseline == f"baseline  {path} (vLLM 0.15.1, NIXL 0.10.1)"


def lines_of(text: str, *beginnings: str) -> list[str]:
    """The lines that begin so, up to their first full stop."""
    lines = (line for line in text.splitlines() if line.strip().startswith(beginnings))
    return [line.split(". ")[0] for line in lines]


def test_the_worst_is_told_first(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.session(21, slower=BELOW, repeats=3)
    shelf.baseline(cells=("1p3d", "dp"))
    shelf.session(21, slower=BEYOND, repeats=3, cells=("1p3d",))
    assert lines_of(judge(code=1), "FAIL", "SUSPICIOUS", "mean_itl_ms") == [
        f"FAIL: 1p3d, {WORKLOAD}, p5-efa",
        "  mean_itl_ms 10.62 ms, reference 10 ms (20 nights): +6.2 %, limit +4 %",
        f"SUSPICIOUS: {SUBJECT}",
        "  mean_itl_ms 10.36 ms, reference 10 ms (20 nights): +3.6 %, limit +4 %",
    ]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("tonight", "verdict", "code", "strict_code"),
    [
        ({}, "PASS", 0, 0),
        ({"slower": BELOW}, "SUSPICIOUS", 0, 6),
        ({"slower": BELOW, "repeats": 3}, "SUSPICIOUS", 0, 6),
        ({"slower": BEYOND}, "SUSPICIOUS", 6, 6),
        ({"slower": BEYOND, "repeats": 2}, "SUSPICIOUS", 6, 6),
        ({"slower": BEYOND, "repeats": 3, "restarts": False}, "SUSPICIOUS", 6, 6),
        ({"slower": BEYOND, "repeats": 3}, "FAIL", 1, 1),
    ],
    ids=[
        *("clean", "suspicious in one run", "suspicious in three", "beyond in one run"),
        *("beyond in two", "beyond in three of one start", "beyond in three"),
    ],
)
def test_a_session_ends_with_what_its_runs_show(
    tonight: dict[str, Any],
    verdict: str,
    code: int,
    strict_code: int,
    shelf: Shelf,
    judge: JudgeCommand,
) -> None:
    shelf.session(21, findings=(), **tonight)
    said = judge.told(code=code)
    assert (said["cells"][DP]["verdict"], said["exit_code"]) == (verdict, code)
    assert judge.told("--strict", code=strict_code)["exit_code"] == strict_code


def test_what_too_few_runs_show_is_not_confirmed(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.session(21, slower=BEYOND)
    assert judge.told(code=6)["again"] == [DP]
    assert (
        f"not confirmed: {DP}: a FAIL takes 3 starts of one night, or a suspicious night before\n"
        in judge(code=6)
    )


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("before", "verdict", "nights"),
    [
        ((BELOW,), "FAIL", 1),
        ((BELOW, BELOW), "FAIL", 2),
        ((BELOW, 0.0), "SUSPICIOUS", 0),
        ((-0.5,), "SUSPICIOUS", 0),
    ],
    ids=["suspicious too", "twice before", "clean in between", "better"],
)
def test_the_second_suspicious_night_fails(
    before: tuple[float, ...], verdict: str, nights: int, shelf: Shelf, judge: JudgeCommand
) -> None:
    for place, slower in enumerate(before):
        shelf.session(21 - len(before) + place, slower=slower)
    shelf.session(21, slower=BELOW)
    said = judge.told(code=1 if verdict == "FAIL" else 0)
    assert said["cells"][DP]["verdict"] == verdict
    assert metric_of(said)["suspicious_nights"] == nights


def test_a_second_night_says_since_when(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.nights(2, first=20, slower=BELOW, versions={"vllm": "0.16.0", "nixl": "0.10.1"})
    assert (
        "Seen on 2 nights in a row, first on 2026-11-20; vLLM 0.15.1 -> 0.16.0 since the "
        "baseline.\n" in judge(code=1)
    )


def test_a_change_is_dated_however_long_ago_it_began(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.session(10)
    shelf.nights(9, first=11, slower=BEYOND)
    assert "Seen on 9 nights in a row, first on 2026-11-11.\n" in judge(code=1)


@pytest.mark.parametrize(
    "other",
    [{"fingerprint": "ffffffffffff"}, {"system": "p6"}, {"cells": ("1p3d",)}],
    ids=["other hardware", "another system", "another cell"],
)
def test_a_night_of_something_else_is_no_night_before(
    other: dict[str, Any], shelf: Shelf, judge: JudgeCommand
) -> None:
    shelf.session(20, slower=BELOW, **other)
    shelf.session(21, slower=BELOW)
    assert judge.told()["cells"][DP]["verdict"] == "SUSPICIOUS"


def test_a_named_session_is_judged_by_the_nights_before_it(
    shelf: Shelf, judge: JudgeCommand
) -> None:
    nights = shelf.nights(3, first=20, slower=BELOW)
    assert judge.told(nights[0])["nights_before"] == 0
    assert judge.told(nights[2], code=1)["nights_before"] == 2


@pytest.mark.slow
def test_alarms_that_went_away_twice_do_not_fail_a_single_night(
    shelf: Shelf, judge: JudgeCommand
) -> None:
    for day in (15, 17):
        shelf.session(day, slower=BEYOND, repeats=3)
        shelf.session(day + 1)
    shelf.session(21, slower=BEYOND, repeats=3)
    said = judge.told()
    assert (said["cells"][DP]["verdict"], said["one_night_can_fail"]) == ("SUSPICIOUS", False)
    assert "One night alone does not FAIL on this system, because" in judge()
    shelf.session(22, slower=BEYOND, repeats=3)
    judge(code=1)


def test_a_few_nights_have_wide_limits_and_say_so(shelf: Shelf, judge: JudgeCommand) -> None:
    shelf.baseline(2, starts=1)
    shelf.session(21, slower=0.2, repeats=3)
    said = metric_of(judge.told(code=1))
    assert (said["nights"], said["provisional"]) == (2, True)
    assert said["limit"] == pytest.approx(0.16)
    assert "(2 nights, provisional): +22.1 %, limit +16 %." in judge(code=1)


def test_three_better_nights_are_noticed(shelf: Shelf, judge: JudgeCommand) -> None:
    nights = shelf.nights(3, first=19, slower=-BEYOND)
    assert not metric_of(judge.told(nights[1]))["better"]
    assert metric_of(judge.told())["better"]


def test_a_floor_of_the_system_is_the_limit(shelf: Shelf, judge: JudgeCommand) -> None:
    path = shelf.folder / "baselines" / "p5-efa" / "system.toml"
    path.write_text(f"{path.read_text()}\n[judgement.floors]\nmean_itl_ms = 0.10\n")
    shelf.session(21, slower=BEYOND, repeats=3)
    said = judge.told(code=1)
    assert metric_of(said)["verdict"] == "PASS"
    assert metric_of(said, "output_throughput")["verdict"] == "FAIL"


@pytest.fixture
def wide(shelf: Shelf) -> Shelf:
    """A project whose topology has two cells."""
    shelf.baseline(workloads=(SHORT, LONG))
    return shelf


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("tonight", "verdict", "code"),
    [
        ({}, "PASS", 0),
        ({"slower": 0.025, "repeats": 3}, "SUSPICIOUS", 0),
        ({"slower": BEYOND, "repeats": 3}, "FAIL", 1),
    ],
    ids=["clean", "beyond its own limit", "beyond its cells' limit"],
)
def test_a_topology_is_judged_over_its_cells(
    tonight: dict[str, Any], verdict: str, code: int, wide: Shelf, judge: JudgeCommand
) -> None:
    wide.session(21, workloads=(SHORT, LONG), **tonight)
    said = judge.told(code=code)
    assert said["topologies"]["dp"]["verdict"] == verdict
    (itl,) = (m for m in said["topologies"]["dp"]["metrics"] if m["metric"] == "mean_itl_ms")
    assert itl["reference"] is None
    assert itl["limit"] == pytest.approx(0.02)


def test_a_topology_fails_on_its_second_suspicious_night_though_no_cell_does(
    wide: Shelf, judge: JudgeCommand
) -> None:
    wide.nights(2, first=20, workloads=(SHORT, LONG), slower=0.025)
    said = judge.told(code=1)
    assert said["topologies"]["dp"]["verdict"] == "FAIL"
    assert {cell["verdict"] for cell in said["cells"].values()} == {"PASS"}


def test_a_topology_that_is_worse_is_told_before_its_cells(
    wide: Shelf, judge: JudgeCommand
) -> None:
    wide.session(21, workloads=(SHORT, LONG), slower=BEYOND, repeats=3)
    assert lines_of(judge(code=1), "FAIL", "mean_itl_ms") == [
        "FAIL: dp over 2 of 2 cells, p5-efa",
        "  mean_itl_ms over 2 cells, reference of 20 nights: +6.2 %, limit +2 %",
        "FAIL: dp, random-1024-256-n4, p5-efa",
        "  mean_itl_ms 10.62 ms, reference 10 ms (20 nights): +6.2 %, limit +4 %",
        f"FAIL: {SUBJECT}",
        "  mean_itl_ms 10.62 ms, reference 10 ms (20 nights): +6.2 %, limit +4 %",
    ]


def test_a_host_is_judged_by_its_own_references(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(shelf.folder))
    path = shelf.folder / "baselines" / "p5-efa" / "system.toml"
    path.write_text(f"{path.read_text()}\n[judgement]\nhost_references = true\n")
    state = shelf.folder / "pytest-pdserve"
    write_baseline(
        host_baseline_path(shelf.system, "0123456789ab", state), typical_baseline(cells=("dp",))
    )
    (shelf.folder / "baselines" / "p5-efa" / "sweep.json").write_text("{")
    shelf.session(21, slower=BEYOND, repeats=3)
    assert main(["judge", "--system", "p5-efa"]) == 1
    assert f"baseline  {state}/baselines/p5-efa/0123456789ab/sweep.json" in capsys.readouterr().out


def test_a_shipped_baseline_judges_where_the_project_has_none(
    shelf: Shelf, judge: JudgeCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = shelf.folder / "package"
    package.mkdir()
    (shelf.folder / "baselines").rename(package / "baselines")
    monkeypatch.setattr(folders, "SHIPPED", (package / "baselines",))
    monkeypatch.setattr(folders, "SHIPPED", (package / "baselines",))
    shelf.session(21)
    assert f"baseline  {package}/baselines/p5-efa/sweep.json" in judge()


def test_sessions_of_one_night_are_judged_as_one(shelf: Shelf, judge: JudgeCommand) -> None:
    first = shelf.session(21, 21)
    second = shelf.session(21, 22, cells=("1p3d",))
    judged = judge.told(first, second, code=6)
    assert {name: each["verdict"] for name, each in judged["cells"].items()} == {
        DP: "PASS",
        f"1p3d {WORKLOAD}": "NOT JUDGED",
    }
    assert f"{first}, {second}, 2026-11-21\n" in judge(first, second, code=6)


def test_of_a_cell_in_two_sessions_of_a_night_the_first_counts(
    shelf: Shelf, judge: JudgeCommand
) -> None:
    runs = [shelf.session(21, 21), shelf.session(21, 22, slower=BEYOND, repeats=3)]
    assert metric_of(judge.told(*reversed(runs))) == METRIC
    judge(runs[1], code=1)


def test_sessions_of_two_nights_are_not_one(shelf: Shelf, judge: JudgeCommand) -> None:
    runs = [shelf.session(day) for day in (20, 21)]
    assert judge(*runs, code=4).endswith(
        f"{', '.join(runs)}: expected sessions of one night, not of 2026-11-20, 2026-11-21\n"
    )
