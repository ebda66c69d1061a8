"""``pdserve plot``, and sessions' figures from their records."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.commands.plot import csv_text
from pytest_pdserve.commands.plot import file_name
from pytest_pdserve.report.figures.session import cells_of_session
from pytest_pdserve.report.figures.session import every_plot
from pytest_pdserve.report.figures.spent import time_plots
from pytest_pdserve.results.store import MAX_NAME
from pytest_pdserve.results.store import load_times
from tests.support.house import WORKLOAD
from tests.support.house import House
from tests.support.said import said_by


def test_each_figure_is_written_with_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "figures"
    assert main(["plot", "article", "--metric", "mean_itl_ms", "--out", str(out)]) == 0
    names = [out / f"mean-itl-ms.{ending}" for ending in ("svg", "png", "csv")]
    assert said_by(capsys).out == "".join(f"written  {path}\n" for path in names)
    assert sorted(out.iterdir()) == sorted(names)
    assert ET.parse(names[0]).getroot().get("width") is not None
    assert names[1].read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(names[2].read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 40
    assert (rows[0]["topology"], rows[0]["value"], rows[0]["invalid"]) == ("dp", "49.09", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["article", "--metric", "itl"],
            "pdserve: --metric 'itl' is not a metric; known are mean_ttft_ms, ",
        ),
        (["nowhere"], "pdserve: 'nowhere' is not a file, a folder, a session in "),
        (["article", "--max-trends", "0"], "pdserve: --max-trends 0: expected at least 1\n"),
        (
            ["article", "--topology", "9p9d"],
            "pdserve: article has no value to draw: expected one of output_throughput, ",
        ),
    ],
    ids=["no metric", "no source", "no trend", "no cell"],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures"
    assert main(["plot", *arguments, "--out", str(out)]) == 4
    found = said_by(capsys).err
    assert found.startswith(said)
    assert found.count("\n") == 1
    assert not out.exists()


def test_without_matplotlib_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", "article"]) == 4
    said = "pdserve: figures need Matplotlib: pip install 'pytest-pdserve[plot]'\n"
    assert said_by(capsys).err == said


def test_a_session_has_its_distributions_and_its_time(house: House) -> None:
    house.suites("sweep")
    house.run("--topology", "dp").assert_outcomes(passed=1, skipped=1)
    (session,) = (house.path / "runs").iterdir()
    plots = [*every_plot(cells_of_session(session)), *time_plots(load_times(session))]
    found = {plot.name: plot.rows for plot in plots}
    assert list(found)[-3:] == ["ttft-distribution", "itl-distribution", "session-time"]
    (row,), (record,) = found["mean-itl-ms-by-load"], house.records()
    assert (row["workload"], row["value"]) == (WORKLOAD, record["metrics"]["mean_itl_ms"])


def test_names_of_files_are_safe_and_short() -> None:
    assert file_name("trend-dp-a/b c:é-mean") == "trend-dp-a_b_c__-mean"
    long = [file_name("x" * 1000 + end) for end in ("a", "b")]
    assert [len(name) for name in long] == [MAX_NAME] * 2
    assert long[0] != long[1]


def test_numbers_that_are_missing_are_empty() -> None:
    assert csv_text([{"a": 1.5, "b": None}, {"a": "x,y", "b": False}]) == (
        'a,b\n1.5,\n"x,y",False\n'
    )
    assert csv_text([]) == "\n"
