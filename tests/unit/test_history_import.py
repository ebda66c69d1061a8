"""``pdserve history import`` of what is not a run folder: records, and results of other tools."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.history.store import Store
from pytest_pdserve.values.record import Record
from tests.support.foreign import result_file
from tests.support.said import said_by
from tests.support.stored_nights import Shelf

AT = ("--system", "p5-efa", "--topology", "1p3d")
Pdserve = Callable[..., str]


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return Shelf(folder=tmp_path, make_record=make_record)


@pytest.fixture
def pdserve(capsys: pytest.CaptureFixture[str]) -> Pdserve:
    """Runs ``pdserve``; the code that it must end with is given."""

    def run(*arguments: str, code: int = 0) -> str:
        assert main(arguments) == code
        said = said_by(capsys)
        return said.err if code == 4 else said.out

    return run


def runs_in(shelf: Shelf) -> set[tuple[str, str]]:
    values = Store.open(shelf.folder / "history").values()
    return set(zip(values["session"], values["topology"], strict=True))


def copied(shelf: Shelf, run_id: str, *topologies: str) -> list[str]:
    """Copy records of a session out of its run folder, and return the files."""
    (shelf.folder / "copies").mkdir(exist_ok=True)
    made = []
    for topology in topologies:
        (record,) = (shelf.runs / run_id / topology).glob("*.record.json")
        made.append(shutil.copy(record, shelf.folder / "copies" / f"{topology}-{run_id}.json"))
    return [str(path) for path in made]


def test_records_are_imported_one_by_one_into_their_session(shelf: Shelf, pdserve: Pdserve) -> None:
    run_id = shelf.session(1)
    first, second = copied(shelf, run_id, "dp", "1p3d")
    pdserve("history", "import", first)
    assert runs_in(shelf) == {(run_id, "dp")}
    said = pdserve("history", "import", second)
    assert said.startswith(f"imported {run_id}, 2 runs\n1 sessions imported, 0 were there")
    assert runs_in(shelf) == {(run_id, "dp"), (run_id, "1p3d")}
    said = pdserve("history", "import", first, second)
    assert said == "0 sessions imported, 1 were there, 1 in all (1 before)\n"


def test_a_folder_of_records_is_imported_and_its_run_folder_adds_the_rest(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    nights = shelf.nights(2)
    for run_id in nights:
        copied(shelf, run_id, "dp")
    pdserve("history", "import", "copies")
    assert runs_in(shelf) == {(run_id, "dp") for run_id in nights}
    pdserve("history", "import")
    assert runs_in(shelf) == {(run_id, name) for run_id in nights for name in ("dp", "1p3d")}


def test_results_of_other_tools_become_records_and_then_sessions(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    folder = shelf.folder / "results"
    folder.mkdir()
    for day in (1, 2):
        result_file(folder, f"night-{day}.json", date=f"2026110{day}-220000")
    (folder / "notes.json").write_text('{"a": 1}')
    (folder / "readme.md").write_text("results")
    said = pdserve("history", "import", "results", *AT)
    assert "2 sessions imported, 0 were there, 2 in all (0 before)\n" in said
    assert said.count("left out: results/notes.json: an object of a is not a result") == 1
    assert {session[:8] for session, _ in runs_in(shelf)} == {"20261101", "20261102"}
    assert len(list(shelf.runs.rglob("*.record.json"))) == 2
    again = pdserve("history", "import", "results", *AT)
    assert "0 sessions imported, 2 were there, 2 in all (2 before)\n" in again


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("result.json", (), "pdserve history import needs --topology and --system"),
        ("nights.csv", (), "pdserve history import needs --system"),
        ("empty.json", AT, "empty.json is empty: expected a result in JSON or YAML"),
        ("folder", AT, "folder has no readable record or result; the first: "),
    ],
    ids=["what served", "system", "an empty file", "a folder of none"],
)
def test_what_is_missing_is_named_and_nothing_is_written(
    name: str, arguments: tuple[str, ...], said: str, shelf: Shelf, pdserve: Pdserve
) -> None:
    result_file(shelf.folder)
    (shelf.folder / "empty.json").write_text("")
    (shelf.folder / "nights.csv").write_text(
        "night,topology,workload,metric,value\n2026-11-01,dp,chat,mean_ttft_ms,100\n"
    )
    (shelf.folder / "folder").mkdir()
    (shelf.folder / "folder" / "notes.json").write_text('{"a": 1}')
    assert pdserve("history", "import", name, *arguments, code=4).startswith(f"pdserve: {said}")
    assert not shelf.runs.exists()


METRICS = {"mean_ttft_ms": 100.0, "ttft_p99": 180.0, "out_tok_s": 500.0}


def nightlies(folder: Path, nights: int, *, slower: float) -> None:
    """Write a table of so many nights of two loads, the last of which is slower."""
    folder.mkdir()
    lines = ["night,cell,start,run,metric,value,version"]
    for day in range(1, nights + 1):
        worse = 1 + slower if day == nights else 1 + 0.002 * (day % 3)
        for load in ("rate1", "rate2"):
            for name, value in METRICS.items():
                shown = value / worse if name == "out_tok_s" else value * worse
                lines.append(f"2026-11-{day:02},{load},s{day},1,{name},{shown},v{day}")
    (folder / "mine.csv").write_text("\n".join(lines))
    (folder / "other.csv").write_text("arm,metric,value\nA,ttft,1\n")


def test_foreign_nightlies_are_imported_proposed_and_the_newest_judged(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    """Every command of docs/history.md, on a made-up table of the public nightlies' form."""
    nightlies(shelf.folder / "nightlies", 20, slower=0.2)
    said = pdserve("history", "import", "nightlies", *AT)
    assert said.count("left out: nightlies/other.csv: header ") == 1
    assert "20 sessions imported, 0 were there, 20 in all (0 before)\n" in said
    propose = ("baseline", "propose", "--history", "history", "--system", "p5-efa")
    said = pdserve(*propose, "--any-version", "--before", "2026-11-20")
    assert "  2 cells of 19 nights, 19 in all (2026-11-01 to 2026-11-19)\n" in said
    pdserve("baseline", "accept", "--system", "p5-efa", "--approver", "ann")
    said = pdserve("judge", "--system", "p5-efa", code=6)  # slower in one run; three confirm it
    assert said.count("SUSPICIOUS: 1p3d, rate") == 2
    assert "out_tok_s" not in said
    report = pdserve("report", "--format", "md")
    assert report.startswith("## SUSPICIOUS on p5-efa: 3 SUSPICIOUS\n")
    assert "changed since the night before, 2026-11-19: vLLM v19 -&gt; v20" in report
