"""Trends on a session's page: which cells have one, and what the history holds of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from pytest_pdserve.report.page import page_html
from pytest_pdserve.report.page.trends import MAX_TRENDS
from pytest_pdserve.report.page.trends import NightTrends
from pytest_pdserve.report.page.trends import trend_metrics
from pytest_pdserve.study.cell_trends import night_trends
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.report import Outcome
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import VerdictReport
from tests.support.history_shelf import imported
from tests.support.pages import Page
from tests.support.reports import ITL
from tests.support.reports import cell
from tests.support.reports import claim
from tests.support.reports import report_of
from tests.support.stored_nights import SHORT
from tests.support.stored_nights import Shelf

BETTER = replace(ITL, metric="mean_ttft_ms", status="PASS", change=-0.2, improved_tonight=True)


def of(workload: str, status: Outcome, **fields: object) -> VerdictReport:
    """Return a cell whose ITL has the same verdict."""
    metrics = (replace(ITL, status=status),)
    return cell(workload=workload, status=status, **{"metrics": metrics, "records": (), **fields})


@pytest.fixture
def history(tmp_path: Path, make_record: Callable[..., Record]) -> Path:
    """Nine nights of two cells; vLLM changes on the seventh."""
    shelf = Shelf(folder=tmp_path, make_record=make_record)
    for day in range(1, 10):
        shelf.session(day, findings=(), versions={"vllm": "0.15.1" if day < 7 else "0.15.2"})
    return imported(shelf)[0].folder


@pytest.fixture
def report() -> Report:
    """A session after these nights: one cell of them FAILs."""
    return report_of(of(SHORT.id, "FAIL"))


def test_the_worst_cells_have_a_trend_and_after_them_those_that_are_better() -> None:
    report = report_of(
        of("passed", "PASS"),
        of("better", "PASS", metrics=(replace(ITL, status="PASS"), BETTER)),
        of("suspicious", "SUSPICIOUS"),
        of("new", "NEW", metrics=()),
        of("failed", "FAIL"),
        claim(status="FAIL"),
    )
    assert [(each.workload, each.metric) for each in trend_metrics(report)] == [
        ("failed", "mean_itl_ms"),
        ("suspicious", "mean_itl_ms"),
        ("better", "mean_ttft_ms"),
    ]


def test_a_page_has_a_limited_number_of_trends() -> None:
    report = report_of(*(of(f"w-{n}", "FAIL") for n in range(MAX_TRENDS + 5)))
    assert len(trend_metrics(report)) == MAX_TRENDS


def test_a_page_shows_the_trend_of_a_failed_cell(history: Path, report: Report) -> None:
    trends = night_trends(report, history)
    assert trends is not None
    assert (trends.newest, trends.has_session, trends.notes) == (date(2026, 11, 9), False, ())
    (series,) = trends.series
    assert (series.name.topology, len(series.nights)) == ("1p3d", 9)
    assert series.versions == ((date(2026, 11, 7), "vllm 0.15.2"),)
    html = page_html(report, trends=trends)
    page = Page(html)
    assert "figure-trend-1" in page.ids
    assert "#figure-trend-1" in page.links
    assert "the reference to the limit of this session's report" in html
    assert any("This session is not in it" in text for text in page.texts["p"])


def test_a_session_that_is_in_the_history_is_not_said_to_be_missing(
    history: Path, report: Report
) -> None:
    session = replace(report.session, id="20261109T220000-p5-efa")  # type: ignore[type-var]
    trends = night_trends(replace(report, session=session), history)
    assert trends is not None
    assert trends.has_session
    page = Page(page_html(report, trends=trends))
    assert not any("This session is not in it" in text for text in page.texts["p"])


def test_nights_of_another_client_are_no_part_of_a_trend(history: Path, report: Report) -> None:
    trends = night_trends(replace(report, client="another"), history)
    assert trends is not None
    assert trends.series == ()
    page = Page(page_html(report, trends=trends))
    assert any("1 cell without a figure" in text for text in page.texts["p"])


def test_without_matplotlib_the_page_says_why_there_are_no_trends(
    history: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    trends = night_trends(report, history)
    page = Page(page_html(report, trends=trends))
    assert any("Figures need Matplotlib" in text for text in page.texts["p"])
    assert not any("without a figure" in text for text in page.texts["p"])


def test_without_a_worse_or_better_cell_the_history_is_not_read(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_pdserve.history.store.read_rows", pytest.fail)
    assert night_trends(report_of(of(SHORT.id, "PASS")), history) is None


def test_a_history_that_is_no_folder_is_one_sentence(tmp_path: Path, report: Report) -> None:
    with pytest.raises(ConfigError, match="expected a folder"):
        night_trends(report, tmp_path / "nowhere")


def test_an_empty_history_has_no_trends(tmp_path: Path, report: Report) -> None:
    assert night_trends(report, tmp_path) is None


def test_a_note_of_the_history_is_text_on_the_page(report: Report, tmp_path: Path) -> None:
    note = "<script>alert(1)</script> cannot be read"
    trends = NightTrends(history=tmp_path, series=(), newest=None, has_session=True, notes=(note,))
    page = Page(page_html(report, trends=trends))
    assert note in page.texts["p"]
