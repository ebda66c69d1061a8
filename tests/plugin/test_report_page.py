"""A session's page, and how its summary ends."""

from __future__ import annotations

import pytest

from tests.support.pages import Page
from tests.support.simulated import CELL
from tests.support.simulated import DP
from tests.support.simulated import SimulatedProject
from tests.support.simulated import Values

HEADLINE = "FAIL on sim (SIMULATED, no server ran): 1 FAIL"


@pytest.fixture
def slow(sim: SimulatedProject, clean: Values) -> SimulatedProject:
    """A project in which one cell of dp FAILs."""
    sim.draw(clean, slow={("dp", 512): 0.06})
    return sim


def ending(result: pytest.RunResult) -> list[str]:
    """Return the last two lines of the summary."""
    (first,) = (n for n, line in enumerate(result.outlines) if line.strip("= ") == "pdserve")
    (end,) = (n for n, line in enumerate(result.outlines) if "short test summary" in line)
    return result.outlines[first + 1 : end][-2:]


def test_a_regression_is_the_first_item_of_the_page_and_in_its_title(
    slow: SimulatedProject,
) -> None:
    result = slow.run(*DP, "--pdserve-report", "ci/report.html")
    path = slow.path / "ci" / "report.html"
    assert ending(result) == [HEADLINE, f"report: {path}"]
    page = Page(path.read_text("utf-8"))
    assert page.title.startswith(f"FAIL: {CELL} ")
    first = next(text for text in page.items() if not text[0].isdigit())
    assert first.startswith(f"FAIL {CELL} ")
    files = [link for link in page.links if not link.startswith("#")]
    records = [path.parent / link for link in files if link.endswith(".record.json")]
    assert len(records) == 3
    assert all(record.exists() for record in records)


def test_the_summary_ends_with_the_verdict_and_the_reports_path(slow: SimulatedProject) -> None:
    result = slow.run(*DP)
    (folder,) = (slow.path / "runs").iterdir()
    assert ending(result) == [HEADLINE, f"report: {folder / 'report.json'}"]
    assert (folder / "report.json").exists()


def test_the_verdict_has_a_colour_where_pytest_has_colours(slow: SimulatedProject) -> None:
    result = slow.run(*DP, "--color", "yes")
    assert f"\x1b[31m\x1b[1m{HEADLINE}\x1b[0m" in result.outlines


def test_the_table_of_cells_fits_80_columns(
    slow: SimulatedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = slow.run("-k", "dp")
    (first,) = (n for n, line in enumerate(result.outlines) if "TTFT   p99 TTFT" in line)
    (end,) = (n for n, line in enumerate(result.outlines) if line.startswith(f"FAIL: {CELL}: "))
    table = result.outlines[first:end]
    assert len(table) == 6
    assert max(len(line) for line in table) <= 80
