"""Proposals that become the baseline: what differs, and in whose name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from pathlib import Path

import pytest
from filelock import FileLock

from pytest_pdserve.commands.main import main
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import write_baseline
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.record import Record
from tests.support.said import said_by
from tests.support.stored_nights import Shelf
from tests.support.stored_nights import typical_baseline

WORKLOAD = "random-512-256-n4"
ACCEPT = ("accept", "--approver", "Ada")


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    """A project whose nights all show the same but for what a test makes slower."""
    monkeypatch.chdir(tmp_path)
    return Shelf(folder=tmp_path, make_record=make_record, night_sd=0.0, run_sd=0.0)


@pytest.fixture
def pdserve(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a step of ``pdserve baseline`` on p5-efa; the code it must end with is given."""

    def run(*arguments: str, code: int = 0) -> str:
        assert main(["baseline", *arguments, "--system", "p5-efa"]) == code
        said = said_by(capsys)
        text = said.err if code else said.out
        assert "Traceback" not in text
        return text

    return run


Pdserve = Callable[..., str]


def path_of(shelf: Shelf, name: str = "sweep") -> Path:
    return shelf.folder / "baselines" / "p5-efa" / f"{name}.json"


def accepted(shelf: Shelf) -> Baseline:
    found = load_baseline(path_of(shelf), system=shelf.system)
    assert found is not None
    return found


def test_a_proposal_is_no_baseline_until_it_is_accepted(shelf: Shelf, pdserve: Pdserve) -> None:
    nights = shelf.nights(15)
    pdserve("propose")
    assert not path_of(shelf).exists()
    said = pdserve(*ACCEPT)
    assert said == f"accepted  {path_of(shelf)}\nnext     git add {path_of(shelf)}\n"
    assert [source.id for source in accepted(shelf).sessions] == nights


def test_a_baseline_says_who_accepted_it_when_and_why(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(1)
    pdserve("propose")
    pdserve("accept", "--approver", " Ada ", "--note", "first nights on 0.15.1")
    found = accepted(shelf)
    assert (found.approver, found.note) == ("Ada", "first nights on 0.15.1")
    assert found.accepted_on == datetime.now(UTC).date().isoformat()


def test_a_proposal_is_accepted_once(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(1)
    pdserve("propose")
    pdserve(*ACCEPT)
    assert pdserve(*ACCEPT, code=4) == (
        f"pdserve: {path_of(shelf, 'sweep.proposal')} does not exist; make it with pdserve "
        "baseline propose --system p5-efa\n"
    )


def test_an_approver_has_a_name(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(5)
    pdserve("propose")
    assert pdserve("accept", "--approver", "  ", code=4) == (
        "pdserve: --approver is empty; expected who approves this baseline\n"
    )


def test_a_note_is_one_line(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(1)
    pdserve("propose")
    said = pdserve(*ACCEPT, "--note", "two\nlines", code=4)
    assert said.startswith(f"pdserve: {path_of(shelf)}: /note: 'two\\nlines' does not match")
    assert not path_of(shelf).exists()
    pdserve(*ACCEPT, "--note", "one line")


def test_nothing_is_accepted_while_a_session_writes(
    shelf: Shelf, pdserve: Pdserve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_pdserve.results.baselines._LOCK_S", 0.01)
    shelf.nights(1)
    pdserve("propose")
    with FileLock(path_of(shelf).with_name(".sweep.json.lock")):
        said = pdserve(*ACCEPT, code=7)
    assert said == (
        f"pdserve: {path_of(shelf)} has been locked by another session for 0.01 s; wait for that "
        "session, or end it\n"
    )
    assert path_of(shelf, "sweep.proposal").exists()


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize(
    "broken",
    [
        *("{", "[]", '{"schema_version": 1}', '{"schema_version": 2}', '{"schema_version": 3}'),
        '{"schema_version": 3, "system": "h200-ib", "suite": "sweep"}',
    ],
    ids=["cut", "a list", "version 1", "version 2", "version 3", "of another system"],
)
@pytest.mark.parametrize("step", [("diff",), ACCEPT], ids=lambda step: step[0])
def test_a_broken_proposal_is_refused_in_a_sentence(
    step: tuple[str, ...], broken: str, shelf: Shelf, pdserve: Pdserve
) -> None:
    path_of(shelf, "sweep.proposal").write_text(broken)
    said = pdserve(*step, code=4)
    assert said.startswith(f"pdserve: {path_of(shelf, 'sweep.proposal')}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("step", [("propose",), ("diff",), ACCEPT], ids=lambda step: step[0])
def test_references_of_single_hosts_are_not_proposed(
    step: tuple[str, ...], shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.session(1, system="local-cpu")
    assert main(["baseline", *step, "--system", "local-cpu"]) == 4
    assert said_by(capsys).err == (
        "pdserve: 'local-cpu' has references of each host ([judgement] host_references), which "
        "nights join automatically; to start again, move away the file that the session prints\n"
    )


def test_a_first_proposal_is_all_new(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(1)
    pdserve("propose")
    assert pdserve("diff").splitlines() == [
        f"old  {path_of(shelf)} does not exist",
        f"new  {path_of(shelf, 'sweep.proposal')} (vLLM 0.15.1, NIXL 0.10.1)",
        "0 metrics worse and 0 better by more than their floor, 8 new, 0 gone, 8 in all; the "
        "others with --all",
        "next     pdserve baseline accept --system p5-efa --approver NAME",
    ]


def test_the_difference_shows_what_moved_by_more_than_the_floor(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    shelf.baseline(cells=("dp",))
    shelf.nights(5, cells=("dp",), slower=0.05)
    pdserve("propose")
    old, new, *table, total, _ = pdserve("diff").splitlines()
    assert old == f"old  {path_of(shelf)} (vLLM 0.15.1, NIXL 0.10.1)"
    assert new == f"new  {path_of(shelf, 'sweep.proposal')} (vLLM 0.15.1, NIXL 0.10.1)"
    assert [" ".join(line.split()) for line in table if "dp" in line] == [
        f"dp {WORKLOAD} mean_itl_ms ms 10 (20 nights) 10.51 (5 nights) +5.1 %",
        f"dp {WORKLOAD} output_throughput tok/s 500 (20 nights) 475.6 (5 nights) -4.9 %",
    ]
    assert total == (
        "2 metrics worse and 0 better by more than their floor, 0 new, 0 gone, 4 in all; the "
        "others with --all"
    )


def test_small_changes_are_shown_on_request(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.baseline(cells=("dp",))
    shelf.nights(5, cells=("dp",), slower=0.05)
    pdserve("propose")
    said = pdserve("diff", "--all")
    assert "p99_ttft_ms" in said
    assert "4 in all\n" in said


def test_what_is_better_is_counted_by_itself(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.baseline(cells=("dp",))
    shelf.nights(5, cells=("dp",), slower=-0.05)
    pdserve("propose")
    assert "0 metrics worse and 2 better by more than their floor" in pdserve("diff")


def test_hardware_that_changed_is_said(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.baseline(host={"cpu": "EPYC"})
    shelf.nights(1)
    pdserve("propose")
    assert "\n  cpu was EPYC, is Xeon\n" in pdserve("diff")


def test_cells_that_would_be_lost_are_warned_of(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.baseline()
    shelf.nights(15, cells=("dp",))
    assert (
        "  WARNING: 1 cells of the current baseline were not measured in these nights and would "
        f"be removed: 1p3d {WORKLOAD}\n" in pdserve("propose")
    )
    assert "4 gone, 8 in all" in pdserve("diff")


def test_a_baseline_that_cannot_be_read_is_not_replaced(shelf: Shelf, pdserve: Pdserve) -> None:
    path_of(shelf).write_text("{")
    shelf.nights(1)
    assert pdserve("propose", code=4).startswith(f"pdserve: {path_of(shelf)} is not valid JSON")


def test_what_was_accepted_is_what_was_proposed(shelf: Shelf, pdserve: Pdserve) -> None:
    proposal = typical_baseline(3)
    write_baseline(path_of(shelf, "sweep.proposal"), proposal)
    pdserve(*ACCEPT)
    found = accepted(shelf)
    assert (found.cells, found.sessions) == (proposal.cells, proposal.sessions)
