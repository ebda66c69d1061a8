"""Whether measured requests have the greedy answers that they have when nothing else is asked.

Another batch sums in another order, so that where two tokens are nearly equally likely either may
follow, and all that comes after it differs: in bfloat16 that is common. Therefore a
text that differs is held against two things. The server says how much less likely the measured
words were; above :data:`MAX_TIE_NATS` no order of sums explains them. And the request is asked
alone once more: where those two differ as often, load has nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.client_checks import MIN_COMPARED_TOKENS
from pytest_pdserve.judge.findings import invalid
from pytest_pdserve.judge.findings import note
from pytest_pdserve.judge.findings import unproven
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.observation import RepeatedAnswer
from pytest_pdserve.values.record import Finding

MAX_TIE_NATS = 0.5
"""How much less likely than the likeliest token one may be that another order of sums chooses.

The tiny model in bfloat16 on CPUs, 12 requests at once, 48 tokens: 26 of 64 texts differed from
those alone, none by more than 0; 24 of 24 texts of other prompts by 0.53 to 1.9. A logit of 16 to
32 in bfloat16 has steps of 0.125."""
MAX_CHANCE = 1e-3
"""Probability, if load changes no answer, below which a difference makes a run invalid. Of 8
requests that repeat themselves, 7 must differ: only gross trouble is proven."""


def check_answers_under_load(seen: Observation) -> Iterator[Finding]:
    """Greedy answers under load are those of the same requests asked alone."""
    repeated = seen.repeated
    if repeated is None:
        return
    if repeated.not_kept:
        yield note(
            "answers_under_load", f"no measured request was asked again: {repeated.not_kept}"
        )
    if repeated.fault:
        yield unproven(
            "answers_under_load",
            f"a measured request could not be asked again after the run: {repeated.fault}",
        )
    answers = repeated.answers
    if not answers:
        return
    tokens, completed = seen.result.total_output_tokens or 0, seen.result.completed or 0
    alike = seen.result.answers_identical and tokens >= MIN_COMPARED_TOKENS * completed
    if alike and len(answers) > 1 and not _share_another(answers):
        yield _all_alike(len(seen.result.answer_digests), answers)
    else:
        yield from _differing(answers)


def _share_another(answers: Sequence[RepeatedAnswer]) -> bool:
    """Whether the answers alone are all one text too, but not that under load."""
    return len({each.alone for each in answers}) == 1 and any(each.differs for each in answers)


def _all_alike(count: int, answers: Sequence[RepeatedAnswer]) -> Finding:
    """Judge a run whose answers are all the same text."""
    alone = {each.alone for each in answers}
    said = f"all {count} answers are the same text"
    if len(alone) > 1:
        return invalid(
            "answers_under_load",
            f"{said}, but {len(answers)} of these requests, asked alone, get {len(alone)} "
            "different texts: what was served under load is wrong",
        )
    return unproven(
        "answers_under_load",
        f"{said}, and {len(answers)} of these requests, asked alone, get it too: a wrong answer "
        "would not show",
    )


def _differing(answers: Sequence[RepeatedAnswer]) -> Iterator[Finding]:
    """What follows from single answers that differ."""
    differing = [each for each in answers if each.differs]
    if not differing:
        return
    restless = sum(not each.repeats for each in answers)
    gaps = [each.gap_nats for each in differing if each.gap_nats is not None]
    wrong = sum(gap > MAX_TIE_NATS for gap in gaps)
    unexplained = wrong + len(differing) - len(gaps)
    said = _said(answers, differing, gaps, restless)
    if chance(wrong, restless, len(answers)) < MAX_CHANCE:
        yield invalid("answers_under_load", f"{said}: what was served under load is wrong")
    elif wrong > restless or chance(unexplained, restless, len(answers)) < MAX_CHANCE:
        yield unproven(
            "answers_under_load",
            f"{said}; so few requests do not tell whether load changes answers",
        )
    else:
        yield note("answers_under_load", said)


def chance(differing: int, restless: int, asked: int) -> float:
    """Return the probability that so many of *asked* requests differ if load changes none.

    Fisher's exact test, one-sided.

    :param restless: requests whose two answers alone differ; one that is not asked twice, since its
        answer does not differ, counts as one that repeats itself.
    """
    from scipy.stats import fisher_exact

    table = [[differing, asked - differing], [restless, asked - restless]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def _said(
    answers: Sequence[RepeatedAnswer],
    differing: Sequence[RepeatedAnswer],
    gaps: Sequence[float],
    restless: int,
) -> str:
    """Return the numbers, without a text: prompts may be private."""
    rows = ", ".join(str(each.index) for each in differing)
    silent = len(differing) - len(gaps)
    known = [f"up to {max(gaps):.2g} nats (limit {MAX_TIE_NATS:g})"] if gaps else []
    unknown = [f"for {silent} the server does not say"] if silent else []
    return (
        f"{len(differing)} of {len(answers)} measured requests (rows {rows}) have a different "
        f"greedy text when asked alone, {restless} differ between two times alone; how much less "
        f"likely than the top token the measured text was: {', '.join(known + unknown)}"
    )
