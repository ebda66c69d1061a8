"""What ``pdserve plan --explore`` answers, and how it ranks what the article measured."""

from __future__ import annotations

import csv
import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.study.explore import Answer
from pytest_pdserve.study.explore import Question
from pytest_pdserve.study.explore import candidates
from pytest_pdserve.study.explore import explore
from pytest_pdserve.study.explore import question_of
from pytest_pdserve.study.explore import render
from pytest_pdserve.study.explore import replays
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.topology import ARTICLE_TOPOLOGIES

SYSTEM = load_system("simulated", SHIPPED)
FIGURES = Path(__file__).parents[2] / "benchmarks" / "article.csv"
SMALL = Question(nodes=4, input_lens=(128,), output_lens=(16,), num_prompts=40)
GIVEN = {
    "input_len": "512",
    "output_len": "256",
    "rate": "inf",
    "slo_ttft_ms": "inf",
    "slo_itl_ms": "inf",
    "num_prompts": "16",
    "nodes": None,
    "seed": "0",
    "fresh": False,
}


@pytest.mark.parametrize(
    ("nodes", "ids"),
    [
        (1, ["dp"]),
        (2, ["dp", "route2", "1p1d"]),
        (4, ["dp", "route2", "route4", "1p3d", "2p2d", "3p1d"]),
        (6, ["dp", "route2", "route3", "route6", "1p5d", "2p4d", "3p3d", "4p2d", "5p1d"]),
    ],
)
def test_candidates_use_all_nodes(nodes: int, ids: list[str]) -> None:
    assert [topology.id for topology in candidates(nodes)] == ids


def test_targets_come_first_and_the_front_is_of_those_that_meet_them() -> None:
    free = explore(SMALL, SYSTEM)
    assert all(answer.meets for answer in free)
    limit = sorted(map(itl, free))[2]
    held = explore(replace(SMALL, slo_itl_ms=limit), SYSTEM)
    assert [answer.meets for answer in held] == [True] * 3 + [False] * 3
    front = [answer for answer in held if answer.front]
    assert front
    assert not any(answer.front for answer in held[3:])
    best = max(held[:3], key=lambda answer: answer.output_throughput)
    assert best in front


def itl(answer: Answer) -> float:
    assert answer.mean_itl_ms is not None
    return answer.mean_itl_ms


def beaten(answer: Answer, by: Answer) -> bool:
    return (
        by.output_throughput > answer.output_throughput
        and by.mean_ttft_ms < answer.mean_ttft_ms
        and itl(by) < itl(answer)
    )


def test_nothing_beats_the_front() -> None:
    answers = explore(SMALL, SYSTEM)
    for answer in answers:
        assert not (answer.front and any(beaten(answer, other) for other in answers))


def test_a_rate_that_is_too_high_is_seen() -> None:
    question = replace(SMALL, input_lens=(2048,), output_lens=(64,), num_prompts=200)
    fast, slow = (
        {a.topology: a for a in explore(replace(question, rate=rate), SYSTEM)}
        for rate in (500.0, 5.0)
    )
    assert not any(answer.keeps_up or answer.front for answer in fast.values())
    assert all(answer.keeps_up for answer in slow.values())


def test_a_mix_of_lengths_lies_between_them() -> None:
    def throughput(*input_lens: int) -> float:
        question = replace(SMALL, input_lens=input_lens, num_prompts=200)
        return {a.topology: a for a in explore(question, SYSTEM)}["route4"].output_throughput

    assert throughput(2048) < throughput(256, 2048) < throughput(256)


def test_the_answer_says_what_it_is() -> None:
    said = render(SMALL, explore(SMALL, SYSTEM))
    assert said.startswith("SIMULATED: 4 nodes, input 128, output 16, all at once, 40 requests")
    assert "not measured" in said
    assert "one article's single runs" in said
    assert "extrapolated" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nodes": "0"}, "--nodes 0: expected"),
        ({"nodes": "x"}, "--nodes 'x': expected a whole number"),
        ({"input_len": "512,"}, "--input-len '512,': expected a whole number"),
        ({"output_len": "-3"}, "--output-len -3: expected"),
        ({"rate": "nan"}, "--rate nan: expected"),
        ({"rate": "fast"}, "--rate 'fast': expected a number"),
        ({"slo_itl_ms": "0"}, "--slo-itl-ms 0: expected"),
        ({"num_prompts": "1e3"}, "--num-prompts '1e3': expected a whole number"),
        ({"nodes": ""}, "--nodes '': expected a whole number"),
        *(
            ({name: "2,3"}, f"--{name.replace('_', '-')} '2,3' is a list, expected one number")
            for name in ("nodes", "rate", "num_prompts", "seed", "slo_ttft_ms", "slo_itl_ms")
        ),
        ({"rate": "1e-320"}, "--rate 1e-320: expected 0.001 to 1,000,000 req/s"),
        ({"rate": "1e7"}, "--rate 10000000: expected 0.001 to 1,000,000 req/s"),
        ({"rate": "1e400"}, "--rate '1e400': expected a number"),
        ({"slo_itl_ms": "9" * 400}, f"--slo-itl-ms '{'9' * 30}…': expected a number"),
        ({"rate": "0"}, "--rate 0: expected"),
        ({"rate": "-inf"}, "--rate -inf: expected"),
        ({"input_len": "9" * 400}, f"--input-len {'9' * 30}…: expected 1 to 163"),
        ({"output_len": "8,163841"}, "--output-len 163841: expected 1 to 163,840"),
        ({"input_len": "9" * 5000}, f"--input-len '{'9' * 30}…': expected a whole number"),
        ({"num_prompts": "100001"}, "--num-prompts 100001: expected 1 to 100,000"),
        ({"nodes": "65"}, "--nodes 65: expected 1 to 64"),
        (
            {"output_len": "1", "slo_itl_ms": "0.001"},
            "--slo-itl-ms 0.001 needs outputs of at least 2 tokens: --output-len 1 has no gap",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_odd_questions_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        question_of({**GIVEN, **change}, SYSTEM)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_one_token_has_no_gaps_and_so_no_itl() -> None:
    question = replace(SMALL, output_lens=(1,))
    answers = explore(question, SYSTEM)
    assert {answer.mean_itl_ms for answer in answers} == {None}
    assert all(answer.meets for answer in answers)
    assert any(answer.front for answer in answers)
    rows = render(question, answers).splitlines()[3:9]
    assert [row.split()[3] for row in rows] == ["-"] * 6


def test_a_mix_that_drew_no_gaps_misses_an_itl_target() -> None:
    question = replace(SMALL, output_lens=(1, 2), num_prompts=1, slo_itl_ms=1e6)
    drawn = {a.meets for seed in range(8) for a in explore(replace(question, seed=seed), SYSTEM)}
    assert drawn == {True, False}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"fresh": True}, False),
        ({"rate": 8.0}, False),
        ({"num_prompts": 100}, False),
        ({"input_lens": (512, 1024)}, False),
        ({"input_lens": (1024, 1024)}, True),
        ({"input_lens": (777,)}, False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_only_cells_of_the_sweep_are_replayed(change: dict[str, Any], expected: bool) -> None:
    cell = Question(nodes=4, input_lens=(1024,), output_lens=(256,))
    question = replace(cell, **change)
    assert replays(question, SYSTEM) is expected
    assert ("--fresh" in render(question, [], replayed=expected)) is expected


def test_a_real_system_is_not_explored() -> None:
    with pytest.raises(ConfigError, match="'local-cpu' is of kind 'local'"):
        question_of(GIVEN, load_system("local-cpu", SHIPPED))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("input_len", "output_len"), [(4096, 256), (512, 1024)], ids=["prefill", "decode"]
)
def test_the_articles_five_are_ranked_as_it_measured_them(input_len: int, output_len: int) -> None:
    """Pairs that its figures hold apart by a fifth, in one cell of each panel."""
    with FIGURES.open(encoding="utf-8") as file:
        rows = {
            row["topology"]: row
            for row in csv.DictReader(file)
            if (row["input_len"], row["output_len"]) == (str(input_len), str(output_len))
        }
    question = Question(nodes=4, input_lens=(input_len,), output_lens=(output_len,))
    answers = {answer.topology: answer for answer in explore(question, SYSTEM)}
    for metric in ("mean_ttft_ms", "mean_itl_ms", "output_throughput"):
        for one, two in itertools.combinations(ARTICLE_TOPOLOGIES, 2):
            seen = math.log(float(rows[one][metric]) / float(rows[two][metric]))
            said = math.log(getattr(answers[one], metric) / getattr(answers[two], metric))
            assert abs(seen) < math.log(1.2) or seen * said > 0, (metric, one, two)
