"""The report as Markdown: the verdict first, within its size, and nothing in a record breaks it."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from pytest_pdserve.report.markdown import MAX_CHARACTERS
from pytest_pdserve.report.markdown import _sections
from pytest_pdserve.report.markdown import markdown
from pytest_pdserve.values.report import OUTCOMES
from pytest_pdserve.values.report import Difference
from pytest_pdserve.values.report import FindingReport
from pytest_pdserve.values.report import Reason
from tests.support.reports import HOSTILE
from tests.support.reports import ITL
from tests.support.reports import cell
from tests.support.reports import cells
from tests.support.reports import claim
from tests.support.reports import hostile
from tests.support.reports import report_of

OURS = {"h2", "p", "strong", "ul", "li", "details", "summary", "br"} | {
    *("table", "thead", "tbody", "tr", "th", "td")
}
"""Tags that a report has."""


class Page(HTMLParser):
    """A page as a browser reads it: its tags, how they are nested, and cells by table row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(MarkdownIt("commonmark").enable("table").render(text))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> ends another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    @property
    def columns(self) -> list[int]:
        """Cells of each row of each table."""
        return [len(row) for row in self.rows]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_a_record_holds_is_read_as_markup(text: str) -> None:
    plain, page = Page(markdown(hostile("plain"))), Page(markdown(hostile(text)))
    assert page.tags <= OURS
    assert page.open == []
    assert page.columns == plain.columns
    assert max(len(text) for row in page.rows for text in row) <= 620


@pytest.mark.parametrize("name", ["pipes", "backticks", "script", "the end of a fold", "emphasis"])
def test_what_a_record_holds_is_shown_as_it_is(name: str) -> None:
    page = Page(markdown(hostile(HOSTILE[name])))
    assert f"{HOSTILE[name]} {HOSTILE[name]}" in [row[1] for row in page.rows]


def test_text_that_runs_from_right_to_left_is_named_by_its_characters() -> None:
    said = markdown(hostile(HOSTILE["right to left"]))
    assert not set(said) & {"\u202e", "\u2067", "\u05e9"}
    assert "U+202E" in said


def test_the_verdict_comes_first_and_the_worst_next() -> None:
    said = markdown(
        report_of(
            claim(),
            cell(status="PASS", misses=()),
            cell(status="SUSPICIOUS", misses=("b",)),
            cell(misses=("a",), severity=1.1),
            cell(misses=("c", "d"), severity=3.0),
        )
    )
    title, _, _, _, head, _, *rows = said.splitlines()
    assert title == "## FAIL on p5-efa: 2 FAIL, 1 SUSPICIOUS, 2 PASS"
    assert head == "| verdict | of | why |"
    assert [row.split(" | ")[2] for row in rows[:3]] == ["c (and 1 more) |", "a |", "b |"]
    assert "<details>" in rows[4]


def test_what_needs_no_attention_is_folded() -> None:
    said = markdown(report_of(claim(), cell(status="PASS", misses=()), cell(status="NEW")))
    before, _, folded = said.partition("<details>")
    assert before.count("|") == 0
    assert "ITL below" in folded


def test_a_session_without_measurement_says_so_first_and_shows_no_value() -> None:
    report = report_of(errors=(Reason(subject="t", why="no nodes: the queue is full"),))
    said = markdown(report)
    first = said.splitlines()[0]
    assert first.startswith("## Nothing was measured on p5-efa: no nodes: the queue is full")
    assert "All cells" not in said


def test_a_value_that_is_not_there_is_a_dash() -> None:
    said = markdown(report_of(*cells(3, ["FAIL"])))
    rows = [line for line in said.splitlines() if "| mean\\_itl\\_ms |" in line]
    assert [row.split(" | ")[2] for row in rows] == ["-"] * 3
    assert "nan" not in said


def test_a_void_value_is_called_void() -> None:
    void = ITL.__class__(metric="mean_itl_ms", unit="ms", better="lower", judged=True, void=True)
    said = markdown(report_of(cell(status="NOT JUDGED", metrics=(void,))))
    assert "| mean\\_itl\\_ms | void |" in said


def test_what_differs_from_the_baseline_stands_above_all_tables() -> None:
    changed = Difference(what="vLLM", before="0.15.1", now="0.15.2")
    said = markdown(report_of(cell(), differences=(changed,)))
    assert "Since the baseline: vLLM 0.15.1 → 0.15.2." in said.partition("|")[0]


MANY = 10_000


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("statuses", "name"),
    [
        (OUTCOMES, "random"),
        (["FAIL"], "n" * 300),
        (["FAIL", "NOT JUDGED"], "<|&*\u05e9" * 60),
    ],
    ids=["every verdict", "long names", "hostile names"],
)
def test_10_000_cells_fit_into_a_comment(statuses: list[str], name: str) -> None:
    findings = [
        FindingReport(severity="note", check="c", message=f"{name} {n}", cells=("a",))
        for n in range(MANY)
    ]
    said = markdown(
        report_of(
            *cells(MANY, statuses, name),
            findings=tuple(findings),
            not_measured=(name,) * MANY,
            notes=(name,) * MANY,
        )
    )
    assert len(said) <= MAX_CHARACTERS
    assert said.startswith(f"## {statuses[0]} on p5-efa: ")
    assert "more, in the session's report.json" in said
    page = Page(said)
    assert page.tags <= OURS
    assert page.open == []


def test_findings_that_differ_in_numbers_are_one_line() -> None:
    said = markdown(
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
    assert "What the checks say: 1<" in said
    assert "- note: late by 2 to 9 s (c5 and 2 more)" in said


def test_the_sections_share_all_of_the_room() -> None:
    assert sum(section.share for section in _sections(report_of(cell()))) == pytest.approx(1)
