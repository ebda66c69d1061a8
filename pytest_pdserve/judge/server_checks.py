"""Checks of what servers counted: who served, what was moved, what came from a cache."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.client_checks import is_chat
from pytest_pdserve.judge.findings import invalid
from pytest_pdserve.judge.findings import note
from pytest_pdserve.judge.findings import unproven
from pytest_pdserve.values.counters import BY_NAME
from pytest_pdserve.values.counters import counted_per_rank
from pytest_pdserve.values.counters import diagnose_missing
from pytest_pdserve.values.counters import version_has_counter
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.model import SMALL_VOCABULARY
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.roles import AGGREGATED
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.roles import kv_pullers
from pytest_pdserve.values.roles import kv_sources

CHANCE = 1e-6
"""An idle instance is invalid if uniform routing would leave one idle less often than this."""
MAX_ADDED_TOKENS = 2
"""Tokens that a server may add to each prompt beside what the client says."""
MAX_ADDED_SHARE = 0.01
"""Share of all prompt tokens by which a client that counts for itself may be off."""
_KV_FAULTS = {
    "kv_failed": "KV transfers failed (from vLLM 0.32 on, handshakes and notifications too)",
    "kv_expired": "KV caches expired before they were read",
    "kv_read_late": "KV caches were read after they had expired: answers may be wrong",
}
"""What makes a run invalid if it was counted once; unproven if it is not counted."""
_RARELY_COUNTED = ("kv_read_late",)
"""Faults that only the newest vLLM counts: a missing count is no finding."""
LONG_STALL_S = 3.0
"""An engine that had requests and made no token for so long is worth a note."""


def check_served(seen: Observation) -> Iterator[Finding]:
    """Every instance of every role served, and none restarted."""
    if not seen.served:
        yield unproven(
            "served",
            f"the counters of {seen.topology.id}'s instances cannot be read here, so "
            "neither the path nor KV transfers are proven",
            voids=METRICS.voided_by("counters"),
        )
        return
    if len(seen.served) < seen.instances:
        yield invalid("served", f"{len(seen.served)} of {seen.instances} instances showed counters")
    for counts in seen.served:
        if counts.restarted:
            yield invalid("restarted", f"{counts.name} restarted during the run")
        elif counts.restarted is None:
            yield unproven("restarted", f"{counts.name} does not show when its process started")
        if counts.ended_abnormally:
            yield invalid(
                "served",
                f"{counts.name} ended {counts.ended_abnormally:g} requests with abort, error or "
                "repetition",
            )
    yield from _missing(seen, "served", "requests", seen.served)
    for role in ROLES:
        yield from _served_role(seen.of(role), seen.asked)


def _served_role(counts: Sequence[ServedCounts], prompts: int) -> Iterator[Finding]:
    idle = [c.name for c in counts if c.requests is not None and c.requests <= 0]
    if not idle:
        return
    names = ", ".join(idle)
    if len(idle) == len(counts):
        yield invalid("served", f"no {counts[0].role} instance served any request ({names})")
        return
    chance = len(counts) * (1 - 1 / len(counts)) ** prompts
    message = f"{names} served none of {prompts} requests"
    if chance < CHANCE:
        yield invalid(
            "served", f"{message}; uniform routing does that once in {1 / chance:.1g} runs"
        )
    else:
        yield note("served", f"{message}; uniform routing does that in {chance:.2g} of runs")


def _missing(
    seen: Observation, check: str, name: str, served: Sequence[ServedCounts]
) -> Iterator[Finding]:
    """What cannot be known where instances do not show a counter: absent is not zero."""
    silent = [counts.name for counts in served if getattr(counts, name) is None]
    if silent:
        yield unproven(
            check,
            f"{', '.join(silent)} shows no {BY_NAME[name].samples[0]}: "
            f"{diagnose_missing(name, seen.vllm_version, counts_requests=_counting(served)).why}",
        )


def _counting(served: Sequence[ServedCounts]) -> bool:
    """Whether any of these instances shows how many requests it served."""
    return any(counts.requests is not None for counts in served)


def check_foreign_requests(seen: Observation) -> Iterator[Finding]:
    """Instances counted no more than the client sent: else another client used them too."""
    if not seen.served:
        return
    result, again = seen.result, int(seen.router.get("vllm_router_retries_total", 0))
    sent = seen.asked + seen.extra_sent + again
    longest = max(result.input_lens, default=0)
    prompts = (result.total_input_tokens or 0) + (seen.extra_sent + again) * longest
    if seen.extra_sent > seen.extra_expected:
        yield unproven(
            "foreign_requests",
            f"instances counted one request more than {seen.asked + seen.extra_expected}: another "
            "client's, or the readiness request of a vLLM client before 0.14 (version unknown)",
        )
    for roles in (kv_sources(), kv_pullers(), (AGGREGATED,)):
        names = f"{' and '.join(roles)} instances"
        requests, tokens = (_sum(seen, name, roles) or 0 for name in ("requests", "prompt_tokens"))
        if requests > sent:
            yield invalid(
                "foreign_requests",
                f"{names} counted {requests:g} requests, {sent} were sent: another client sent "
                f"{requests - sent:g}",
            )
        elif tokens - prompts > max(MAX_ADDED_TOKENS * sent, MAX_ADDED_SHARE * prompts):
            said = f"{names} read {tokens:g} prompt tokens, {prompts:g} were sent"
            if is_chat(seen):
                yield unproven("foreign_requests", f"{said}: a chat template, or another client")
            else:
                yield invalid("foreign_requests", f"{said}: another client cancelled a request")


def _sum(seen: Observation, name: str, roles: Sequence[str]) -> float | None:
    """The sum of a count over the instances of *roles*; None if there is none, or one is silent."""
    values = [getattr(counts, name) for counts in seen.of(*roles)]
    return sum(values) if values and None not in values else None


def check_preemptions(seen: Observation) -> Iterator[Finding]:
    """What an engine had to throw out of its KV cache; a decode instance prefills it again."""
    for counts in seen.served:
        if not counts.preemptions:
            continue
        share = counts.preemptions / max(1.0, counts.requests or seen.asked)
        message = f"{counts.name} preempted {counts.preemptions:g} times ({share:.0%} of requests)"
        pulls = counts.role in kv_pullers()
        if pulls:
            message += "; each prefills again on a decode instance"
        limit = seen.sanity.max_preemptions_per_request
        if pulls and share > limit:
            yield invalid("preemptions", f"{message}, limit {limit:.0%}; its KV cache is too small")
        else:
            yield note("preemptions", message)


def check_transfers(seen: Observation) -> Iterator[Finding]:
    """One KV transfer per request and rank, none failed, none expired, none read too late."""
    if not seen.topology.disaggregated or not seen.served:
        return
    transfers = seen.total("kv_transfers", *kv_pullers())
    if transfers is None:
        yield _no_transfers(seen)
        return
    sent = seen.asked + seen.extra_sent
    if not counted_per_rank(transfers, sent, seen.ranks):
        each = "one each" if seen.ranks == 1 else f"1 to {seen.ranks} each, one per rank"
        yield invalid(
            "transfers", f"{transfers:g} KV transfers for {sent} requests, expected {each}"
        )
    for name, what in _KV_FAULTS.items():
        count = seen.total(name)
        if count:
            yield invalid("transfers", f"{count:g} {what}")
        elif count is None and name not in _RARELY_COUNTED:
            cause = diagnose_missing(
                name, seen.vllm_version, counts_requests=_counting(seen.served)
            )
            sample = BY_NAME[name].samples[0]
            yield unproven("transfers", f"no instance shows {sample}: {cause.why}")


def _no_transfers(seen: Observation) -> Finding:
    served = seen.of(*kv_pullers())
    names = ", ".join(counts.name for counts in served)
    cause = diagnose_missing("kv_transfers", seen.vllm_version, counts_requests=_counting(served))
    message = f"{names} shows no NIXL counters: {cause.why}"
    if cause.proves_no_transfer:
        return invalid("transfers", f"{message}, so no KV cache was moved")
    return unproven("transfers", message, voids=METRICS.voided_by("counters"))


def check_prefilled_again(seen: Observation) -> Iterator[Finding]:
    """Decode instances got their prompts' KV cache, and did not compute it themselves."""
    if not seen.topology.disaggregated or not seen.served:
        return
    pullers = seen.of(*kv_pullers())
    own, whole = (_sum(seen, n, kv_pullers()) for n in ("prompt_tokens_computed", "prompt_tokens"))
    if own is None or not whole:
        if version_has_counter("prompt_tokens_computed", seen.vllm_version):
            yield from _missing(seen, "prefilled_again", "prompt_tokens_computed", pullers)
        return
    # vLLM may compute the last token of a prompt again.
    again = own - sum(counts.requests or 0.0 for counts in pullers)
    limit = seen.sanity.max_prefilled_again_share
    if again / whole > limit:
        yield invalid(
            "prefilled_again",
            f"decode instances prefilled {again:g} of {whole:g} prompt tokens again "
            f"({again / whole:.1%}, limit {limit:.1%}): prefill and decode were not separated",
        )


def check_bytes(seen: Observation) -> Iterator[Finding]:
    """Bytes moved are what model shape, block size and prompt lengths predict.

    What a decode instance has in its own prefix cache is not moved again.
    """
    if not seen.topology.disaggregated or not seen.served:
        return
    moved = seen.total("kv_bytes", *kv_pullers())
    if moved is None:
        return
    blocks = {c.block_size for c in seen.of(*kv_pullers())}
    block_size = blocks.pop() if len(blocks) == 1 else None
    lens = seen.result.input_lens
    if block_size is None or not lens:
        yield unproven(
            "bytes", f"{moved:.0f} bytes moved; block size or prompt lengths are unknown"
        )
    elif seen.kv_shape is not None:
        # An old vLLM counts what was moved as hits too; then all of it was moved.
        cached, whole = seen.kv_cached or 0, seen.kv_predicted or 0
        if not any(counted_per_rank(moved, size, seen.ranks) for size in (whole, whole - cached)):
            each = seen.kv_shape.bytes_per_token
            already = f", {cached // each} tokens were there already" if cached else ""
            yield invalid(
                "bytes",
                f"{moved:.0f} bytes of KV cache moved, predicted {whole - cached} "
                f"({each} bytes a token, blocks of {block_size}{already})",
            )
    else:
        yield from _probed_bytes(seen, moved, (*lens, *lens[:1] * seen.extra_sent), block_size)


def _probed_bytes(
    seen: Observation, moved: float, sent: Sequence[int], block_size: int
) -> Iterator[Finding]:
    """Hold the bytes against those of single prompts of known length."""
    by_blocks = {-(-length // block_size): size for length, size in seen.kv_probed.items()}
    each = [by_blocks.get(-(-length // block_size)) for length in sent]
    known = [size for size in each if size is not None]
    if not known:
        yield unproven(
            "bytes",
            f"{moved:.0f} bytes moved; config.json does not tell the cache's shape, and no "
            "prompt of that length was probed",
        )
    elif len(known) < len(each):
        yield unproven(
            "bytes",
            f"{moved:.0f} bytes moved; config.json does not tell the cache's shape, and not "
            "every prompt length was probed",
        )
    elif moved < sum(known) and seen.total("prefix_cache_hits", *kv_pullers()):
        yield unproven(
            "bytes",
            f"{moved:.0f} bytes moved, {sum(known):.0f} expected; decode instances had some of it "
            "in their prefix caches, and config.json does not tell how large that is",
        )
    elif moved != sum(known):
        yield invalid(
            "bytes",
            f"{moved:.0f} bytes of KV cache moved, expected {sum(known):.0f} from what one probe "
            "prompt moved",
        )


def check_prefix_cache(seen: Observation) -> Iterator[Finding]:
    """Random prompts hit the prefix cache only by chance; more means that they were sent before."""
    if seen.workload.dataset != "random" or not seen.served:
        return
    if "random-prefix-len" in seen.client_options:
        return
    prefilling = [counts for counts in seen.served if counts.role not in kv_pullers()]
    found = [counts.prefix_cache_hits for counts in prefilling]
    counted = [count for count in found if count is not None]
    hits = sum(counted) if counted else None
    if hits is None:
        yield from _missing(seen, "prefix_cache", "prefix_cache_hits", prefilling)
    elif hits:
        share = hits / max(1, seen.result.total_input_tokens or 0)
        said = f"{hits:g} prompt tokens ({share:.1%}) came from the prefix cache"
        admitted = chance_hits(seen, seen.vocabulary or SMALL_VOCABULARY) + _repeated(seen)
        if hits > admitted:
            yield invalid(
                "prefix_cache",
                f"{said}, at most {admitted:g} by chance: they were sent before; use fresh servers "
                "or another seed",
            )
        elif seen.vocabulary is None:
            yield unproven(
                "prefix_cache",
                f"{said}; the model's vocabulary is unknown, so this may or may not be chance",
            )


def _repeated(seen: Observation) -> float:
    """Prompt tokens that the client sends again on purpose: warm-ups repeat its first prompt."""
    return seen.extra_sent * (seen.result.input_lens[0] if seen.result.input_lens else 0)


def chance_hits(seen: Observation, vocabulary: int) -> float:
    """Return the most prompt tokens that come from the prefix cache by chance.

    ``vllm bench serve`` counts each random prompt up from a random token, so that two prompts that
    start at the same token are equal. Of *n* prompts after *m* others, over a vocabulary of *V*
    tokens, each is equal to another with a chance of at most 1 - (1 - 1/V)^(m + n - 1): binomial,
    exceeded in one run in a million (:data:`CHANCE`).
    """
    from scipy.stats import binom

    prompts = seen.asked
    length = max(seen.result.input_lens, default=0) or (
        (seen.result.total_input_tokens or 0) / max(1, prompts)
    )
    others = seen.earlier_requests + prompts - 1
    equal = 1.0 - (1.0 - 1.0 / vocabulary) ** others
    return float(binom.isf(CHANCE, prompts, equal)) * length


def check_router(seen: Observation) -> Iterator[Finding]:
    """Note errors and retries of the router: a retry looks like a slow server."""
    bad = {n: c for n, c in seen.router.items() if "error" in n or "retries" in n}
    if any(bad.values()):
        said = ", ".join(f"{name} {count:g}" for name, count in sorted(bad.items()) if count)
        yield note("router", f"the router counted {said}")


def check_stalls(seen: Observation) -> Iterator[Finding]:
    """No engine stood still for long while it had requests."""
    for counts in seen.served:
        if counts.stall_s is not None and counts.stall_s >= LONG_STALL_S:
            yield note(
                "stalls",
                f"{counts.name} had requests and made no token for {counts.stall_s:.0f} s",
            )
