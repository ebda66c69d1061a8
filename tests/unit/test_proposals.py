"""Baselines proposed from stored nights, shown, accepted: through ``pdserve`` itself."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.results import folders
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.store import SESSION_FILE
from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from tests.support.said import said_by
from tests.support.stored_nights import INVALID
from tests.support.stored_nights import TYPICAL
from tests.support.stored_nights import Shelf
from tests.support.stored_nights import write_record

WORKLOAD = "random-512-256-n4"


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    monkeypatch.chdir(tmp_path)
    return Shelf(folder=tmp_path, make_record=make_record)


@pytest.fixture
def pdserve(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a step of ``pdserve baseline`` on p5-efa; the code it must end with is given."""

    def run(step: str, *arguments: str, code: int = 0) -> str:
        assert main(["baseline", step, "--system", "p5-efa", *arguments]) == code
        said = said_by(capsys)
        text = said.err if code else said.out
        assert "Traceback" not in text
        return text

    return run


Pdserve = Callable[..., str]


def proposed(shelf: Shelf, name: str = "sweep.proposal") -> Baseline:
    path = shelf.folder / "baselines" / "p5-efa" / f"{name}.json"
    found = load_baseline(path, system=shelf.system)
    assert found is not None
    return found


def cell_of(shelf: Shelf, topology: str = "dp") -> CellBaseline:
    return proposed(shelf).cells[topology][WORKLOAD]


def session_ids(baseline: Baseline) -> list[str]:
    return [source.id for source in baseline.sessions]


def nights_of(cell: CellBaseline) -> list[str]:
    return [night.session for night in cell.nights]


def value_in(shelf: Shelf, run: str, topology: str, repeat: int = 0) -> float:
    path = shelf.runs / run / topology / f"{WORKLOAD}.{repeat}.record.json"
    return load_record(path).metrics["mean_itl_ms"]


@pytest.mark.slow
def test_a_proposal_keeps_the_value_of_every_night(shelf: Shelf, pdserve: Pdserve) -> None:
    nights = shelf.nights(20)
    said = pdserve("propose")
    assert "2 cells of 20 nights, 20 in all (2026-11-01 to 2026-11-20)" in said
    assert "WARNING" not in said
    baseline = proposed(shelf)
    assert session_ids(baseline) == nights
    cell = baseline.cells["1p3d"][WORKLOAD]
    assert cell.values("mean_itl_ms") == tuple(value_in(shelf, run, "1p3d") for run in nights)
    assert cell.counts == {"completed": 4.0, "failed": 0.0}


def test_a_proposal_says_where_its_nights_are_from(shelf: Shelf, pdserve: Pdserve) -> None:
    (run,) = shelf.nights(1)
    pdserve("propose")
    baseline = proposed(shelf)
    assert (baseline.fingerprint, baseline.host) == ("0123456789ab", {"cpu": "Xeon"})
    assert (baseline.approver, baseline.accepted_on) == (None, None)
    assert baseline.sessions == (
        Source(
            id=run,
            started_at="2026-11-01T22:00:00.000Z",
            versions={"vllm": "0.15.1", "nixl": "0.10.1"},
            nodes=("node0", "node1"),
        ),
    )


def test_nothing_is_kept_inside_the_installed_package(
    shelf: Shelf, pdserve: Pdserve, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.nights(5)
    shelf.baseline(1)
    package = shelf.folder / "package"
    package.mkdir()
    (shelf.folder / "baselines").rename(package / "baselines")
    monkeypatch.setattr(folders, "SHIPPED", (package / "baselines",))
    monkeypatch.setattr(folders, "SHIPPED", (package / "baselines",))
    before = {path: path.stat().st_mtime_ns for path in package.rglob("*")}
    own = shelf.folder / "baselines" / "p5-efa" / "sweep.json"
    assert f"proposal for {own}\n" in pdserve("propose")
    pdserve("accept", "--approver", "Ada")
    assert own.exists()
    assert {path: path.stat().st_mtime_ns for path in package.rglob("*")} == before


def test_a_proposal_that_cannot_be_written_names_no_option_of_pytest(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    shelf.nights(5)
    path = Path(shelf.system.source).with_name("sweep.proposal.json")
    path.mkdir()
    said = f"pdserve: {path} cannot be written: Is a directory; free space, or make {path.parent} "
    assert pdserve("propose", code=7) == f"{said}writable\n"


def test_each_cell_has_its_newest_nights(shelf: Shelf, pdserve: Pdserve) -> None:
    for day in range(1, 13):
        shelf.session(day, cells=("dp", "1p3d") if day % 3 == 0 else ("dp",))
    said = pdserve("propose", "--last", "4")
    assert "2 cells of 4 nights, 6 in all (2026-11-03 to 2026-11-12)" in said
    days = {t: [run[6:8] for run in nights_of(cell_of(shelf, t))] for t in ("1p3d", "dp")}
    assert days == {"1p3d": ["03", "06", "09", "12"], "dp": ["09", "10", "11", "12"]}


def test_the_first_session_stands_for_a_night(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5)
    late = shelf.session(6, 4)  # of the night of the 5th
    said = pdserve("propose")
    assert "left out: 1 session whose cells are all in earlier sessions of the same night" in said
    assert late not in session_ids(proposed(shelf))
    assert "6 in all" in pdserve("propose", "--every-session")


@pytest.mark.slow
def test_topologies_that_run_in_sessions_of_their_own_are_all_there(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    for day in range(1, 21):
        shelf.session(day, 20, cells=("1p3d",))
        shelf.session(day, 21, cells=("dp",))
    said = pdserve("propose")
    assert "2 cells of 20 nights, 20 in all (2026-11-01 to 2026-11-20)" in said
    assert "left out" not in said
    assert "40 in all" in pdserve("propose", "--every-session")


def test_of_a_torn_session_the_cells_it_has_count(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(4)
    torn = shelf.session(5, cells=("dp",))
    whole = shelf.session(6, 3)
    pdserve("propose")
    assert session_ids(proposed(shelf))[4:] == [torn, whole]
    for topology, run in (("dp", torn), ("1p3d", whole)):
        assert nights_of(cell_of(shelf, topology))[-1] == run
        assert cell_of(shelf, topology).values("mean_itl_ms")[-1] == value_in(shelf, run, topology)


def test_of_a_night_that_was_run_again_the_first_run_counts(shelf: Shelf, pdserve: Pdserve) -> None:
    nights = shelf.nights(5, repeats=3)
    pdserve("propose")
    values = cell_of(shelf).values("mean_itl_ms")[1:]
    assert values == tuple(value_in(shelf, run, "dp") for run in nights[1:])


def test_the_first_night_counts_as_the_median_of_three_starts(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    first = shelf.session(1, repeats=3)
    pdserve("propose")
    starts = [value_in(shelf, first, "dp", repeat) for repeat in range(3)]
    (night,) = cell_of(shelf).nights
    assert (night.starts, night.values["mean_itl_ms"]) == (3, statistics.median(starts))


@pytest.mark.parametrize(
    "first", [{"repeats": 2}, {"repeats": 3, "restarts": False}], ids=["two starts", "one start"]
)
def test_a_first_night_of_fewer_starts_counts_as_its_first_run(
    first: dict[str, Any], shelf: Shelf, pdserve: Pdserve
) -> None:
    run = shelf.session(1, **first)
    pdserve("propose")
    (night,) = cell_of(shelf).nights
    assert (night.starts, night.values["mean_itl_ms"]) == (1, value_in(shelf, run, "dp"))


def test_what_is_invalid_is_left_out_and_named(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5)
    run = shelf.session(6, findings=(INVALID,), cells=("dp",))
    said = pdserve("propose")
    assert f"invalid: {run} dp, {WORKLOAD}, p5-efa: 3 of 4 requests completed" in said
    assert "1 session without a valid run" in said


def test_a_metric_that_a_run_voids_has_no_value_of_it(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5)
    chunks = Finding(check="chunks", severity="note", message="m", voids=("mean_itl_ms",))
    shelf.session(6, findings=(chunks,))
    pdserve("propose")
    last = cell_of(shelf).nights[-1]
    assert "mean_itl_ms" not in last.values
    assert "mean_ttft_ms" in last.values


def test_counts_are_those_of_the_newest_night(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5)
    shelf.session(6, metrics={"total_input_tokens": 2048.0, "completed": 5.0})
    pdserve("propose")
    assert cell_of(shelf).counts == {"total_input_tokens": 2048.0, "completed": 5.0, "failed": 0.0}


def test_a_night_in_which_every_judged_metric_is_void_is_none(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    runs = shelf.nights(2)
    void = Finding(check="offered", severity="note", message="m", voids=tuple(TYPICAL))
    shelf.session(3, findings=(void,))
    pdserve("propose")
    assert nights_of(cell_of(shelf)) == session_ids(proposed(shelf)) == runs


def test_nights_without_any_metric_that_is_judged_are_refused(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    void = Finding(check="offered", severity="note", message="m", voids=tuple(TYPICAL))
    shelf.session(1, findings=(void,))
    said = pdserve("propose", code=4)
    assert said == "pdserve: no run of 'p5-efa' has a judged metric\n"


def test_a_torn_record_is_left_out_and_named(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5)
    path = next(shelf.runs.rglob("*.0.record.json"))
    path.write_text("{")
    assert f"left out: {path} is not valid JSON" in pdserve("propose")


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("there", "torn"),
    [("}", ""), ('"schema_version": 1', '"schema_version": 99'), ("2026-11-03T", "2026-11-31T")],
    ids=["cut", "of another version", "on no day"],
)
def test_a_session_whose_own_file_cannot_be_read_is_told_by_its_records(
    there: str, torn: str, shelf: Shelf, pdserve: Pdserve
) -> None:
    nights = shelf.nights(5)
    path = shelf.runs / nights[2] / SESSION_FILE
    assert there in path.read_text()
    path.write_text(path.read_text().replace(there, torn))
    assert "2 cells of 5 nights, 5 in all (2026-11-01 to 2026-11-05)" in pdserve("propose")
    assert session_ids(proposed(shelf)) == nights


def test_few_nights_are_warned_of(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(14)
    shelf.session(15, cells=("dp",))
    assert (
        "WARNING: 1 of 2 cells have fewer than 15 nights: their limits are 2 floors at least, and "
        "their verdicts provisional\n" in pdserve("propose")
    )


@pytest.mark.slow
def test_a_change_within_the_nights_is_warned_of(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(14)
    shelf.nights(13, first=15, slower=0.08)
    said = pdserve("propose", "--last", "27")
    assert (
        f"WARNING: 4 metrics changed within these nights, newer half against older: 1p3d {WORKLOAD}"
        " mean_itl_ms worse, " in said
    )
    assert (
        "and 1 more; a baseline needs nights of one level: name their runs or take fewer with "
        "--last\n" in said
    )


def test_only_the_newest_versions_are_taken(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5)
    new = shelf.nights(5, first=11, versions={"vllm": "0.16.0", "nixl": "0.10.1"})
    said = pdserve("propose")
    assert (
        "left out: 5 sessions of another client, hardware or version: vllm 0.15.1, not 0.16.0\n"
        in said
    )
    assert session_ids(proposed(shelf)) == new


def test_nights_of_every_version_are_taken_on_request(shelf: Shelf, pdserve: Pdserve) -> None:
    old = shelf.nights(5)
    new = shelf.nights(5, first=11, versions={"vllm": "0.16.0", "nixl": "0.10.1"})
    other = shelf.session(16, fingerprint="ffffffffffff")
    shelf.session(17)
    said = pdserve("propose", "--any-version", *old, *new)
    assert "2 cells of 10 nights, 10 in all" in said
    said = pdserve("propose", "--any-version")
    assert (
        "left out: 1 session of another client, hardware or version: fingerprint ffffffffffff"
        in said
    )
    assert other not in session_ids(proposed(shelf))
    assert session_ids(proposed(shelf))[:10] == [*old, *new]


def test_what_differs_in_sessions_that_are_left_out_is_said(shelf: Shelf, pdserve: Pdserve) -> None:
    stack = {"vllm": "0.15.1", "torch": "2.9", "cuda": "12.9", "libfabric": "2.1"}
    for day, other in enumerate(
        ({"libfabric": "1.22"}, {"libfabric": "1.22"}, {"torch": "2.8"}), 1
    ):
        shelf.session(day, versions={**stack, **other})
    shelf.session(4, versions={**stack, "pytest-pdserve": "0.1"})
    shelf.session(5, versions={"vllm": "0.15.1", "torch": "2.9", "cuda": "12.9"})
    shelf.session(6, versions=stack, fingerprint="ffffffffffff")
    shelf.session(7, versions=stack)
    said = [row.strip() for row in pdserve("propose").splitlines() if "of another" in row]
    kind = "of another client, hardware or version"
    assert said == [
        f"left out: 1 session {kind}: fingerprint ffffffffffff, not 0123456789ab",
        f"left out: 1 session {kind}: libfabric unknown, not 2.1",
        f"left out: 1 session {kind}: torch 2.8, not 2.9",
        f"left out: 2 sessions {kind}: libfabric 1.22, not 2.1",
    ]
    assert len(proposed(shelf).sessions) == 2


def test_named_runs_must_agree(shelf: Shelf, pdserve: Pdserve) -> None:
    old = shelf.session(1)
    new = shelf.session(2, versions={"vllm": "0.16.0"})
    said = pdserve("propose", old, new, code=4)
    kind = "vllm 0.15.1, nixl 0.10.1, client vllm-command, fingerprint 0123456789ab"
    assert f"{old} ({kind}) cannot be mixed" in said


def test_an_unknown_run_is_refused(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(2)
    said = pdserve("propose", "20260101T000000-p5-efa", code=4)
    assert f"{Path('runs')}/20260101T000000-p5-efa holds no records of 'p5-efa'" in said


def test_no_records_are_refused(shelf: Shelf, pdserve: Pdserve) -> None:
    assert "runs holds no records of 'p5-efa'; make some with" in pdserve("propose", code=4)
    shelf.session(1, findings=(INVALID,))
    assert "holds no valid run of 'p5-efa'" in pdserve("propose", code=4)


def test_a_simulated_run_never_becomes_a_baseline(shelf: Shelf, pdserve: Pdserve) -> None:
    run = shelf.session(1, simulated=True)
    said = pdserve("propose", code=4)
    assert f"{run} was simulated, but 'p5-efa' is not; name the runs that are of it" in said


@pytest.mark.parametrize(
    ("system", "why"),
    [
        ("article", "'article' consists of figures: it has no measured sessions"),
        ("p6", "system 'p6' is unknown"),
    ],
)
def test_systems_without_nights_are_refused(
    system: str, why: str, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.session(1)
    assert main(["baseline", "propose", "--system", system]) == 4
    assert why in said_by(capsys).err


@pytest.mark.parametrize("last", ["0", "-3"])
def test_at_least_one_night_is_asked_for(last: str, shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.session(1)
    assert f"--last {last}: at least one night is needed" in pdserve(
        "propose", "--last", last, code=4
    )


def test_a_cell_of_which_a_run_was_invalid_has_no_such_night(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    shelf.nights(4)
    run = shelf.session(5, repeats=2)
    second = shelf.runs / run / "dp" / f"{WORKLOAD}.1.record.json"
    write_record(shelf.runs / run, replace(load_record(second), findings=(INVALID,)))
    pdserve("propose")
    assert run not in nights_of(cell_of(shelf))
    assert run in nights_of(cell_of(shelf, "1p3d"))
