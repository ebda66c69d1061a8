"""Judge a combination of stacks by the error of a request, or by greedy tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.serving.greedy_texts import GapOf
from pytest_pdserve.serving.greedy_texts import GreedyTexts
from pytest_pdserve.serving.greedy_texts import WrongText
from pytest_pdserve.serving.greedy_texts import compare_texts
from pytest_pdserve.values.rehearsal import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An outcome with its evidence."""

    outcome: Outcome
    """Outcome."""
    why: str
    """Evidence, in one sentence."""


def timed_out(error: BaseException) -> bool:
    """Return whether *error* was caused by a time-out."""
    import httpx

    while True:
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return True
        cause = error.__cause__ or error.__context__
        if cause is None:
            return False
        error = cause


def judge_error(error: Exception) -> Judged:
    """Return the outcome of a combination whose request ended with *error*."""
    why = " ".join(str(error).split())
    return Judged(outcome="hangs" if timed_out(error) else "refuses", why=why)


def judge_texts(texts: Sequence[GreedyTexts], gap: GapOf) -> Judged:
    """Return the outcome by greedy texts: right is the text of an instance of either side alone.

    Another text may be excused (:func:`.compare_texts`).

    :param texts: ``alone`` is the text of the decode instance, ``other`` of the prefill instance.
    """
    if len({each.alone for each in texts}) < len(texts):
        return Judged(
            outcome="not shown",
            why=f"{len(texts)} different prompts share greedy texts: with these weights a wrong "
            "KV cache would not show",
        )
    excused, wrong = compare_texts(texts, gap)
    if wrong:
        return Judged(outcome="corrupts", why=_wrong_text(wrong, len(texts)))
    if len(excused) == len(texts):
        return Judged(
            outcome="not shown",
            why=f"all {len(texts)} greedy texts differ, each within an accepted reason: "
            + excused[0],
        )
    right = f"{len(texts) - len(excused)} of {len(texts)} greedy texts are right"
    return Judged(outcome="works", why=right + (f"; {'; '.join(excused)}" if excused else ""))


def sides_agree(texts: Sequence[GreedyTexts]) -> bool:
    """Return whether both instances alone generate the same texts."""
    return all(each.alone == each.other for each in texts)


def _wrong_text(wrong: Sequence[WrongText], of: int) -> str:
    same, through, alone = wrong[0].texts.parting
    return (
        f"{len(wrong)} of {of} greedy texts at HTTP 200 are those of neither side; the first "
        f"differs after {same[-40:]!r}: {through[:60]!r} in place of {alone[:60]!r}"
    )
