"""Checks of servers' counters: served requests, KV transfers, prefix-cache hits."""

from __future__ import annotations

import math
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
"""Probability of an idle instance under uniform routing below which the run is invalid."""
MAX_ADDED_TOKENS = 2
"""Tokens that a server may add to each prompt, compared with the client's count."""
MAX_ADDED_SHARE = 0.01
"""Share of all prompt tokens by which a client's own count may differ."""
_KV_FAULTS = {
    "kv_failed": "KV transfers failed (from vLLM 0.32 on, handshakes and notifications too)",
    "kv_expired": "KV caches expired before they were read",
    "kv_read_late": "KV caches were read after they had expired: answers may be wrong",
}
"""Counters that make a run invalid if they are above 0, and unproven if they are missing."""
_RARELY_COUNTED = ("kv_read_late",)
"""Faults that only the newest vLLM counts: a missing counter is not a finding."""
LONG_STALL_S = 3.0
"""Time without a token, while an engine has requests, from which there is a note."""


def check_served(run: Observation) -> Iterator[Finding]:
    """Check that every instance of every role served, and none restarted."""
    if not run.served:
        yield unproven(
            "served",
            f"the counters of {run.topology.id}'s instances cannot be read here, so "
            "neither the path nor KV transfers are proven",
            voids=METRICS.voided_by("counters"),
        )
        return
    if len(run.served) < run.instances:
        yield invalid("served", f"{len(run.served)} of {run.instances} instances showed counters")
    for counts in run.served:
        if counts.restarted:
            yield invalid("restarted", f"{counts.name} restarted during the run")
        elif counts.restarted is None:
            yield unproven("restarted", f"{counts.name} has no metric of its process's start time")
        if counts.ended_abnormally:
            yield invalid(
                "served",
                f"{counts.name} ended {counts.ended_abnormally:g} requests with abort, error or "
                "repetition",
            )
    yield from _missing(run, "served", "requests", run.served)
    for role in ROLES:
        yield from _served_role(run.of(role), run.num_requests)


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
    run: Observation, check: str, name: str, served: Sequence[ServedCounts]
) -> Iterator[Finding]:
    """Yield a finding if instances lack a counter: a missing counter is not zero."""
    lacking = [counts.name for counts in served if getattr(counts, name) is None]
    if lacking:
        yield unproven(
            check,
            f"{', '.join(lacking)} shows no {BY_NAME[name].samples[0]}: "
            f"{diagnose_missing(name, run.vllm_version, counts_requests=_counting(served)).why}",
        )


def _counting(served: Sequence[ServedCounts]) -> bool:
    """Return whether any of these instances has a counter of served requests."""
    return any(counts.requests is not None for counts in served)


def check_foreign_requests(run: Observation) -> Iterator[Finding]:
    """Check that instances counted no more than the client sent: otherwise another client did."""
    if not run.served:
        return
    result, again = run.result, int(run.router.get("vllm_router_retries_total", 0))
    sent = run.num_requests + run.extra_sent + again
    longest = max(result.input_lens, default=0)
    prompts = (result.total_input_tokens or 0) + (run.extra_sent + again) * longest
    if run.extra_sent > run.extra_expected:
        yield unproven(
            "foreign_requests",
            "instances counted one request more than "
            f"{run.num_requests + run.extra_expected}: another client's, or the readiness request "
            "of a vLLM client before 0.14 (version unknown)",
        )
    for roles in (kv_sources(), kv_pullers(), (AGGREGATED,)):
        names = f"{' and '.join(roles)} instances"
        requests, tokens = (_sum(run, name, roles) or 0 for name in ("requests", "prompt_tokens"))
        if requests > sent:
            yield invalid(
                "foreign_requests",
                f"{names} counted {requests:g} requests, {sent} were sent: another client sent "
                f"{requests - sent:g}",
            )
        elif tokens - prompts > max(MAX_ADDED_TOKENS * sent, MAX_ADDED_SHARE * prompts):
            message = f"{names} read {tokens:g} prompt tokens, {prompts:g} were sent"
            if is_chat(run):
                yield unproven("foreign_requests", f"{message}: a chat template, or another client")
            else:
                yield invalid("foreign_requests", f"{message}: another client cancelled a request")


def _sum(run: Observation, name: str, roles: Sequence[str]) -> float | None:
    """Return the sum of a counter over instances of *roles*; None if one of them lacks it."""
    values = [getattr(counts, name) for counts in run.of(*roles)]
    return sum(values) if values and None not in values else None


def check_preemptions(run: Observation) -> Iterator[Finding]:
    """Check how often engines preempted requests; a decode instance prefills these again."""
    for counts in run.served:
        if not counts.preemptions:
            continue
        share = counts.preemptions / max(1.0, counts.requests or run.num_requests)
        message = f"{counts.name} preempted {counts.preemptions:g} times ({share:.0%} of requests)"
        pulls = counts.role in kv_pullers()
        if pulls:
            message += "; each prefills again on a decode instance"
        limit = run.sanity.max_preemptions_per_request
        if pulls and share > limit:
            yield invalid("preemptions", f"{message}, limit {limit:.0%}; its KV cache is too small")
        else:
            yield note("preemptions", message)


def check_transfers(run: Observation) -> Iterator[Finding]:
    """Check that there is one KV transfer per request and rank, and none failed or expired."""
    if not run.topology.disaggregated or not run.served:
        return
    transfers = run.total("kv_transfers", *kv_pullers())
    if transfers is None:
        yield _no_transfers(run)
        return
    sent = run.num_requests + run.extra_sent
    if not counted_per_rank(transfers, sent, run.ranks):
        expected = "one each" if run.ranks == 1 else f"1 to {run.ranks} each, one per rank"
        yield invalid(
            "transfers", f"{transfers:g} KV transfers for {sent} requests, expected {expected}"
        )
    for name, what in _KV_FAULTS.items():
        count = run.total(name)
        if count:
            yield invalid("transfers", f"{count:g} {what}")
        elif count is None and name not in _RARELY_COUNTED:
            cause = diagnose_missing(name, run.vllm_version, counts_requests=_counting(run.served))
            sample = BY_NAME[name].samples[0]
            yield unproven("transfers", f"no instance shows {sample}: {cause.why}")


def _no_transfers(run: Observation) -> Finding:
    served = run.of(*kv_pullers())
    names = ", ".join(counts.name for counts in served)
    cause = diagnose_missing("kv_transfers", run.vllm_version, counts_requests=_counting(served))
    message = f"{names} shows no NIXL counters: {cause.why}"
    if cause.proves_no_transfer:
        return invalid("transfers", f"{message}, so no KV cache was moved")
    return unproven("transfers", message, voids=METRICS.voided_by("counters"))


def check_prefilled_again(run: Observation) -> Iterator[Finding]:
    """Check that decode instances received their prompts' KV cache instead of computing it."""
    if not run.topology.disaggregated or not run.served:
        return
    pullers = run.of(*kv_pullers())
    computed, total = (
        _sum(run, n, kv_pullers()) for n in ("prompt_tokens_computed", "prompt_tokens")
    )
    if computed is None or not total:
        if version_has_counter("prompt_tokens_computed", run.vllm_version):
            yield from _missing(run, "prefilled_again", "prompt_tokens_computed", pullers)
        return
    # vLLM may compute the last token of a prompt again.
    again = computed - sum(counts.requests or 0.0 for counts in pullers)
    limit = run.sanity.max_prefilled_again_share
    if again / total > limit:
        yield invalid(
            "prefilled_again",
            f"decode instances prefilled {again:g} of {total:g} prompt tokens again "
            f"({again / total:.1%}, limit {limit:.1%}): prefill and decode were not separated",
        )


def check_bytes(run: Observation) -> Iterator[Finding]:
    """Check that the moved bytes are what model shape, block size and prompt lengths predict.

    Blocks in a decode instance's own prefix cache are not moved again.
    """
    if not run.topology.disaggregated or not run.served:
        return
    moved = run.total("kv_bytes", *kv_pullers())
    if moved is None:
        return
    blocks = {c.block_size for c in run.of(*kv_pullers())}
    block_size = blocks.pop() if len(blocks) == 1 else None
    lens = run.result.input_lens
    if block_size is None or not lens:
        yield unproven(
            "bytes", f"{moved:.0f} bytes moved; block size or prompt lengths are unknown"
        )
    elif run.kv_shape is not None:
        # An old vLLM also counts moved blocks as hits; then all of them were moved.
        cached, total = run.kv_cached or 0, run.kv_predicted or 0
        if not any(counted_per_rank(moved, size, run.ranks) for size in (total, total - cached)):
            per_token = run.kv_shape.bytes_per_token
            already = f", {cached // per_token} tokens were there already" if cached else ""
            yield invalid(
                "bytes",
                f"{moved:.0f} bytes of KV cache moved, predicted {total - cached} "
                f"({per_token} bytes a token, blocks of {block_size}{already})",
            )
    else:
        yield from _probed_bytes(run, moved, (*lens, *lens[:1] * run.extra_sent), block_size)


def _probed_bytes(
    run: Observation, moved: float, sent: Sequence[int], block_size: int
) -> Iterator[Finding]:
    """Compare the moved bytes with those of single prompts of the same lengths."""
    by_blocks = {-(-length // block_size): size for length, size in run.kv_probed.items()}
    sizes = [by_blocks.get(-(-length // block_size)) for length in sent]
    known = [size for size in sizes if size is not None]
    if not known:
        yield unproven(
            "bytes",
            f"{moved:.0f} bytes moved; the shape of the KV cache cannot be read from config.json, "
            "and no prompt of that length was probed",
        )
    elif len(known) < len(sizes):
        yield unproven(
            "bytes",
            f"{moved:.0f} bytes moved; the shape of the KV cache cannot be read from config.json, "
            "and not every prompt length was probed",
        )
    elif moved < sum(known) and run.total("prefix_cache_hits", *kv_pullers()):
        yield unproven(
            "bytes",
            f"{moved:.0f} bytes moved, {sum(known):.0f} expected; decode instances had some of it "
            "in their prefix caches, and its size cannot be computed from config.json",
        )
    elif moved != sum(known):
        yield invalid(
            "bytes",
            f"{moved:.0f} bytes of KV cache moved, expected {sum(known):.0f} from what one probe "
            "prompt moved",
        )


def check_prefix_cache(run: Observation) -> Iterator[Finding]:
    """Check that random prompts hit the prefix cache only by chance.

    More hits mean that the same prompts were sent before.
    """
    if run.workload.dataset != "random" or not run.served:
        return
    if "random-prefix-len" in run.client_options:
        return
    prefilling = [counts for counts in run.served if counts.role not in kv_pullers()]
    counts_of_hits = [counts.prefix_cache_hits for counts in prefilling]
    counted = [count for count in counts_of_hits if count is not None]
    hits = sum(counted) if counted else None
    if hits is None:
        yield from _missing(run, "prefix_cache", "prefix_cache_hits", prefilling)
    elif hits:
        share = hits / max(1, run.result.total_input_tokens or 0)
        message = f"{hits:g} prompt tokens ({share:.1%}) came from the prefix cache"
        admitted = chance_hits(run, run.vocabulary or SMALL_VOCABULARY) + _repeated(run)
        if hits > admitted:
            yield invalid(
                "prefix_cache",
                f"{message}, at most {admitted:g} by chance: they were sent before; use fresh "
                "servers or another seed",
            )
        elif run.vocabulary is None:
            yield unproven(
                "prefix_cache",
                f"{message}; the model's vocabulary is unknown, so this may be chance",
            )


def _repeated(run: Observation) -> float:
    """Return the prompt tokens that warm-ups send again: they repeat the first prompt."""
    return run.extra_sent * (run.result.input_lens[0] if run.result.input_lens else 0)


def chance_hits(run: Observation, vocabulary: int) -> float:
    """Return the largest number of prompt tokens that come from the prefix cache by chance.

    ``vllm bench serve`` counts each random prompt up from a random token, so that two prompts that
    start at the same token are equal. Of *n* prompts after *m* others, over a vocabulary of *V*
    tokens, each is equal to another with a chance of at most 1 - (1 - 1/V)^(m + n - 1): binomial,
    exceeded in one run in a million (:data:`CHANCE`).
    """
    from scipy.special import bdtr
    from scipy.special import bdtrik

    prompts = run.num_requests
    length = max(run.result.input_lens, default=0) or (
        (run.result.total_input_tokens or 0) / max(1, prompts)
    )
    others = run.earlier_requests + prompts - 1
    equal: float = 1.0 - (1.0 - 1.0 / vocabulary) ** others
    if not (prompts and 0.0 < equal < 1.0):
        return prompts * equal * length
    hits = math.ceil(bdtrik(1.0 - CHANCE, prompts, equal))
    if hits > 0 and bdtr(hits - 1, prompts, equal) >= 1.0 - CHANCE:
        hits -= 1  # bdtrik is not exact
    return float(hits * length)


def check_router(run: Observation) -> Iterator[Finding]:
    """Note errors and retries of the router, which increase latencies."""
    counters = {n: c for n, c in run.router.items() if "error" in n or "retries" in n}
    if any(counters.values()):
        shown = ", ".join(f"{name} {count:g}" for name, count in sorted(counters.items()) if count)
        yield note("router", f"the router counted {shown}")


def check_stalls(run: Observation) -> Iterator[Finding]:
    """Note engines that made no token for a long time while they had requests."""
    for counts in run.served:
        if counts.stall_s is not None and counts.stall_s >= LONG_STALL_S:
            yield note(
                "stalls",
                f"{counts.name} had requests and made no token for {counts.stall_s:.0f} s",
            )
