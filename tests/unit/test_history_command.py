"""``pdserve history`` and what ``pdserve baseline`` takes from it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.record import Record
from tests.support.said import said_by
from tests.support.stored_nights import INVALID
from tests.support.stored_nights import Shelf

WORKLOAD = "random-512-256-n4"
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


def proposed(shelf: Shelf) -> Baseline:
    path = shelf.folder / "baselines" / "p5-efa" / "sweep.proposal.json"
    found = load_baseline(path, system=shelf.system)
    assert found is not None
    return found


PROPOSE = ("baseline", "propose", "--system", "p5-efa")


def test_an_import_says_what_was_added(shelf: Shelf, pdserve: Pdserve) -> None:
    first, second = shelf.nights(2)
    assert pdserve("history", "import") == (
        f"imported {first}, 2 runs\nimported {second}, 2 runs\n"
        "2 sessions imported, 0 were there, 2 in all (0 before)\n"
    )
    assert (
        pdserve("history", "import") == "0 sessions imported, 2 were there, 2 in all (2 before)\n"
    )


@pytest.mark.slow
def test_many_nights_of_a_month_are_joined(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.nights(20)
    said = pdserve("history", "import")
    assert said.endswith("20 files of one session each were joined to one a month\n")
    assert len(list((shelf.folder / "history" / "values").rglob("*.parquet"))) == 1


def test_a_torn_record_is_named_and_the_others_are_imported(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = shelf.session(1)
    torn = shelf.runs / run_id / "dp" / f"{WORKLOAD}.0.record.json"
    torn.write_text("{")
    assert main(["history", "import"]) == 0
    said = said_by(capsys)
    assert f"imported {run_id}, 1 runs" in said.out
    assert said.err.startswith(f"pdserve: {torn} is not valid JSON")


def test_a_folder_of_nothing_is_told_by_the_exit_code(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.runs.mkdir()
    said = pdserve("history", "import", code=6)
    assert said == "0 sessions imported, 0 were there, 0 in all (0 before)\n"


def test_the_list_has_each_session_and_why_it_is_excluded(shelf: Shelf, pdserve: Pdserve) -> None:
    first, second = shelf.nights(2)
    pdserve("history", "import")
    pdserve("history", "exclude", second, "--reason", "node h04 throttled")
    rows = [row.split() for row in pdserve("history", "list").splitlines()]
    assert ["2026-11-01", first, "p5-efa", "0.15.1", "0", "2", "0"] in rows
    counts = ["0", "2", "0"]
    assert ["2026-11-02", second, "p5-efa", "0.15.1", *counts, "node", "h04", "throttled"] in rows
    assert rows[-1][-2:] == ["1", "excluded"]


def test_a_cell_is_shown_night_by_night(shelf: Shelf, pdserve: Pdserve) -> None:
    first, second = shelf.nights(2, metrics={"mean_ttft_ms": 111.0})
    pdserve("history", "import")
    said = pdserve("history", "show", "dp", "random-512")
    rows = [row.split() for row in said.splitlines() if "2026-11" in row]
    assert [row[:4] for row in rows] == [
        ["2026-11-01", first, "vllm-command", "111"],
        ["2026-11-02", second, "vllm-command", "111"],
    ]


def test_a_session_is_shown_with_what_was_wrong(shelf: Shelf, pdserve: Pdserve) -> None:
    run_id = shelf.session(1, cells=("dp",), findings=(INVALID,))
    pdserve("history", "import")
    said = pdserve("history", "show", run_id)
    assert "  versions     nixl 0.10.1, vllm 0.15.1\n" in said
    assert "  runs         0 valid, 0 unproven, 1 invalid\n" in said
    assert said.endswith(f"output_throughput, p99_ttft_ms: {INVALID.message}\n")


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--last", "0"), "--last 0: expected at least 1"),
        (("show", "x"), "{history} holds no session 'x'; pdserve history list shows all"),
        (
            ("show", "a", "b", "c"),
            "show takes one argument, SESSION, or two, TOPOLOGY WORKLOAD; got 3",
        ),
        (
            ("show", "dp", "sharegpt"),
            "WORKLOAD 'sharegpt': expected the prefix of one workload of that topology in the "
            f"history: {WORKLOAD}",
        ),
        (
            ("exclude", "{run}", "--reason", " "),
            "--reason is empty; expected why the session is excluded",
        ),
        (
            ("exclude", "{run}", "--reason", "why", "--undo"),
            "{run} is not excluded; nothing was written",
        ),
        (
            ("list", "--history", "none"),
            "history 'none': expected a folder; make it with pdserve history import",
        ),
        (("import", "result.json"), "result.json cannot be read: No such file or directory"),
    ],
    ids=["last", "session", "words", "cell", "reason", "undo", "no history", "a file"],
)
def test_what_cannot_be_is_refused(
    arguments: tuple[str, ...], said: str, shelf: Shelf, pdserve: Pdserve
) -> None:
    run_id = shelf.session(1)
    pdserve("history", "import")
    given = [each.replace("{run}", run_id) for each in arguments]
    expected = said.replace("{run}", run_id).replace("{history}", str(shelf.folder / "history"))
    assert pdserve("history", *given, code=4) == f"pdserve: {expected}\n"


# Baselines.


def test_a_proposal_from_the_history_is_that_from_the_runs_folder(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    shelf.session(1, repeats=3)
    shelf.nights(4, first=2)
    shelf.session(6, findings=(INVALID,))
    pdserve(*PROPOSE)
    from_runs = proposed(shelf)
    pdserve("history", "import")
    shelf.runs.rename(shelf.folder / "away")
    pdserve(*PROPOSE, "--history", "history")
    assert proposed(shelf) == from_runs


def test_an_excluded_night_is_kept_out_of_a_proposal_and_named(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    *kept, broken = shelf.nights(5)
    pdserve("history", "import")
    pdserve("history", "exclude", broken, "--reason", "broken output")
    said = pdserve(*PROPOSE, "--history", "history")
    assert [source.id for source in proposed(shelf).sessions] == kept
    assert f"  left out: excluded: {broken}: broken output\n" in said


def test_only_nights_before_a_date_are_proposed(shelf: Shelf, pdserve: Pdserve) -> None:
    nights = shelf.nights(5)
    pdserve(*PROPOSE, "--before", "2026-11-04")
    assert [source.id for source in proposed(shelf).sessions] == nights[:3]
    assert pdserve(*PROPOSE, "--before", "2026-11-01", code=4) == (
        "pdserve: --before 2026-11-01: the first night is 2026-11-01\n"
    )
    assert pdserve(*PROPOSE, "--before", "soon", code=4) == (
        "pdserve: --before 'soon': expected a date such as 2026-11-28\n"
    )


def test_a_proposal_says_what_moves_by_how_much_and_what_changed(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    shelf.baseline()
    shelf.nights(5, slower=0.1, versions={"vllm": "0.16.0", "nixl": "0.10.1"})
    said = pdserve(*PROPOSE)
    assert "  changed: vllm was 0.15.1, is 0.16.0\n" in said
    moved = [row.split() for row in said.splitlines() if "mean_itl_ms" in row]
    assert [(row[0], row[2]) for row in moved] == [("1p3d", "mean_itl_ms"), ("dp", "mean_itl_ms")]
    assert re.search(r"^[46] metrics worse and 0 better by more than their floor", said, re.M)


def test_a_baseline_is_shown_with_median_spread_limit_age_and_what_it_sees(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    shelf.baseline()
    said = pdserve("baseline", "show", "--system", "p5-efa")
    row = next(row.split() for row in said.splitlines() if "1p3d" in row and "mean_itl" in row)
    assert row[:4] == ["1p3d", WORKLOAD, "mean_itl_ms", "ms"]
    assert row[4:12] == ["10", "0.0", "%", "+4", "%", "+4", "%", "20"]  # every night the same
    assert row[12] == "2026-10-20"


@pytest.mark.usefixtures("shelf")
def test_a_system_without_a_baseline_has_none_to_show(pdserve: Pdserve) -> None:
    said = pdserve("baseline", "show", "--system", "p5-efa", code=4)
    assert "sweep.json does not exist; make it with pdserve baseline propose" in said
