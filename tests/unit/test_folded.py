"""Progress lines on a terminal: folded at words, and never longer than it is wide."""

from __future__ import annotations

import pytest

from pytest_pdserve.plugin.progress import folded

LINE = (
    "pdserve 1p3d: waiting for decode[1], decode[2]: 59 s, log "
    "runs/20261123T134800-local-cpu/1p3d/logs/decode-1.log"
)


def test_a_long_line_is_folded_at_a_word_and_its_path_stays_whole() -> None:
    assert folded(LINE, 80) == [
        "pdserve 1p3d: waiting for decode[1], decode[2]: 59 s, log",
        "  runs/20261123T134800-local-cpu/1p3d/logs/decode-1.log",
    ]


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal_but_for_a_word_that_is(width: int) -> None:
    longest = max(len(word) for word in LINE.split())
    lines = folded(LINE, width)
    assert " ".join(line.strip() for line in lines) == LINE
    assert all(len(line) <= max(width, longest + 2) for line in lines)


def test_a_line_that_fits_is_left_alone() -> None:
    assert folded("pdserve dp: starting 4 instances", 80) == ["pdserve dp: starting 4 instances"]


def test_where_no_width_is_known_nothing_is_folded() -> None:
    assert folded(LINE, None) == [LINE]
