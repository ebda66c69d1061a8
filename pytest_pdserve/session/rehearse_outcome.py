"""What became of a combination: by the error of a request, or by its greedy tokens."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.serving.near_ties import NEAR_TIE
from pytest_pdserve.serving.near_ties import common
from pytest_pdserve.values.rehearsal import Outcome

GapOf = Callable[["Texts"], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Greedy texts of one prompt, each of the same number of tokens."""

    prompt: str
    """What was asked."""
    prefill: str
    """Of the prefill instance by itself."""
    decode: str
    """Of the decode instance by itself."""
    again: str
    """The same, asked once more."""
    through: str
    """Through router, prefill and decode."""

    @property
    def right(self) -> bool:
        """Whether the text through both is that of one of them by itself."""
        return self.through in (self.prefill, self.decode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An outcome with its evidence."""

    outcome: Outcome
    """What became of it."""
    why: str
    """In one sentence."""


def timed_out(error: BaseException) -> bool:
    """Tell whether a request failed because no answer came in time."""
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
    said = " ".join(str(error).split())
    return Judged(outcome="hangs" if timed_out(error) else "refuses", why=said)


def judge_texts(texts: Sequence[Texts], gap_of: GapOf) -> Judged:
    """Return the outcome by greedy texts: right is what an instance of either side says by itself.

    Where a text is neither, it may go on with a token that the decode instance finds nearly as
    likely as its own (:data:`~.smoke.NEAR_TIE`), or that instance may not repeat its own text:
    floating-point sums depend on their order.

    :param gap_of: by how many nats the decode instance finds the text less likely than its own
        where the two part; None if it does not say.
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
        gap = gap_of(each)
        if gap is not None and gap <= NEAR_TIE:
            excused.append(f"a token {gap:.3f} nats less likely")
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
    """Tell whether both instances, each by itself, give the same texts."""
    return all(each.prefill == each.decode for each in texts)


def _wrong_text(wrong: Sequence[Texts], of: int) -> str:
    first = wrong[0]
    begin = common(first.decode, first.through)
    return (
        f"{len(wrong)} of {of} greedy texts at HTTP 200 are those of neither side; the first parts "
        f"after {begin[-40:]!r}: {first.through[len(begin) :][:60]!r} in place of "
        f"{first.decode[len(begin) :][:60]!r}"
    )
