"""CSV tables of nightly values: imported, proposed and judged without a line of code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.results.imported import Readable
from pytest_pdserve.results.imported import read_results
from pytest_pdserve.results.tables import load_table
from pytest_pdserve.values.errors import ConfigError
from tests.support.said import said_by

HEADER = "night,topology,workload,metric,value"


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str, header: str = HEADER, name: str = "nights.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join([header, *lines]))
        return path

    return write


Table = Callable[..., Path]


def one(path: Path) -> Readable:
    (found,), _ = read_results([path], None)
    return found


def test_lines_of_one_run_are_one_result(table: Table) -> None:
    found = one(
        table("2026-11-01,1p3d,chat,mean_ttft_ms,90", "2026-11-01,1p3d,chat,output_throughput,500")
    )
    assert found.run.result.raw == {"mean_ttft_ms": 90.0, "output_throughput": 500.0}
    assert (found.run.topology, found.workload.dataset) == ("1p3d", "chat")
    assert found.run.date is not None
    assert found.run.date.isoformat() == "2026-11-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("ttft_p50", "p50_ttft_ms"),
        ("ttft_p99", "p99_ttft_ms"),
        ("itl_median", "p50_itl_ms"),
        ("e2e_p50", "p50_e2el_ms"),
        ("median_tpot_ms", "p50_tpot_ms"),
        ("out_tok_s", "output_throughput"),
    ],
)
def test_other_spellings_of_metrics_are_read(theirs: str, ours: str, table: Table) -> None:
    assert one(table(f"2026-11-01,dp,chat,{theirs},7")).run.result.raw == {ours: 7.0}


def test_metrics_that_are_not_known_are_named(table: Table) -> None:
    found = one(table("2026-11-01,dp,chat,ttft_p50,7", "2026-11-01,dp,chat,vibes,8"))
    assert found.run.not_understood == ("vibes",)


def test_starts_are_counted_within_a_night(table: Table) -> None:
    rows, _ = load_table(
        table(
            *("2026-11-01,a,s7,1,ttft_p50,1", "2026-11-01,a,s9,1,ttft_p50,2"),
            *("2026-11-01,b,s7,1,ttft_p50,3", "2026-11-02,a,s9,1,ttft_p50,4"),
            header="night,cell,start,run,metric,value",
        )
    )
    assert [(row.data["night"], row.data["start"]) for row in rows] == [
        *(("2026-11-01", 0), ("2026-11-01", 1), ("2026-11-01", 0), ("2026-11-02", 0)),
    ]


def test_a_run_without_a_value_is_left_out_and_named(table: Table) -> None:
    path = table("2026-11-01,dp,chat,ttft_p50,", "2026-11-02,dp,chat,ttft_p50,7")
    results, left_out = read_results([path], None)
    assert len(results) == 1
    assert left_out == (
        f"{path} line 2: 2026-11-01 dp chat: the run has no value: it failed or was interrupted",
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2026-11-01,dp,chat,ttft_p50,fast", "line 2: value 'fast': expected a number"),
        ("2026-11-01,dp,chat,ttft_p50,-1", "line 2: value '-1': expected a number from 0"),
        ("2026-11-01,dp,chat,ttft_p50,nan", "line 2: value 'nan': expected a number from 0"),
        ("2026-11-01,dp,chat,ttft_p50", "line 2: 4 values, not 5"),
        ("soon,dp,chat,ttft_p50,1", "night = 'soon': expected a date such as 2026-11-28"),
        ("2026-11-01,3x,chat,ttft_p50,1", "topology '3x' is not of the form"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(line: str, said: str, table: Table) -> None:
    with pytest.raises(ConfigError) as caught:
        read_results([table(line)], None)
    assert said in str(caught.value)


def test_a_table_without_a_needed_column_is_refused(table: Table) -> None:
    with pytest.raises(ConfigError, match="expected each of night, workload, metric, value once"):
        read_results([table("1,2", header="night,value")], None)


def test_of_a_folder_all_tables_of_the_form_are_read_and_the_others_named(table: Table) -> None:
    path = table("2026-11-01,dp,chat,ttft_p50,7")
    other = table("1,2", header="a,b", name="other.csv")
    results, left_out = read_results([path.parent], None)
    assert len(results) == 1
    assert [sentence.startswith(f"{other}: header 'a,b'") for sentence in left_out] == [True]


def test_a_folder_of_other_tables_is_left_to_its_own_reader(table: Table) -> None:
    path = table("1,2", header="a,b", name="summary.csv")
    with pytest.raises(ConfigError, match="without a result of vllm bench sweep"):
        read_results([path.parent], None)


def test_a_folder_of_nightlies_is_imported_proposed_and_judged(
    table: Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    shutil.copytree(SHIPPED[0] / "p5-efa", tmp_path / "baselines" / "mine")
    lines = [f"2026-11-{day:02},dp,chat,ttft_p99,{100 + day % 3}" for day in range(1, 21)]
    table(*lines, "2026-11-21,dp,chat,ttft_p99,200")
    for command in (
        *("import --system mine .", "history import"),
        "baseline propose --system mine --history history --before 2026-11-21",
        "baseline accept --system mine --approver you",
    ):
        assert main(command.split()) == 0
    capsys.readouterr()
    assert main(["judge", "--system", "mine"]) == 6
    said = said_by(capsys).out
    assert "p99_ttft_ms 200 ms, reference 101 ms (20 nights): +98 %, limit +40 %" in said


def test_a_table_without_topologies_needs_one(
    table: Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    path = table("2026-11-01,chat,ttft_p99,100", header="night,workload,metric,value")
    command = ["import", "--system", "p5-efa", "nights.csv"]
    assert main(command) == 4
    assert said_by(capsys).err == (
        f"pdserve: {path.name} line 2: the table has no topology; give it with --topology, or add "
        "the column\n"
    )
    assert not (tmp_path / "runs").exists()
    assert main([*command, "--topology", "dp"]) == 0
