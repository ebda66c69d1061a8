"""What of a run the servers' counters tell: who served, what was moved, what came from a cache."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.findings import invalid
from pytest_pdserve.judge.findings import note
from pytest_pdserve.judge.findings import unproven
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.model import SMALL_VOCABULARY
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.roles import kv_pullers

CHANCE = 1e-6
"""An idle instance is no bad luck if even dealing would leave it idle less often than this."""
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
    for role in ROLES:
        yield from _served_role(seen.of(role), seen.asked)


def _served_role(counts: Sequence[ServedCounts], prompts: int) -> Iterator[Finding]:
    idle = [c.name for c in counts if c.requests <= 0]
    if not idle:
        return
    names = ", ".join(idle)
    if len(idle) == len(counts):
        yield invalid("served", f"no {counts[0].role} instance served any request ({names})")
        return
    chance = len(counts) * (1 - 1 / len(counts)) ** prompts
    message = f"{names} served none of {prompts} requests"
    if chance < CHANCE:
        yield invalid("served", f"{message}; even dealing does that once in {1 / chance:.1g} runs")
    else:
        yield note(
            "served",
            f"{message}; even dealing does that in {chance:.2g} of runs",
        )


def check_transfers(seen: Observation) -> Iterator[Finding]:
    """One KV transfer per request and rank, none failed, none expired."""
    if not seen.topology.disaggregated or not seen.served:
        return
    transfers = seen.total("kv_transfers", *kv_pullers())
    if transfers is None:
        yield invalid("transfers", "decode instances show no NIXL counters: no KV cache was moved")
        return
    asked = seen.asked
    if not counted_per_rank(transfers, asked, seen.ranks):
        each = "one each" if seen.ranks == 1 else f"1 to {seen.ranks} each, one per rank"
        yield invalid(
            "transfers", f"{transfers:g} KV transfers for {asked} requests, expected {each}"
        )
    for what in ("failed", "expired"):
        count = seen.total(f"kv_{what}")
        if count is None:
            yield unproven("transfers", f"this vLLM does not count {what} KV transfers")
        elif count:
            yield invalid("transfers", f"{count:g} KV transfers {what}")


def check_bytes(seen: Observation) -> Iterator[Finding]:
    """Bytes moved are what model shape, block size and prompt lengths predict."""
    if not seen.topology.disaggregated or not seen.served:
        return
    moved = seen.total("kv_bytes", *kv_pullers())
    if moved is None:
        return
    blocks = {c.block_size for c in seen.of(*kv_pullers())}
    block_size = blocks.pop() if len(blocks) == 1 else None
    lens = seen.result.input_lens
    if seen.kv_shape is None or block_size is None or not lens:
        yield unproven(
            "bytes",
            f"{moved:.0f} bytes moved; model shape, block size or prompt lengths are unknown, "
            "so none predicted",
        )
        return
    predicted = sum(seen.kv_shape.transfer_bytes(n, block_size) for n in lens)
    if not counted_per_rank(moved, predicted, seen.ranks):
        yield invalid(
            "bytes",
            f"{moved:.0f} bytes of KV cache moved, predicted {predicted} "
            f"({seen.kv_shape.bytes_per_token} bytes a token, blocks of {block_size})",
        )


def counted_per_rank(count: float, expected: float, ranks: int) -> bool:
    """Tell whether *count* is *expected*, or a whole multiple of it up to *ranks* times.

    vLLM adds up the NIXL statistics of all tensor-parallel workers
    (``KVOutputAggregator`` in ``kv_transfer/kv_connector/utils.py``, 0.32), and each worker reads
    from one or more remote ranks; a cache that ranks replicate (MLA, few KV heads) moves for each.
    """
    return expected > 0 and count % expected == 0 and 1 <= count / expected <= ranks


def check_prefix_cache(seen: Observation) -> Iterator[Finding]:
    """Random prompts hit the prefix cache only by chance; more means that they were sent before."""
    if seen.workload.dataset != "random" or not seen.served:
        return
    if "random-prefix-len" in seen.workload.options:
        return
    found = [c.prefix_cache_hits for c in seen.served if c.role not in kv_pullers()]
    counted = [count for count in found if count is not None]
    hits = sum(counted) if counted else None
    if hits is None:
        yield unproven("prefix_cache", "this vLLM does not count prefix-cache hits")
    elif hits:
        share = hits / max(1, seen.result.total_input_tokens)
        said = f"{hits:g} prompt tokens ({share:.1%}) came from the prefix cache"
        admitted = chance_hits(seen, seen.vocabulary or SMALL_VOCABULARY)
        if hits > admitted:
            yield invalid(
                "prefix_cache",
                f"{said}, at most {admitted:g} by chance: they were sent before; use fresh servers "
                "or another seed",
            )
        elif seen.vocabulary is None:
            yield unproven(
                "prefix_cache",
                f"{said}; the model's vocabulary is unknown, so nobody knows whether by chance",
            )


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
        seen.result.total_input_tokens / max(1, prompts)
    )
    others = seen.earlier + prompts - 1
    equal = 1.0 - (1.0 - 1.0 / vocabulary) ** others
    return float(binom.isf(CHANCE, prompts, equal)) * length


def check_stalls(seen: Observation) -> Iterator[Finding]:
    """No engine stood still for long while it had requests."""
    for counts in seen.served:
        if counts.stall_s is not None and counts.stall_s >= LONG_STALL_S:
            yield note(
                "stalls",
                f"{counts.name} had requests and made no token for {counts.stall_s:.0f} s",
            )
