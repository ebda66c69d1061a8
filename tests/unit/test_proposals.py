"""Baselines proposed from stored nights, shown, accepted: through ``pdserve`` itself."""

from __future__ import annotations

import json
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
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sources import Sources
from tests.support.stored_nights import INVALID
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
        said = capsys.readouterr()
        text = said.err if code else said.out
        assert "Traceback" not in text
        return text

    return run


Pdserve = Callable[..., str]


def proposed(shelf: Shelf, name: str = "sweep.proposal") -> Baseline:
    path = shelf.folder / "baselines" / "p5-efa" / f"{name}.json"
    found = load_baseline(path, system=shelf.system, suite="sweep")
    assert found is not None
    return found


def sources(baseline: Baseline) -> Sources:
    assert baseline.provenance is not None
    return baseline.provenance


def session_ids(baseline: Baseline) -> list[str]:
    return list(sources(baseline).run_ids)


def nightly(envelope: Envelope) -> tuple[float | None, ...]:
    assert envelope.values is not None
    return envelope.values


def test_a_proposal_keeps_the_value_of_every_night(shelf: Shelf, pdserve: Pdserve) -> None:
    nights = shelf.nights(20)
    said = pdserve("propose")
    assert "2 cells of 20 nights, 20 in all (2026-11-01 to 2026-11-20)" in said
    assert "WARNING" not in said
    baseline = proposed(shelf)
    assert session_ids(baseline) == nights
    cell = baseline.cells["1p3d"][WORKLOAD]
    path = shelf.runs / nights[3] / "1p3d" / f"{WORKLOAD}.0.record.json"
    assert nightly(cell["mean_itl_ms"])[3] == json.loads(path.read_text())["metrics"]["mean_itl_ms"]
    assert cell["mean_itl_ms"].ref == pytest.approx(10.0, rel=0.01)
    assert cell["completed"].ref == 4.0
    assert cell["completed"].values is None
    provenance = sources(baseline)
    assert provenance.fingerprint == "0123456789ab"
    assert provenance.versions == {"vllm": "0.15.1", "nixl": "0.10.1"}
    assert provenance.nodes == ("node0", "node1")
    assert provenance.approver is None


def test_a_proposal_judges_nothing_until_it_is_accepted(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(15)
    pdserve("propose")
    folder = shelf.folder / "baselines" / "p5-efa"
    assert not (folder / "sweep.json").exists()
    said = pdserve("accept", "--approver", "Ada", "--note", "first nights on 0.15.1")
    assert f"next     git add {folder / 'sweep.json'}" in said
    accepted = proposed(shelf, "sweep")
    assert sources(accepted).approver == "Ada"
    assert sources(accepted).note == "first nights on 0.15.1"
    assert not (folder / "sweep.proposal.json").exists()
    assert "does not exist; make it with" in pdserve("accept", "--approver", "Ada", code=4)


def test_an_approver_has_a_name(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5)
    pdserve("propose")
    assert "--approver is empty" in pdserve("accept", "--approver", "  ", code=4)


@pytest.mark.parametrize(
    "arguments",
    [["baseline", "propose"], ["baseline", "accept", "--approver", "Ada"], ["calibrate"]],
    ids=lambda arguments: arguments[-1 if arguments[-1] != "Ada" else 1],
)
def test_nothing_is_kept_inside_the_installed_package(
    arguments: list[str],
    shelf: Shelf,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shelf.nights(5)
    own = Path(shelf.system.source)
    monkeypatch.setattr(folders, "_PACKAGE", shelf.folder)
    before = set(own.parent.iterdir())
    assert main([*arguments, "--system", "p5-efa"]) == 4
    assert capsys.readouterr().err == (
        f"pdserve: {own} lies inside the installed package, so nothing of yours can be kept beside "
        f"it; make the system your own: mkdir -p baselines && cp -r {own.parent} baselines/\n"
    )
    assert set(own.parent.iterdir()) == before


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
    baseline = proposed(shelf)
    values = {t: nightly(w[WORKLOAD]["mean_itl_ms"]) for t, w in baseline.cells.items()}
    there = {t: [v is not None for v in found] for t, found in values.items()}
    assert there["1p3d"] == [True, True, True, False, False, True]
    assert there["dp"] == [False, False, True, True, True, True]


def test_the_first_session_stands_for_a_night(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5)
    late = shelf.session(6, 4)  # of the night of the 5th
    said = pdserve("propose")
    assert "left out: 1 session of a night of which others have all its cells" in said
    assert late not in session_ids(proposed(shelf))
    assert "6 in all" in pdserve("propose", "--every-session")


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
    baseline = proposed(shelf)
    assert session_ids(baseline)[4:] == [whole]
    for topology, run in (("dp", torn), ("1p3d", whole)):
        path = shelf.runs / run / topology / f"{WORKLOAD}.0.record.json"
        value = nightly(baseline.cells[topology][WORKLOAD]["mean_itl_ms"])[-1]
        assert value == json.loads(path.read_text())["metrics"]["mean_itl_ms"]


def test_confirmation_runs_are_no_nights(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5, repeats=4)
    pdserve("propose")
    envelope = proposed(shelf).cells["dp"][WORKLOAD]["mean_itl_ms"]
    assert envelope.runs == 5 == len(nightly(envelope))


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
    cell = proposed(shelf).cells["dp"][WORKLOAD]
    assert nightly(cell["mean_itl_ms"])[-1] is None
    assert nightly(cell["mean_ttft_ms"])[-1] is not None


def test_counts_that_differ_are_left_out_with_the_reason(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5)
    shelf.session(6, metrics={"total_input_tokens": 2048.0, "completed": 5.0})
    said = pdserve("propose")
    assert "completed: it is not the same in all runs (left out of 2 cells)" in said
    assert "total_input_tokens: some runs lack it (left out of 2 cells)" in said


def test_a_torn_record_is_left_out_and_named(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5)
    path = next(shelf.runs.rglob("*.0.record.json"))
    path.write_text("{")
    assert f"left out: {path.relative_to(shelf.folder)} is no valid JSON" in pdserve("propose")


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
    shelf.nights(6)
    assert "8 of 8 tests have fewer than 15 nights" in pdserve("propose")


def test_a_change_on_the_way_is_warned_of(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(10)
    shelf.nights(10, first=11, slower=0.04)
    said = pdserve("propose")
    assert "tests changed on the way, newer half against older: " in said
    assert "worse" in said


def test_far_values_are_warned_of_and_kept(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(15)
    shelf.session(16, slower=0.3, cells=("dp",))
    said = pdserve("propose")
    assert "values" in said
    assert "lie more than 6 MAD from the others: kept, but not in the reference" in said
    envelope = proposed(shelf).cells["dp"][WORKLOAD]["mean_itl_ms"]
    assert envelope.ref == pytest.approx(10.0, rel=0.01)
    assert max(v for v in nightly(envelope) if v) > 12


def test_cells_that_would_be_lost_are_warned_of(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(15)
    pdserve("propose")
    pdserve("accept", "--approver", "Ada")
    new = [shelf.session(day, cells=("dp",)) for day in range(20, 25)]
    said = pdserve("propose", *new)
    assert "1 cells of the present baseline were not measured in these nights" in said
    assert "gone" in pdserve("diff")


def test_only_the_newest_versions_are_taken(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5)
    new = shelf.nights(5, first=11, versions={"vllm": "0.16.0", "nixl": "0.10.1"})
    said = pdserve("propose")
    assert "left out: 5 sessions of other hardware or versions: vllm 0.15.1, not 0.16.0\n" in said
    assert session_ids(proposed(shelf)) == new


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
    said = [row.strip() for row in pdserve("propose").splitlines() if "of other" in row]
    kind = "of other hardware or versions"
    assert said == [
        f"left out: 1 session {kind}: fingerprint ffffffffffff, not 0123456789ab",
        f"left out: 1 session {kind}: libfabric unknown, not 2.1",
        f"left out: 1 session {kind}: torch 2.8, not 2.9",
        f"left out: 2 sessions {kind}: libfabric 1.22, not 2.1",
    ]
    assert len(proposed(shelf).runs) == 2


def test_named_runs_must_agree(shelf: Shelf, pdserve: Pdserve) -> None:
    old = shelf.session(1)
    new = shelf.session(2, versions={"vllm": "0.16.0"})
    said = pdserve("propose", old, new, code=4)
    assert f"{old} (vllm 0.15.1, nixl 0.10.1, fingerprint 0123456789ab) cannot be mixed" in said


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
        ("article", "'article' is figures: nothing of it was ever measured"),
        ("local-cpu", "runs holds no records of 'local-cpu'"),
        ("p6", "system 'p6' is unknown"),
    ],
)
def test_systems_without_nights_are_refused(
    system: str, why: str, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.session(1)
    assert main(["baseline", "propose", "--system", system]) == 4
    assert why in capsys.readouterr().err


def test_times_that_a_host_keeps_are_not_proposed(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.session(1, system="local-cpu")
    assert main(["baseline", "propose", "--system", "local-cpu"]) == 4
    assert "'local-cpu' keeps its times per host" in capsys.readouterr().err


@pytest.mark.parametrize("last", ["0", "-3"])
def test_at_least_one_night_is_asked_for(last: str, shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.session(1)
    assert f"--last {last}: at least one night is needed" in pdserve(
        "propose", "--last", last, code=4
    )


def test_the_difference_shows_what_moved_by_more_than_the_floor(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    shelf.nights(6)
    pdserve("propose")
    said = pdserve("diff")
    assert "sweep.json does not exist" in said
    assert "12 new, 0 gone, 12 in all; the others with --all" in said
    assert "mean_itl_ms" not in said
    assert "mean_itl_ms" in pdserve("diff", "--all")
    pdserve("accept", "--approver", "Ada")
    new = shelf.nights(6, first=11, slower=0.05)
    pdserve("propose", *new)
    said = pdserve("diff")
    assert "old  " in said
    assert "p99_ttft_ms" not in said  # 5 % is below its floor of 10 %
    (line,) = [row for row in said.splitlines() if " dp " in row and "output_throughput" in row]
    assert line.split()[-1] == "worse"
    assert "worse and 0 better by more than their practical floor, 0 new, 0 gone, 12 in all" in said
    assert "p99_ttft_ms" in pdserve("diff", "--all")


def test_a_fixed_limit_stays_one_with_its_known_issue(shelf: Shelf, pdserve: Pdserve) -> None:
    path = shelf.folder / "baselines" / "p5-efa" / "system.toml"
    path.write_text(f"{path.read_text()}\n[judgement.rtol]\nmean_itl_ms = 0.2\n")
    shelf.nights(5)
    pdserve("propose")
    pdserve("accept", "--approver", "Ada")
    accepted = shelf.folder / "baselines" / "p5-efa" / "sweep.json"
    data: dict[str, Any] = json.loads(accepted.read_text())
    entry = data["cells"]["dp"][WORKLOAD]["mean_itl_ms"]
    assert entry["rtol"] == 0.2
    assert "values" not in entry
    entry["known_issue"] = "vllm#1"
    accepted.write_text(json.dumps(data))
    pdserve("propose")
    cell = proposed(shelf).cells["dp"][WORKLOAD]
    assert cell["mean_itl_ms"].known_issue == "vllm#1"
    assert cell["mean_ttft_ms"].values


@pytest.mark.parametrize(
    "broken", ["{", '{"schema_version": 1}', '{"schema_version": 2}', '{"schema_version": 3}', "[]"]
)
def test_a_broken_proposal_is_refused_in_a_sentence(
    broken: str, shelf: Shelf, pdserve: Pdserve
) -> None:
    path = shelf.folder / "baselines" / "p5-efa" / "sweep.proposal.json"
    path.write_text(broken)
    for step in (("diff",), ("accept", "--approver", "Ada")):
        said = pdserve(*step, code=4)
        assert said.startswith(f"pdserve: {path}")
        assert said.count("\n") == 1


def test_a_cell_of_which_a_run_was_invalid_has_no_value_of_that_night(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    shelf.nights(4)
    run = shelf.session(5, repeats=2)
    second = shelf.runs / run / "dp" / f"{WORKLOAD}.1.record.json"
    write_record(shelf.runs / run, replace(load_record(second), findings=(INVALID,)))
    pdserve("propose")
    cells = proposed(shelf).cells
    assert nightly(cells["dp"][WORKLOAD]["mean_itl_ms"])[-1] is None
    assert nightly(cells["1p3d"][WORKLOAD]["mean_itl_ms"])[-1] is not None
