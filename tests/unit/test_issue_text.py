"""The issue of a regression: its whole text, what is escaped, what is cut."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from pytest_pdserve.notify.issue_text import MAX_BODY
from pytest_pdserve.notify.issue_text import MAX_TITLE
from pytest_pdserve.notify.issue_text import IssueState
from pytest_pdserve.notify.issue_text import body
from pytest_pdserve.notify.issue_text import change_of
from pytest_pdserve.notify.issue_text import gone_comment
from pytest_pdserve.notify.issue_text import marker
from pytest_pdserve.notify.issue_text import state_of
from pytest_pdserve.notify.issue_text import title
from pytest_pdserve.values.nightly import Event

EVENT = Event(
    kind="new",
    key="p5-efa/1p3d/random-512-256/speed",
    title="1p3d random-512-256 is slower on p5-efa",
    system="p5-efa",
    topology="1p3d",
    cells=("1p3d random-512-256",),
    metrics=("mean_itl_ms",),
    since=date(2026, 11, 20),
    night=date(2026, 11, 21),
    evidence=("mean_itl_ms 5.21 ms, reference 4.71 ms (20 nights): +10.6 %, limit +5 %",),
    changed=("vLLM 0.15.1 -> 0.15.2",),
    confirmed="mean_itl_ms was worse on each of 3 fresh starts (+9.8 to +11.2 %)",
    records=("runs/20261121/1p3d/a.record.json",),
    expected=("1p3d until 2026-12-31, set by ann: known, see the mail of May",),
)


def test_an_issue_says_what_since_when_what_changed_and_how_it_was_confirmed() -> None:
    text = body(EVENT, run_url="https://github.example/t/s/actions/runs/7")
    assert text.splitlines()[:3] == [
        "<!-- pdserve:p5-efa/1p3d/random-512-256/speed -->",
        f"<!-- pdserve-state since=2026-11-20 change={change_of(EVENT)} closed=- -->",
        "",
    ]
    assert text.splitlines()[3:] == [
        "**1p3d random-512-256 is slower on p5-efa**: a confirmed regression.",
        "",
        "- system: p5-efa",
        "- topology: 1p3d",
        r"- metrics: mean\_itl\_ms",
        "- first seen: night of 2026-11-20",
        "- last seen: night of 2026-11-21",
        r"- confirmed: mean\_itl\_ms was worse on each of 3 fresh starts (+9.8 to +11.2 %)",
        "",
        "### Seen on the last night",
        "",
        r"- mean\_itl\_ms 5.21 ms, reference 4.71 ms (20 nights): +10.6 %, limit +5 %",
        "",
        "### Changed on the night of 2026-11-20",
        "",
        "- vLLM 0.15.1 -&gt; 0.15.2",
        "",
        "### Cells",
        "",
        "- 1p3d random-512-256",
        "",
        "### Expected changes that are in force",
        "",
        "- 1p3d until 2026-12-31, set by ann: known, see the mail of May",
        "",
        "### Records",
        "",
        "- runs/20261121/1p3d/a.record.json",
        "",
        "Workflow run of that night: https://github.example/t/s/actions/runs/7",
        "",
        "`pdserve nightly` rewrites this text every night, and closes the issue once two nights "
        "find nothing. Write comments: edits of this text are lost.",
    ]


@pytest.mark.parametrize(
    "field", ["evidence", "changed", "cells", "metrics", "expected", "records", "confirmed"]
)
@pytest.mark.parametrize(
    "hostile",
    [
        "<!-- pdserve:other/key -->",
        "<img src=x onerror=alert(1)>",
        "\n# heading\n- [ ] task",
        "[click](javascript:x)",
        "`code` **bold** | cell",
    ],
)
def test_nothing_of_an_event_is_markup(field: str, hostile: str) -> None:
    value: Any = hostile if field == "confirmed" else (hostile,)
    plain: Any = "x" if field == "confirmed" else ("x",)
    text = body(replace(EVENT, **{field: value}))
    own = body(replace(EVENT, **{field: plain}))
    assert len(text.splitlines()) == len(own.splitlines())
    for sign in ("<", "`", "[", "|", "**"):
        bare = [line.replace(f"\\{sign}", "") for line in text.splitlines()[1:]]
        assert sum(line.count(sign) for line in bare) == sum(
            line.count(sign) for line in own.splitlines()[1:]
        ), sign


def test_a_key_cannot_end_the_comment_that_it_stands_in() -> None:
    assert marker("a-->b <x>\n") == "<!-- pdserve:a--%3Eb%20%3Cx%3E%0A -->"


def test_a_text_of_any_length_fits() -> None:
    much = tuple("@<\u202e" * 300 for _ in range(60))
    event = replace(
        EVENT,
        title="t" * 9000,
        cells=much,
        metrics=much,
        evidence=much,
        changed=much,
        records=much,
        expected=much,
        confirmed="&" * 9000,
    )
    text = body(event)
    assert len(text) <= MAX_BODY
    assert "… and " in text
    assert len(title(event)) <= MAX_TITLE
    assert len(gone_comment(event)) <= MAX_BODY


def test_a_title_is_one_line_without_hidden_characters() -> None:
    assert title(replace(EVENT, title="a\u202eb")) == "a b"


def test_numbers_of_a_night_are_no_change_but_cells_versions_and_expectations_are() -> None:
    later = replace(
        EVENT,
        kind="still",
        night=date(2026, 12, 1),
        metrics=("p99_itl_ms",),
        evidence=("5.3 ms",),
        records=(),
        confirmed="",
    )
    assert change_of(later) == change_of(EVENT)
    for field in ("cells", "changed", "expected"):
        other: Any = ("other",)
        assert change_of(replace(EVENT, **{field: other})) != change_of(EVENT)


@pytest.mark.parametrize("closed", [None, date(2026, 11, 30)])
def test_an_issue_tells_its_state_to_later_nights(closed: date | None) -> None:
    state = IssueState(since=date(2026, 11, 20), change="0123abcd", closed=closed)
    assert state_of(f"<!-- pdserve:k -->\n{state.line}\ntext") == state


@pytest.mark.parametrize(
    "text",
    ["", "<!-- pdserve-state since=2026-13-40 change=ab closed=- -->", "since=2026-11-20"],
)
def test_a_state_that_was_edited_away_is_none(text: str) -> None:
    assert state_of(text) is None


def test_trouble_with_machines_has_a_text_of_its_own() -> None:
    event = Event(
        kind="cluster-trouble",
        key="p5-efa/cluster",
        title="The night on p5-efa could not be measured in full",
        system="p5-efa",
        since=date(2026, 11, 20),
        night=date(2026, 11, 20),
        evidence=("slurm: no node of partition pd is idle",),
    )
    text = body(event)
    assert "regression" not in text
    assert "### Records" not in text
    assert "- slurm: no node of partition pd is idle" in text
    assert "closes the issue once nothing fails" in text
