"""The report as a page: whole without network and script, the worst first, nothing is markup."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from pytest_pdserve.report.figures import Figure
from pytest_pdserve.report.page import page_html
from pytest_pdserve.report.page.records import MAX_RECORDS
from pytest_pdserve.report.writing import write_report
from pytest_pdserve.results.kinds import RECORD
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.report import OUTCOMES
from pytest_pdserve.values.report import Difference
from pytest_pdserve.values.report import FindingReport
from pytest_pdserve.values.report import MetricReport
from pytest_pdserve.values.report import Reason
from pytest_pdserve.values.report import Since
from pytest_pdserve.values.report import VerdictReport
from tests.support.pages import Page
from tests.support.reports import HOSTILE
from tests.support.reports import ITL
from tests.support.reports import SESSION
from tests.support.reports import THROUGHPUT
from tests.support.reports import cell
from tests.support.reports import cells
from tests.support.reports import claim
from tests.support.reports import hostile
from tests.support.reports import report_of

PASSED = cell(status="PASS", misses=(), workload="random-1024-256-n4", severity=0.1)
MB = 1_000_000
PATH = "1p3d/w-1.0.record.json"


def failed(**fields: Any) -> VerdictReport:
    """Return a cell that FAILs, of a load that no figure shows; keywords replace."""
    return cell(**{"workload": "w-1", "records": (PATH,), **fields})


@functools.cache
def plain() -> Page:
    """Return the page of a report without anything odd."""
    return Page(page_html(hostile("plain")))


@pytest.fixture
def measured(tmp_path: Path, make_record: Callable[..., Record]) -> Callable[..., Path]:
    """Write the record of the cell that FAILs; keywords replace its fields.

    Return the session's folder.
    """

    def write(number: int = 0, **fields: object) -> Path:
        folder = tmp_path / "runs" / SESSION.id
        path = folder / "1p3d" / f"w-1.{number}.record.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(RECORD.dump(make_record(**fields), path)))
        return folder

    return write


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_record_holds_is_shown_as_it_is_and_never_read_as_markup(name: str) -> None:
    page = Page(page_html(hostile(HOSTILE[name])))
    assert set(page.tags) <= {*plain().tags, "details", "summary", "pre"}
    assert page.attributes == plain().attributes
    shown = name == "right to left" or HOSTILE[name] in page.texts["bdi"]
    assert shown


def test_text_that_runs_from_right_to_left_stays_apart_and_turns_nothing() -> None:
    html = page_html(hostile(HOSTILE["right to left"]))
    assert not set(html) & {"\u202e", "\u2067"}
    assert "\u05e9\u05dc\u05d5\u05dd U+202Egnp.exe U+2067" in Page(html).texts["bdi"]


def test_half_a_character_can_be_written(tmp_path: Path) -> None:
    write_report(hostile("a\udc80b"), tmp_path / "page.html", "html")
    assert "aU+DC80b" in (tmp_path / "page.html").read_text("utf-8")


def test_a_planted_regression_is_the_first_item_and_in_the_title() -> None:
    page = Page(
        page_html(
            report_of(
                claim(),
                PASSED,
                failed(status="SUSPICIOUS", misses=("b",)),
                failed(workload="random-64-16-n4", misses=("a",), severity=1.1),
                failed(misses=("c", "d"), severity=3.0),
                errors=(Reason(subject="test_x", why="lost"),),
            )
        )
    )
    assert page.title == "FAIL: 1p3d w-1 mean_itl_ms +10.6 % · p5-efa"
    said = [text for text in page.items() if text.startswith(("FAIL", "ERROR", "SUSPICIOUS"))]
    assert [text.split(" Evidence")[0] for text in said] == [
        "FAIL 1p3d w-1 c 1 more, below.",
        "FAIL 1p3d random-64-16-n4 a",
        "ERROR test_x lost",
        "SUSPICIOUS 1p3d w-1 b",
    ]


def test_a_page_needs_no_network_and_runs_no_script_but_its_own() -> None:
    html = page_html(report_of(failed(), PASSED, claim()))
    page = Page(html)
    assert page.tags.count("script") == 1
    assert not page.attributes & {"src", "srcset", "data", "action", "onclick", "onload"}
    assert "url(" not in html.replace("url(#", "")
    assert "@import" not in html
    (script,) = page.texts["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in (
        html.replace("&#39;", "'")
    )


def test_without_a_script_nothing_is_hidden_and_every_anchor_is_there() -> None:
    page = Page(page_html(report_of(failed(), PASSED, claim(), failed(status="NEW"))))
    assert "hidden" not in page.attributes
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_a_value_that_is_not_there_is_a_dash() -> None:
    page = Page(page_html(report_of(*cells(3, ["FAIL"]))))
    rows = [text for text in page.texts["tr"] if text.startswith("mean_itl_ms")]
    assert [text.startswith("mean_itl_ms–") for text in rows] == [True] * 3
    assert not any("– ms" in text for text in rows)
    assert not any("nan" in text or "inf" in text.split() for text in page.texts["td"])


def test_a_void_value_is_called_void() -> None:
    void = MetricReport(metric="mean_itl_ms", unit="ms", better="lower", judged=True, void=True)
    page = Page(page_html(report_of(failed(status="FAIL", metrics=(void,)))))
    assert "void" in page.texts["td"]


def test_differences_from_the_baseline_are_bold() -> None:
    changed = Difference(what="vLLM", before="0.15.1", now="0.15.2")
    since = Since(night="2026-11-19", nights=2, before="2026-11-18", changes=(changed,))
    metrics = (replace(ITL, since=since),)
    page = Page(page_html(report_of(failed(metrics=metrics), differences=(changed,))))
    strong = page.texts["strong"]
    assert strong.count("vLLM 0.15.1 → 0.15.2") == 2  # since the baseline, and since that night
    assert "vLLM: 0.15.1 → 0.15.2" in strong
    assert "+10.6 %" in page.texts["b"]


@pytest.mark.parametrize(("count", "is_noted"), [(400, False), (401, True)])
def test_a_page_says_that_its_figures_do_not_show_all_cells(
    count: int, is_noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = Figure(name="f", title="F", svg="<svg></svg>", data=[], caption="")
    monkeypatch.setattr("pytest_pdserve.report.figures.figures_of", lambda *_, **__: [figure])
    page = Page(page_html(report_of(*cells(count, ["PASS"]))))
    note = "Figures show 400 of 401 cells, those with the worst verdicts; pdserve plot draws all."
    assert (note in page.texts["p"]) is is_noted


def test_what_is_new_better_or_not_judged_is_told() -> None:
    better = replace(ITL, status="PASS", change=-0.2, improved_tonight=True)
    lasting = replace(THROUGHPUT, metric="output_throughput", change=0.01, improved=True)
    held = failed(status="PASS", misses=(), metrics=(better, lasting), workload="random-9-9-n4")
    page = Page(
        page_html(
            report_of(
                held,
                failed(status="NEW", misses=(), metrics=(), workload="random-8-8-n4"),
                failed(status="NOT JUDGED", misses=("no reference",), metrics=()),
                not_measured=("dp random-7-7-n4",),
                left_out=("1p3d random-6-6-n4",),
            )
        )
    )
    items = page.items()
    assert "1p3d random-8-8-n4" in items
    assert "1p3d w-1: no reference" in items
    assert {"dp random-7-7-n4", "1p3d random-6-6-n4"} <= set(items)
    gains = [text for text in page.texts["tr"] if text.endswith(("tonight", "nights"))]
    assert ["-20 %" in gains[0], "+1 %" in gains[1]] == [True, True]


def test_a_session_without_measurement_says_so_and_shows_no_cell() -> None:
    report = report_of(errors=(Reason(subject="t", why="no nodes\nTraceback: long"),))
    page = Page(page_html(report))
    assert page.texts["h1"] == ["Nothing was measured on p5-efa"]
    assert page.title.startswith("Nothing was measured on p5-efa: no nodes")
    assert "no nodes\nTraceback: long" in page.texts["pre"]
    assert "table" not in page.tags


def test_a_record_is_shown_with_its_command_line_versions_and_files(
    measured: Callable[..., Path],
) -> None:
    folder = measured(versions={"vllm": "0.15.2"})
    report = report_of(failed(), versions={"vllm": "0.15.1"}, folder=str(folder))
    page = Page(page_html(report, page=folder.parent))
    assert "UCX_TLS=tcp \\\n  vllm serve m" in page.texts["pre"]
    assert "vllm 0.15.2" in page.texts["b"]
    files = [link for link in page.links if not link.startswith("#")]
    assert f"{SESSION.id}/1p3d/w-1.0.record.json" in files
    assert f"{SESSION.id}/1p3d/logs/prefill-0.log" in files


def test_servers_that_runs_share_are_shown_once(measured: Callable[..., Path]) -> None:
    folder = measured()
    measured(1)
    paths = tuple(f"1p3d/w-1.{number}.record.json" for number in (0, 1))
    page = Page(page_html(report_of(failed(records=paths), folder=str(folder))))
    assert len(page.texts["pre"]) == 1
    assert page.links.count("#s1") == 2


def test_the_cause_in_its_logs_stands_with_the_record(measured: Callable[..., Path]) -> None:
    folder = measured()
    log = folder / "1p3d" / "logs" / "prefill-0.log"
    log.parent.mkdir()
    log.write_text(
        "(EngineCore pid=7) ERROR 11-28 09:00:00 [core.py:1] ValueError: no block is free\n"
    )
    page = Page(page_html(report_of(failed(), folder=str(folder))))
    (cause,) = (text for text in page.texts["strong"] if "no block is free" in text)
    assert cause.startswith(f"in line 1 of {log}")


def test_a_record_that_cannot_be_read_says_why_and_is_linked(
    measured: Callable[..., Path],
) -> None:
    folder = measured()
    path = folder / "1p3d" / "w-1.0.record.json"
    path.write_text("{")
    page = Page(page_html(report_of(failed(), folder=str(folder)), page=folder))
    assert any(str(path) in text and "JSON" in text for text in page.texts["bdi"])
    assert "1p3d/w-1.0.record.json" in page.links


def test_links_start_at_the_page_and_lead_to_files(
    measured: Callable[..., Path], tmp_path: Path
) -> None:
    folder = measured()
    path = tmp_path / "ci" / "a b" / "report.html"
    write_report(report_of(failed(), folder="moved"), path, "html", folder=folder)
    page = Page(path.read_text("utf-8"))
    (record,) = (link for link in page.links if link.endswith(".record.json"))
    assert (path.parent / unquote(record)).resolve() == (folder / "1p3d" / "w-1.0.record.json")


MANY = 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "size_mb", "statuses"), [(360, 3, ["FAIL"]), (MANY, 15, OUTCOMES)]
)
def test_every_cell_is_there_and_the_page_is_small(
    count: int, size_mb: int, statuses: list[str]
) -> None:
    html = page_html(report_of(*cells(count, statuses), not_measured=("cell",) * count))
    assert len(html.encode()) < size_mb * MB
    assert len(set(re.findall(r"<bdi>random-(\d+)</bdi></th>", html))) == count


@pytest.mark.slow
def test_of_many_records_some_are_shown_and_all_others_linked(
    measured: Callable[..., Path],
) -> None:
    folder = measured()
    first = "1p3d/w-1.0.record.json"
    verdicts: list[VerdictReport] = [
        failed(workload=f"w-{n}", records=(first if n == 0 else f"1p3d/{n}.record.json",))
        for n in range(MAX_RECORDS + 5)
    ]
    page = Page(page_html(report_of(*verdicts, folder=str(folder)), page=folder))
    assert sum(text[:1] == "r" and text[1:].isdigit() for text in page.ids) == MAX_RECORDS
    assert {f"1p3d/{n}.record.json" for n in range(1, MAX_RECORDS + 5)} <= set(page.links)
    assert any("5 more are in" in text for text in page.texts["p"])


def test_findings_that_differ_in_numbers_are_one_entry_with_all_their_cells() -> None:
    page = page_html(
        report_of(
            cell(),
            findings=tuple(
                FindingReport(
                    severity="note", check="c", message=f"late by {n} s", cells=(f"c{n}",)
                )
                for n in (5, 2, 9)
            ),
        )
    )
    (entry,) = re.findall(r"<bdi>late by .*", page)
    assert entry.startswith("<bdi>late by 2 to 9 s</bdi>")
    assert "<bdi>c5, c2, c9</bdi>" in entry
