"""Rehearsals: which combinations are chosen, and what texts and errors say of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.report.rehearsal import rehearsal_lines
from pytest_pdserve.report.rehearsal import rehearsal_markdown
from pytest_pdserve.results.rehearsal import load_rehearsal
from pytest_pdserve.results.rehearsal import with_stored_results
from pytest_pdserve.results.rehearsal import write_rehearsal
from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.greedy_texts import GreedyTexts
from pytest_pdserve.session.rehearse_outcome import judge_error
from pytest_pdserve.session.rehearse_outcome import judge_texts
from pytest_pdserve.session.rehearse_outcome import sides_agree
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.rehearsal import Outcome
from pytest_pdserve.values.rehearsal import Rehearsal
from pytest_pdserve.values.rehearsal import Rehearsed
from pytest_pdserve.values.rehearsal import choose_combinations
from pytest_pdserve.values.stack import Stack


@pytest.mark.parametrize(
    ("differences", "ids"),
    [
        (
            ("vllm", "vllm-router"),
            ("ABA", "BAA", "ABB", "BAB", "AAB", "BBA", "ABA-off", "BAA-off"),
        ),
        (("vllm-router",), ("AAB", "BBA", "AAA", "BBB")),
        (("nixl",), ("ABB", "BAB", "ABB-off", "BAB-off", "AAA", "BBB")),
        (("model",), ("ABB", "BAB", "ABB-off", "BAB-off", "AAA", "BBB")),
    ],
    ids=["engine and router", "router", "engine", "revision of the model"],
)
def test_combinations_are_those_of_a_rolling_upgrade(
    differences: tuple[str, ...], ids: tuple[str, ...]
) -> None:
    chosen = choose_combinations(differences)
    short = tuple(
        f"{c.prefill}{c.decode}{c.router}{'' if c.hash_checked else '-off'}" for c in chosen
    )
    assert short == ids


def test_no_more_combinations_are_chosen_than_asked_for() -> None:
    assert len(choose_combinations(("vllm", "vllm-router"), 3)) == 3
    assert len(choose_combinations(("vllm", "vllm-router"), 99)) == 12


def test_an_image_brings_a_router_of_its_own() -> None:
    assert choose_combinations(("image",)) == choose_combinations(("vllm", "vllm-router"))


def texts(*through: str, **changes: str) -> list[GreedyTexts]:
    return [
        GreedyTexts(
            prompt=str(n),
            other=changes.get("prefill", f"a {n}"),
            alone=f"b {n}",
            again=changes.get("again", f"b {n}"),
            through=text,
        )
        for n, text in enumerate(through)
    ]


def test_a_text_of_either_side_is_right() -> None:
    judged = judge_texts(texts("a 0", "b 1"), lambda _: 1.0)
    assert judged.outcome == "works"
    assert judged.why == "2 of 2 greedy texts are right"


def test_a_text_of_neither_side_is_corrupt() -> None:
    judged = judge_texts(texts("a 0", "c 1"), lambda _: 1.0)
    assert judged.outcome == "corrupts"
    assert "1 of 2 greedy texts at HTTP 200 are those of neither side" in judged.why
    assert "'c 1' in place of 'b 1'" in judged.why


def test_a_gap_that_nobody_tells_excuses_nothing() -> None:
    assert judge_texts(texts("a 0", "c 1"), lambda _: None).outcome == "corrupts"


def test_a_near_tie_is_excused_and_told() -> None:
    judged = judge_texts(texts("a 0", "c 1"), lambda _: 0.05)
    assert judged.outcome == "works"
    assert judged.why == (
        "1 of 2 greedy texts are right; a token 0.050 nats less likely than the instance's own"
    )


def test_texts_that_are_all_excused_show_nothing() -> None:
    assert judge_texts(texts("c 0", "c 1"), lambda _: 0.05).outcome == "not shown"


def test_an_instance_that_does_not_repeat_itself_excuses_another_text() -> None:
    assert judge_texts(texts("a 0", "c 1", again="d"), lambda _: 1.0).outcome == "works"


def test_prompts_that_share_a_text_show_nothing() -> None:
    same = [GreedyTexts(prompt="", other="x", alone="x", again="x", through="x")] * 2
    assert judge_texts(same, lambda _: 1.0).outcome == "not shown"


def test_sides_agree_where_each_by_itself_gives_the_same_texts() -> None:
    assert not sides_agree(texts("a 0", "b 1"))
    assert sides_agree(texts("b 0", prefill="b 0"))


def test_an_error_after_a_time_limit_hangs_and_every_other_refuses() -> None:
    late = AnswerError("http://x", "did not answer within 5 s")
    late.__cause__ = TimeoutError()
    told = PathError(f"{late};\n told by a log")
    told.__cause__ = late
    assert judge_error(told).outcome == "hangs"
    assert judge_error(told).why == "http://x did not answer within 5 s; told by a log"
    assert judge_error(AnswerError("http://x", "answered 500")).outcome == "refuses"


def rehearsed() -> Rehearsal:
    chosen = choose_combinations(("nixl", "model"), 2)
    outcomes: tuple[Outcome, ...] = ("works", "corrupts")
    return Rehearsal(
        system="stub",
        fingerprint="f",
        a=Stack(text="nixl==1.4.1", pins={"nixl": "1.4.1"}, digest="a"),
        b=Stack(text="current", pins={"nixl": "1.5.1"}, serve_args=("--x",), digest="b"),
        differences=("nixl", "model"),
        started_at="2026-11-28T10:00:00.000Z",
        models={"A": "/m/1", "B": "/m/2"},
        chosen=chosen,
        results=tuple(
            Rehearsed(
                combination=each, outcome=outcome, why=f"why|{outcome}", ready_s=51.6, after_s=3.2
            )
            for each, outcome in zip(chosen, outcomes, strict=True)
        ),
    )


def test_a_rehearsal_is_shown_as_a_table_and_the_cause_of_what_does_not_work() -> None:
    assert rehearsal_lines(rehearsed()) == [
        "A: nixl 1.4.1",
        "B: nixl 1.5.1, --x",
        "model of A: /m/1",
        "model of B: /m/2",
        "they differ in nixl, model; system stub; begun 2026-11-28T10:00:00.000Z",
        " prefill   decode   router   hash   outcome    ready s   after s",
        " ───────────────────────────────────────────────────────────────",
        " A         B        B        on     works           52         3",
        " B         A        B        on     corrupts        52         3",
        "ready s: from the start until the instances were healthy; after s: from then until the "
        "outcome was known",
        "prefill-B-decode-A-router-B corrupts: why|corrupts",
        "The compatibility hash covers the model's path and shape, and not its weights.",
    ]


def test_a_rehearsal_in_markdown_escapes_what_servers_said() -> None:
    page = rehearsal_markdown(rehearsed())
    assert "| B | A | B | on | corrupts | 52 | 3 | why\\|corrupts |" in page.splitlines()


def test_a_stored_rehearsal_is_read_back_as_it_was(tmp_path: Path) -> None:
    written = rehearsed()
    assert load_rehearsal(write_rehearsal(written, tmp_path)) == written
    assert with_stored_results(replace(written, results=()), tmp_path) == written
