"""Sanity: whether a run is valid. Only a valid run is judged."""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.lateness import lateness_s
from pytest_pdserve.judge.lateness import offered_rate
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.extensions import CHECKS_GROUP
from pytest_pdserve.values.extensions import load_extensions
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.model import SMALL_VOCABULARY
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.roles import kv_pullers

Check = Callable[[Observation], Iterable[Finding]]
"""One check: findings of one run, none where there is nothing to say."""

LEAST_CHUNKS_PER_TOKEN = 0.98
"""Chunks per token below which a gap between chunks is no inter-token latency."""
CHANCE = 1e-6
"""An idle instance is no bad luck if even dealing would leave it idle less often than this."""
BUSIEST_CLIENT = 0.9
"""Share of a core above which the run is unproven if lateness is not known."""
MAX_LATE_SHARE = 0.1
"""Share of the mean TTFT by which requests may be sent late, on average."""
MIN_LATE_S = 0.05
"""Mean lateness below this never makes a run invalid, even with a short TTFT."""
MIN_OFFERED_SHARE = 0.95
"""Share of the asked rate that must be offered."""


def check_sanity(seen: Observation) -> tuple[Finding, ...]:
    """Apply every check to one run, in the order in which they matter."""
    return tuple(finding for check in checks() for finding in check(seen))


def invalid(check: str, message: str) -> Finding:
    """A finding that makes the run worthless."""
    return Finding(check=check, severity="invalid", message=message)


def unproven(check: str, message: str) -> Finding:
    """A finding that says what could not be looked at."""
    return Finding(check=check, severity="unproven", message=message)


def check_completed(seen: Observation) -> Iterator[Finding]:
    """Every request completed, and none failed: with all failed, vLLM reports a TTFT of 0 ms."""
    asked, result = seen.workload.num_prompts, seen.result
    if isinstance(asked, str):
        yield unproven("completed", "the number of requests asked is unknown")
        asked = result.completed + (result.failed or 0)
    if result.failed is None:
        yield unproven("completed", "the client's result does not say how many requests failed")
    if result.completed != asked or result.failed:
        first = next((e.strip().splitlines()[-1] for e in result.errors if e.strip()), None)
        yield invalid(
            "completed",
            f"{result.completed} of {asked} requests completed, {result.failed or 0} failed"
            + (f"; first error: {first[:200]}" if first else ""),
        )


def check_tokens(seen: Observation) -> Iterator[Finding]:
    """Output is as long as asked, and input too where the client makes the prompts."""
    workload, result = seen.workload, seen.result
    if workload.dataset != "random":
        return
    counted = {
        "output": (result.total_output_tokens, workload.output_len),
        "input": (result.total_input_tokens, workload.input_len),
    }
    for what, (got, length) in counted.items():
        if isinstance(length, int) and isinstance(workload.num_prompts, int):
            if got != (asked := workload.num_prompts * length):
                yield invalid("tokens", f"{got} {what} tokens, asked {asked}")
        else:
            yield unproven("tokens", f"{got} {what} tokens; how many were asked is unknown")


def check_chunks(seen: Observation) -> Iterator[Finding]:
    """Gaps are gaps between tokens: with several tokens per chunk, ITL is something else."""
    chunks, tokens = seen.result.chunks, seen.result.total_output_tokens
    if chunks is None:
        yield Finding(
            check="chunks",
            severity="unproven",
            message="no entry per request (--save-detailed), so chunks cannot be held against "
            "tokens; ITL is not judged",
            voids=METRICS.voided_by("chunks"),
        )
    elif tokens and chunks / tokens < LEAST_CHUNKS_PER_TOKEN:
        yield Finding(
            check="chunks",
            severity="note",
            message=f"{chunks} chunks for {tokens} tokens ({chunks / tokens:.3f} per token, at "
            f"least {LEAST_CHUNKS_PER_TOKEN}); ITL is not judged, TPOT is",
            voids=METRICS.voided_by("chunks"),
        )


def check_zeros(seen: Observation) -> Iterator[Finding]:
    """No latency or rate of a completed run is zero."""
    for name, metric in METRICS.items():
        value = None if metric.zero else metric.value(seen)
        if value is not None and value <= 0:
            yield invalid("zeros", f"{name} = {value:g}, which no server that answers can show")


def check_served(seen: Observation) -> Iterator[Finding]:
    """Every instance of every role served, and none restarted."""
    if not seen.served:
        yield Finding(
            check="served",
            severity="unproven",
            message=f"the counters of {seen.topology.id}'s instances cannot be read here, so "
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
        yield from _served_role(seen.of(role), asked_of(seen))


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
        yield Finding(
            check="served",
            severity="note",
            message=f"{message}; even dealing does that in {chance:.2g} of runs",
        )


def asked_of(seen: Observation) -> int:
    """Return the requests asked, or those that the client saw the end of where nothing says it."""
    asked, result = seen.workload.num_prompts, seen.result
    return asked if isinstance(asked, int) else result.completed + (result.failed or 0)


def check_transfers(seen: Observation) -> Iterator[Finding]:
    """One KV transfer per request and rank, none failed, none expired."""
    if not seen.topology.disaggregated or not seen.served:
        return
    transfers = seen.total("kv_transfers", *kv_pullers())
    if transfers is None:
        yield invalid("transfers", "decode instances show no NIXL counters: no KV cache was moved")
        return
    asked = asked_of(seen)
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

    prompts = asked_of(seen)
    length = max(seen.result.input_lens, default=0) or (
        seen.result.total_input_tokens / max(1, prompts)
    )
    others = seen.earlier + prompts - 1
    equal = 1.0 - (1.0 - 1.0 / vocabulary) ** others
    return float(binom.isf(CHANCE, prompts, equal)) * length


def check_client(seen: Observation) -> Iterator[Finding]:
    """The client sent its requests in time: what is late in sending is late in reading too.

    A busy client is no fault by itself; where it cannot be seen how late it was, the run is
    unproven.
    """
    late = lateness_s(seen.result, seen.workload)
    cpu = "" if seen.client_cpu is None else f"; it used {seen.client_cpu:.0%} of a core"
    if not late:
        if seen.client_cpu is None or seen.client_cpu > BUSIEST_CLIENT:
            yield unproven("client", f"how late the client sent its requests is not known{cpu}")
        return
    mean_s, ttfts = sum(late) / len(late), seen.result.ttft_s
    share = mean_s * len(ttfts) / sum(ttfts) if sum(ttfts) > 0 else 0.0
    if mean_s > MIN_LATE_S and share > MAX_LATE_SHARE:
        yield invalid(
            "client",
            f"the client sent its requests {mean_s * 1000:.0f} ms late on average (the latest "
            f"{max(late) * 1000:.0f} ms), {share:.0%} of the mean TTFT, limit "
            f"{MAX_LATE_SHARE:.0%}{cpu}; lower max_concurrency",
        )


def check_offered(seen: Observation) -> Iterator[Finding]:
    """The rate that was offered is the rate that was asked; else latencies are of another load."""
    asked, offered = seen.workload.request_rate, offered_rate(seen.result)
    if not isinstance(asked, int | float):
        return
    if offered is None:
        yield unproven("offered", f"{asked:g} requests/s were asked; how many were sent is unknown")
        return
    # The client scales its gaps so that n requests take n / rate seconds (vLLM 0.32,
    # ``get_request``); from the first to the last these are n - 1 gaps.
    count = len(seen.result.start_s)
    if offered < asked * MIN_OFFERED_SHARE * (count - 1) / count:
        yield Finding(
            check="offered",
            severity="note",
            message=f"{offered:.3g} requests/s were sent, {asked:g} asked (at least "
            f"{MIN_OFFERED_SHARE:.0%}); latencies are not judged: max_concurrency or the client "
            "held requests back",
            voids=METRICS.voided_by("offered"),
        )


CHECKS: tuple[Check, ...] = (
    check_completed,
    check_tokens,
    check_zeros,
    check_chunks,
    check_served,
    check_transfers,
    check_bytes,
    check_prefix_cache,
    check_client,
    check_offered,
)
"""This package's checks, the most telling first."""


@functools.cache
def checks() -> tuple[Check, ...]:
    """Return every check: this package's, then those of entry points.

    :raises ConfigError: if an entry point cannot be loaded, or is not callable.
    """
    added = load_extensions(CHECKS_GROUP)
    for name, check in added.items():
        if not callable(check):
            raise ConfigError(
                f"entry point {name!r} of group {CHECKS_GROUP!r} is a {type(check).__name__}, "
                "expected a function that takes an Observation and yields Findings"
            )
    return (*CHECKS, *added.values())
