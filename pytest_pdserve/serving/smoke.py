"""Smoke tests: check that a topology answers, over its path, with the right tokens."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.serving.greedy_texts import GapOf
from pytest_pdserve.serving.greedy_texts import GreedyTexts
from pytest_pdserve.serving.greedy_texts import WrongText
from pytest_pdserve.serving.greedy_texts import ask_gap
from pytest_pdserve.serving.greedy_texts import compare_texts
from pytest_pdserve.serving.model import has_random_weights
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.values.counters import BY_NAME
from pytest_pdserve.values.counters import counted_per_rank
from pytest_pdserve.values.counters import diagnose_missing
from pytest_pdserve.values.roles import kv_pullers
from pytest_pdserve.values.roles import kv_sources

if TYPE_CHECKING:
    from pytest_pdserve.serving.deployment import Deployment

Judge = Callable[["Deployment"], Verdict]

TOKENS = 24
PROMPTS = 5


def long_prompts(count: int = PROMPTS) -> list[str]:
    """Return prompts of 121 words that differ only in the first, so that a lost KV cache shows."""
    words = [a + b for a, b in itertools.product(("bo", "fe", "gi", "ku", "lo"), repeat=2)]
    tail = " ".join(words[number * 7 % len(words)] for number in range(120))
    return [f"{first} {tail}" for first in words[:count]]


def _with_heartbeat(judge: Judge) -> Judge:
    """Wrap *judge* so that it reports progress while it waits for answers."""

    @functools.wraps(judge)
    def wrapper(deployment: Deployment) -> Verdict:
        with Heartbeat(deployment.progress, "waiting for answers"):
            return judge(deployment)

    return wrapper


@_with_heartbeat
def judge_answer(deployment: Deployment) -> Verdict:
    """Judge whether the endpoint generates exactly as many tokens as requested.

    :raises PathError: if it does not answer.
    """
    answer = deployment.completions.stream(deployment.url, long_prompts(1)[0], tokens=TOKENS)
    subject = f"{deployment.topology.id} at {deployment.url}"
    if answer.tokens not in (None, TOKENS):
        miss = f"{answer.tokens} tokens, asked {TOKENS}"
        return Verdict(status=Status.FAIL, subject=subject, misses=(miss,))
    return Verdict(status=Status.PASS, subject=subject)


@_with_heartbeat
def judge_path(deployment: Deployment) -> Verdict:
    """Judge whether every request moved one KV cache from a prefill to a decode instance."""
    subject, prompts = f"path of {deployment.topology.id}", long_prompts()
    if not deployment.instances:
        why = "the instances behind this endpoint cannot be asked for their counters"
        return Verdict(status=Status.NOT_JUDGED, subject=subject, misses=(why,))
    before = deployment.scrape()
    for prompt in prompts:
        deployment.completions.text(deployment.url, prompt, tokens=2)
    after = deployment.scrape()
    misses: list[str] = []
    silent: list[str] = []
    for name, roles, expected in (
        ("kv_transfers", kv_pullers(), len(prompts)),
        ("kv_failed", kv_pullers(), 0),
        ("requests", kv_sources(), len(prompts)),
        ("requests", kv_pullers(), len(prompts)),
    ):
        servers = [server for server in deployment.instances if server.role in roles]
        counts = [(before[s.name].get(name), after[s.name].get(name)) for s in servers]
        counted = [b - a for a, b in counts if a is not None and b is not None]
        sample = BY_NAME[name].samples[0]
        if len(counted) < len(servers):
            counting = all("requests" in after[server.name].counts for server in servers)
            cause = diagnose_missing(name, deployment.vllm_version, counts_requests=counting)
            sentence = f"{'/'.join(roles)} instances show no {sample}: {cause.why}"
            (misses if cause.proves_no_transfer else silent).append(sentence)
        elif not _as_expected(name, sum(counted), expected, deployment.servers):
            misses.append(
                f"{'/'.join(roles)} instances counted {sum(counted):g} in {sample}, expected "
                f"{expected}"
            )
    status = Status.FAIL if misses else Status.NOT_JUDGED if silent else Status.PASS
    return Verdict(status=status, subject=subject, misses=tuple(misses or silent))


def _as_expected(name: str, counted: float, expected: int, servers: Sequence[Server]) -> bool:
    """Return whether a count is right; transfers may be counted once per tensor-parallel rank."""
    ranks = max(server.ranks for server in servers) if name == "kv_transfers" else 1
    return counted_per_rank(counted, expected, ranks) if expected else counted == expected


@_with_heartbeat
def judge_parity(deployment: Deployment) -> Verdict:
    """Judge whether greedy tokens of the topology are those of a single instance.

    A text may differ for the reasons of :func:`.compare_texts`. The verdict is NOT JUDGED if
    prompts share a text, or if every text differs and is excused.
    """
    subject = f"greedy tokens of {deployment.topology.id}"
    if not deployment.instances:
        why = "the instances behind this endpoint cannot be asked directly"
        return Verdict(status=Status.NOT_JUDGED, subject=subject, misses=(why,))
    if has_random_weights(deployment.system):
        why = "weights are random (--load-format dummy), so a wrong answer would not show"
        return Verdict(status=Status.NOT_JUDGED, subject=subject, misses=(why,))
    server, ask = deployment.instances[-1], deployment.completions.text
    alone = str(server.url)
    texts = [
        GreedyTexts(
            prompt=prompt,
            # Salted, so that no request hits the prefix cache of another.
            alone=ask(alone, prompt, tokens=TOKENS, cache_salt="alone"),
            again=ask(alone, prompt, tokens=TOKENS, cache_salt="again"),
            through=ask(deployment.url, prompt, tokens=TOKENS, cache_salt="through"),
        )
        for prompt in long_prompts()
    ]
    return parity_of(texts, subject, lambda each: ask_gap(deployment.completions, alone, each))


def parity_of(texts: Sequence[GreedyTexts], subject: str, gap: GapOf) -> Verdict:
    """Return the verdict on greedy texts of a topology and of a single instance."""
    if len({each.alone for each in texts}) == 1:
        why = (
            f"{len(texts)} different prompts have the same greedy text "
            f"({texts[0].alone[:40]!r}): with these weights a wrong one would not show"
        )
        return Verdict(status=Status.NOT_JUDGED, subject=subject, misses=(why,))
    excused, wrong = compare_texts(texts, gap)
    misses = tuple(_difference(each) for each in wrong)
    evidence = (("excused", "; ".join(excused)),) if excused else ()
    status = Status.FAIL if misses else Status.PASS
    if not misses and (why := _inconclusive(texts)):
        return Verdict(status=Status.NOT_JUDGED, subject=subject, misses=(why,), evidence=evidence)
    return Verdict(status=status, subject=subject, misses=misses, evidence=evidence)


def _inconclusive(texts: Sequence[GreedyTexts]) -> str:
    """Return why texts do not prove parity, although none is wrong; empty if they do."""
    different = len({each.alone for each in texts})
    if different < len(texts):
        return (
            f"{len(texts)} different prompts have {different} greedy texts: a wrong KV cache could "
            "give the right text"
        )
    if not any(each.right for each in texts):
        return f"all {len(texts)} greedy texts differ, each within an accepted reason"
    return ""


def _difference(wrong: WrongText) -> str:
    same, through, alone = wrong.texts.parting
    likelihood = "its log-probability of the topology's next token is unknown"
    if wrong.gap is not None:
        likelihood = (
            f"it finds the topology's next token {wrong.gap:.2f} nats less likely than its own"
        )
    return (
        f"texts differ after {same[-40:]!r}: through the topology {through!r}, by one instance "
        f"{alone!r} ({likelihood})"
    )
