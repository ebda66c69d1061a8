"""Greedy texts through a topology, held against those of one instance."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_pdserve.serving.greedy_texts import GreedyTexts
from pytest_pdserve.serving.near_ties import common_start
from pytest_pdserve.serving.smoke import long_prompts
from pytest_pdserve.serving.smoke import parity_of


def greedy(alone: str, through: str, again: str | None = None) -> GreedyTexts:
    return GreedyTexts(
        prompt="p", alone=alone, again=alone if again is None else again, through=through
    )


SAME = greedy(" a b c", " a b c")
OTHER = greedy(" d e f", " d e f")
PARTED = greedy(" a b c", " a x y")


@pytest.mark.parametrize(
    ("texts", "gap", "status", "said"),
    [
        ([SAME, OTHER], None, "PASS", ""),
        (
            [SAME, PARTED, OTHER],
            1.5,
            "FAIL",
            "texts differ after ' a': through the topology ' x y', by one instance ' b c' (it "
            "finds the topology's next token 1.50 nats less likely than its own)",
        ),
        (
            [PARTED, OTHER],
            None,
            "FAIL",
            "(its log-probability of the topology's next token is unknown)",
        ),
        ([PARTED, OTHER], 0.02, "PASS", "a token 0.020 nats less likely than the instance's own"),
        (
            [greedy(" a b c", " a x y", again=" a b z"), OTHER],
            1.5,
            "PASS",
            "the instance alone does not repeat its text either",
        ),
        (
            [SAME, SAME, SAME],
            None,
            "NOT JUDGED",
            "3 different prompts have the same greedy text (' a b c'): with these weights a wrong "
            "one would not show",
        ),
        (
            [PARTED, greedy(" d e f", " d x y")],
            0.02,
            "NOT JUDGED",
            "all 2 greedy texts differ, each within an accepted reason",
        ),
        (
            [SAME, SAME, OTHER],
            None,
            "NOT JUDGED",
            "3 different prompts have 2 greedy texts: a wrong KV cache could give the right text",
        ),
        ([SAME, SAME, OTHER, greedy(" g h", " x y")], 1.5, "FAIL", "texts differ after ''"),
        ([SAME, PARTED], 1.5, "NOT JUDGED", "2 different prompts have the same greedy text"),
    ],
)
def test_parity(texts: Sequence[GreedyTexts], gap: float | None, status: str, said: str) -> None:
    verdict = parity_of(texts, "greedy tokens of 1p1d", lambda _: gap)
    assert verdict.status == status
    assert said in verdict.message


def test_a_lost_cache_shows_where_prompts_begin() -> None:
    prompts = long_prompts()
    assert len({prompt.split()[0] for prompt in prompts}) == len(prompts)
    assert len({tuple(prompt.split()[1:]) for prompt in prompts}) == 1


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [(" a bc d", " a bd d", " a"), ("ab", "ac", ""), (" a b", " a b", " a"), ("", "x", "")],
)
def test_texts_are_compared_in_whole_words(a: str, b: str, same: str) -> None:
    assert common_start(a, b) == same
