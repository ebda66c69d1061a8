"""Greedy texts of a topology, compared with those of one of its instances alone."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.serving.near_ties import LIKELIEST
from pytest_pdserve.serving.near_ties import NEAR_TIE
from pytest_pdserve.serving.near_ties import common_start
from pytest_pdserve.serving.near_ties import logprob_gap
from pytest_pdserve.serving.warmup import Completions


@dataclass(frozen=True, slots=True, kw_only=True)
class GreedyTexts:
    """Greedy texts of one prompt, each of the same number of tokens."""

    prompt: str
    """Prompt."""
    alone: str
    """Text of one instance that does prefill and decode itself."""
    again: str
    """Second text of the same instance, to see whether it repeats itself."""
    through: str
    """Text of the topology, through its router."""
    other: str | None = None
    """Text of another instance alone, which is right too; None if only one was asked."""

    @property
    def right(self) -> bool:
        """True if the text of the topology is that of an instance alone."""
        return self.through in (self.alone, self.other)

    @property
    def parting(self) -> tuple[str, str, str]:
        """The words that both texts begin with, the topology's other words, the instance's."""
        same = common_start(self.alone, self.through)
        return same, self.through[len(same) :], self.alone[len(same) :]


GapOf = Callable[[GreedyTexts], float | None]
"""Returns the gap in nats between the topology's token and the instance's own where texts diverge;
None if the server does not report it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongText:
    """A text of a topology that is not right, and not excused."""

    texts: GreedyTexts
    """Texts of its prompt."""
    gap: float | None
    """Gap in nats; None if the server does not report it."""


def compare_texts(
    texts: Sequence[GreedyTexts], gap: GapOf
) -> tuple[tuple[str, ...], tuple[WrongText, ...]]:
    """Return why each text that differs is excused, and the texts that are wrong.

    A text may diverge at a token that the instance finds nearly as likely as its own
    (:data:`.NEAR_TIE`), and may differ if the instance does not repeat its own text, because
    floating-point sums depend on their order.
    """
    excused: list[str] = []
    wrong: list[WrongText] = []
    for each in texts:
        if each.right:
            continue
        nats = gap(each)
        if nats is not None and nats <= NEAR_TIE:
            excused.append(f"a token {nats:.3f} nats less likely than the instance's own")
        elif each.again != each.alone:
            excused.append("the instance alone does not repeat its text either")
        else:
            wrong.append(WrongText(texts=each, gap=nats))
    return tuple(excused), tuple(wrong)


def ask_gap(completions: Completions, url: str, texts: GreedyTexts) -> float | None:
    """Return the gap in nats between the topology's token and the instance's where they diverge.

    :param url: of the instance.
    """
    same, through, _ = texts.parting
    answer = completions.ask(url, texts.prompt + same, tokens=1, logprobs=LIKELIEST)
    return logprob_gap(answer, through)
