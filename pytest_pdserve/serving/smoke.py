"""Whether a topology answers, over its path, with the right tokens: each told as a verdict."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.serving.model import has_random_weights
from pytest_pdserve.serving.near_ties import LIKELIEST
from pytest_pdserve.serving.near_ties import NEAR_TIE
from pytest_pdserve.serving.near_ties import common
from pytest_pdserve.serving.near_ties import gap_of
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.values.counters import BY_NAME
from pytest_pdserve.values.counters import counted_per_rank
from pytest_pdserve.values.counters import diagnose_missing
from pytest_pdserve.values.roles import kv_pullers
from pytest_pdserve.values.roles import kv_sources

if TYPE_CHECKING:
    from pytest_pdserve.serving.deployment import Deployment

GapOf = Callable[["Greedy"], float | None]
Judge = Callable[["Deployment"], Verdict]

TOKENS = 24
PROMPTS = 5


def long_prompts(count: int = PROMPTS) -> list[str]:
    """Prompts of 121 words that differ in the first word only, so that a lost KV cache shows."""
    words = [a + b for a, b in itertools.product(("bo", "fe", "gi", "ku", "lo"), repeat=2)]
    tail = " ".join(words[number * 7 % len(words)] for number in range(120))
    return [f"{first} {tail}" for first in words[:count]]


def _never_silent(judge: Judge) -> Judge:
    """Have *judge* tell that it waits for answers."""

    @functools.wraps(judge)
    def telling(deployment: Deployment) -> Verdict:
        with Heartbeat(deployment.progress, "waiting for answers"):
            return judge(deployment)

    return telling


@_never_silent
def judge_answer(deployment: Deployment) -> Verdict:
    """FAIL if the endpoint generates another number of tokens than it was asked for.

    :raises PathError: if it does not answer.
    """
    answer = deployment.completions.stream(deployment.url, long_prompts(1)[0], tokens=TOKENS)
    subject = f"{deployment.topology.id} at {deployment.url}"
    if answer.tokens not in (None, TOKENS):
        said = f"{answer.tokens} tokens, asked {TOKENS}"
        return Verdict(status=Status.FAIL, subject=subject, misses=(said,))
    return Verdict(status=Status.PASS, subject=subject)


@_never_silent
def judge_path(deployment: Deployment) -> Verdict:
    """FAIL unless every request moved one KV cache from a prefill to a decode instance."""
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
        asked = [server for server in deployment.instances if server.role in roles]
        counts = [(before[s.name].get(name), after[s.name].get(name)) for s in asked]
        known = [b - a for a, b in counts if a is not None and b is not None]
        sample = BY_NAME[name].samples[0]
        if len(known) < len(asked):
            counting = all("requests" in after[server.name].counts for server in asked)
            cause = diagnose_missing(name, deployment.vllm_version, counts_requests=counting)
            said = f"{'/'.join(roles)} instances show no {sample}: {cause.why}"
            (misses if cause.proves_no_transfer else silent).append(said)
        elif not _as_expected(name, sum(known), expected, deployment.servers):
            misses.append(
                f"{'/'.join(roles)} instances counted {sum(known):g} in {sample}, expected "
                f"{expected}"
            )
    status = Status.FAIL if misses else Status.NOT_JUDGED if silent else Status.PASS
    return Verdict(status=status, subject=subject, misses=tuple(misses or silent))


def _as_expected(name: str, counted: float, expected: int, servers: Sequence[Server]) -> bool:
    """Transfers may be counted once per tensor-parallel rank, everything else just once."""
    ranks = max(server.ranks for server in servers) if name == "kv_transfers" else 1
    return counted_per_rank(counted, expected, ranks) if expected else counted == expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """Greedy texts of one prompt."""

    prompt: str
    """What was asked."""
    single_instance: str
    """Text of one instance that does all by itself."""
    again: str
    """The same, asked once more: how far one instance agrees with itself."""
    through: str
    """Text through the topology."""


@_never_silent
def judge_parity(deployment: Deployment) -> Verdict:
    """FAIL if greedy tokens through the topology are not those of one instance by itself.

    A text may go on with a token that the instance finds nearly as likely as its own
    (:data:`.NEAR_TIE`), and may differ where that instance does not repeat its own text:
    floating-point sums depend on their order.
    NOT JUDGED if prompts share a text, or if every text differs and is excused.
    """
    subject = f"greedy tokens of {deployment.topology.id}"
    if not deployment.instances:
        why = "the instances behind this endpoint cannot be asked by themselves"
        return Verdict(status=Status.NOT_JUDGED, subject=subject, misses=(why,))
    if has_random_weights(deployment.system):
        why = "weights are random (--load-format dummy), so a wrong answer would not show"
        return Verdict(status=Status.NOT_JUDGED, subject=subject, misses=(why,))
    server, ask = deployment.instances[-1], deployment.completions.text
    alone = str(server.url)
    texts = [
        Greedy(
            prompt=prompt,
            # Salted, so that no answer is made of what another has left in a prefix cache.
            single_instance=ask(alone, prompt, tokens=TOKENS, cache_salt="alone"),
            again=ask(alone, prompt, tokens=TOKENS, cache_salt="again"),
            through=ask(deployment.url, prompt, tokens=TOKENS, cache_salt="through"),
        )
        for prompt in long_prompts()
    ]
    return parity_of(texts, subject, lambda each: _gap(deployment, server, each))


def parity_of(texts: Sequence[Greedy], subject: str, gap: GapOf) -> Verdict:
    """Judge greedy texts.

    :param gap: by how many nats a text goes on less likely than the instance's own; None if the
        server does not tell.
    """
    if len({each.single_instance for each in texts}) == 1:
        why = (
            f"{len(texts)} different prompts have the same greedy text "
            f"({texts[0].single_instance[:40]!r}): with these weights a wrong one would not show"
        )
        return Verdict(status=Status.NOT_JUDGED, subject=subject, misses=(why,))
    misses, excused = [], []
    for each in texts:
        if each.through == each.single_instance:
            continue
        less = gap(each)
        if less is not None and less <= NEAR_TIE:
            excused.append(f"a token {less:.3f} nats less likely than the instance's own")
        elif each.again != each.single_instance:
            excused.append("the instance by itself does not repeat its text either")
        else:
            misses.append(_difference(each, less))
    evidence = (("excused", "; ".join(excused)),) if excused else ()
    status = Status.FAIL if misses else Status.PASS
    if not misses and (unsure := _unsure(texts)):
        return Verdict(
            status=Status.NOT_JUDGED, subject=subject, misses=(unsure,), evidence=evidence
        )
    return Verdict(status=status, subject=subject, misses=tuple(misses), evidence=evidence)


def _unsure(texts: Sequence[Greedy]) -> str:
    """Why texts without a wrong one show nothing all the same; empty if they do."""
    different = len({each.single_instance for each in texts})
    if different < len(texts):
        return (
            f"{len(texts)} different prompts have {different} greedy texts: a wrong KV cache could "
            "give the right text"
        )
    if all(each.through != each.single_instance for each in texts):
        return f"all {len(texts)} greedy texts differ, each within an accepted reason"
    return ""


def _difference(each: Greedy, gap: float | None) -> str:
    begin = common(each.single_instance, each.through)
    less = "how likely it finds the topology's next token is unknown"
    if gap is not None:
        less = f"it finds the topology's next token {gap:.2f} nats less likely than its own"
    return (
        f"texts differ after {begin[-40:]!r}: through the topology {each.through[len(begin) :]!r}, "
        f"by one instance {each.single_instance[len(begin) :]!r} ({less})"
    )


def _gap(deployment: Deployment, server: Server, each: Greedy) -> float | None:
    """Return by how many nats the topology's text goes on less likely than the instance's own."""
    same = common(each.single_instance, each.through)
    answer = deployment.completions.ask(
        str(server.url), each.prompt + same, tokens=1, logprobs=LIKELIEST
    )
    return gap_of(answer, each.through[len(same) :])
