"""Judge a combination of stacks by the error of a request, or by greedy tokens."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.serving.near_ties import NEAR_TIE
from pytest_pdserve.serving.near_ties import common_start
from pytest_pdserve.values.rehearsal import Outcome

GapOf = Callable[["Texts"], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Greedy texts of one prompt, each of the same number of tokens."""

    prompt: str
    """Prompt."""
    prefill: str
    """Text of the prefill instance alone."""
    decode: str
    """Text of the decode instance alone."""
    again: str
    """Second text of the decode instance alone."""
    through: str
    """Text through router, prefill and decode instance."""

    @property
    def right(self) -> bool:
        """True if the text through both instances equals that of one of them alone."""
        return self.through in (self.prefill, self.decode)


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


def judge_texts(texts: Sequence[Texts], gap: GapOf) -> Judged:
    """Return the outcome by greedy texts: right is the text of an instance of either side alone.

    Another text is excused if it diverges at a token that the decode instance finds nearly as
    likely as its own (:data:`~.near_ties.NEAR_TIE`), or if that instance does not repeat its own
    text, because floating-point sums depend on their order.

    :param gap: returns the gap in nats between the topology's token and the decode instance's own
        where texts diverge; None if the server does not report it.
    """
    if len({each.decode for each in texts}) < len(texts):
        return Judged(
            outcome="not shown",
            why=f"{len(texts)} different prompts share greedy texts: with these weights a wrong "
            "KV cache would not show",
        )
    excused, wrong = [], []
    for each in texts:
        if each.right:
            continue
        nats = gap(each)
        if nats is not None and nats <= NEAR_TIE:
            excused.append(f"a token {nats:.3f} nats less likely")
        elif each.again != each.decode:
            excused.append("the decode instance does not repeat its own text")
        else:
            wrong.append(each)
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


def sides_agree(texts: Sequence[Texts]) -> bool:
    """Return whether both instances alone generate the same texts."""
    return all(each.prefill == each.decode for each in texts)


def _wrong_text(wrong: Sequence[Texts], of: int) -> str:
    first = wrong[0]
    begin = common_start(first.decode, first.through)
    return (
        f"{len(wrong)} of {of} greedy texts at HTTP 200 are those of neither side; the first "
        f"differs after {begin[-40:]!r}: {first.through[len(begin) :][:60]!r} in place of "
        f"{first.decode[len(begin) :][:60]!r}"
    )
