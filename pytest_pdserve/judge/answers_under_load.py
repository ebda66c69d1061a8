"""Check that measured requests got the same greedy answers as when they are sent alone.

Another batch adds numbers in another order. Where two tokens are nearly equally likely, either may
follow, and then the rest of the text differs: in bfloat16 that is common. Therefore a text that
differs is judged by two more facts. The server reports how much less likely the measured tokens
were; above :data:`MAX_TIE_NATS` no order of additions explains them. And the request is sent alone
once more: if the two answers differ as often, load is not the cause.
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
"""Largest gap to the most likely token, in nats, that another order of sums may bridge.

The tiny model in bfloat16 on CPUs, 12 requests at once, 48 tokens: 26 of 64 texts differed from
those sent alone, none by more than 0; 24 of 24 texts of other prompts by 0.53 to 1.9. A logit of 16
to 32 in bfloat16 has steps of 0.125."""
MAX_CHANCE = 1e-3
"""Probability of the differences, if load changes no answer, below which a run is invalid. Of 8
requests whose answers alone are equal, 7 must differ: only large faults are proven."""


def check_answers_under_load(run: Observation) -> Iterator[Finding]:
    """Check that greedy answers under load are those of the same requests sent alone."""
    repeated = run.repeated
    if repeated is None:
        return
    if repeated.not_kept:
        yield note("answers_under_load", f"no measured request was sent again: {repeated.not_kept}")
    if repeated.fault:
        yield unproven(
            "answers_under_load",
            f"a measured request could not be sent again after the run: {repeated.fault}",
        )
    answers = repeated.answers
    if not answers:
        return
    tokens, completed = run.result.total_output_tokens or 0, run.result.completed or 0
    alike = run.result.answers_identical and tokens >= MIN_COMPARED_TOKENS * completed
    if alike and len(answers) > 1 and not _share_another(answers):
        yield _judge_identical(len(run.result.answer_digests), answers)
    else:
        yield from _judge_differing(answers)


def _share_another(answers: Sequence[RepeatedAnswer]) -> bool:
    """Return whether all answers alone are one text too, but another one than under load."""
    alone = {answer.alone for answer in answers}
    return len(alone) == 1 and any(answer.differs for answer in answers)


def _judge_identical(count: int, answers: Sequence[RepeatedAnswer]) -> Finding:
    """Judge a run whose answers are all the same text."""
    alone = {answer.alone for answer in answers}
    message = f"all {count} answers are the same text"
    if len(alone) > 1:
        return invalid(
            "answers_under_load",
            f"{message}, but {len(answers)} of these requests, sent alone, get {len(alone)} "
            "different texts: what was served under load is wrong",
        )
    return unproven(
        "answers_under_load",
        f"{message}, and {len(answers)} of these requests, sent alone, get it too: a wrong answer "
        "would not show",
    )


def _judge_differing(answers: Sequence[RepeatedAnswer]) -> Iterator[Finding]:
    """Judge answers of which some differ from those of the same requests alone."""
    differing = [answer for answer in answers if answer.differs]
    if not differing:
        return
    unstable = sum(not answer.repeats for answer in answers)
    gaps = [answer.gap_nats for answer in differing if answer.gap_nats is not None]
    wrong = sum(gap > MAX_TIE_NATS for gap in gaps)
    unexplained = wrong + len(differing) - len(gaps)
    message = _message(answers, differing, gaps, unstable)
    if chance(wrong, unstable, len(answers)) < MAX_CHANCE:
        yield invalid("answers_under_load", f"{message}: what was served under load is wrong")
    elif wrong > unstable or chance(unexplained, unstable, len(answers)) < MAX_CHANCE:
        yield unproven(
            "answers_under_load",
            f"{message}; too few requests to decide whether load changes answers",
        )
    else:
        yield note("answers_under_load", message)


def chance(differing: int, unstable: int, requests: int) -> float:
    """Return the probability that so many of *requests* differ if load changes none.

    Fisher's exact test, one-sided.

    :param unstable: requests whose two answers alone differ. A request is sent only once if its
        answer does not differ; then it counts as stable.
    """
    from scipy.stats import fisher_exact

    table = [[differing, requests - differing], [unstable, requests - unstable]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def _message(
    answers: Sequence[RepeatedAnswer],
    differing: Sequence[RepeatedAnswer],
    gaps: Sequence[float],
    unstable: int,
) -> str:
    """Return the numbers, without any text, as prompts may be private."""
    rows = ", ".join(str(answer.index) for answer in differing)
    without_gap = len(differing) - len(gaps)
    known = [f"up to {max(gaps):.2g} nats (limit {MAX_TIE_NATS:g})"] if gaps else []
    unknown = [f"unknown for {without_gap}"] if without_gap else []
    return (
        f"{len(differing)} of {len(answers)} measured requests (rows {rows}) have a different "
        f"greedy text when sent alone, {unstable} differ between two times alone; how much less "
        f"likely than the top token the measured text was: {', '.join(known + unknown)}"
    )
