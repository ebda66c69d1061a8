"""Counters of vLLM that are read around a run, with their names in all versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

LOG_STATS = "perhaps started with --disable-log-stats"
NO_CONNECTOR = "the KV connector is off or is not NixlConnector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """A counter of an instance."""

    name: str
    """Name of the field of :class:`~.record.ServedCounts`."""
    samples: tuple[str, ...]
    """Names at ``/metrics``; the first that exists is used."""
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Allowed values by label; other samples are ignored."""
    since: tuple[int, int] = (0, 0)
    """First release of vLLM that has it."""
    nixl: bool = False
    """True if only instances with a NIXL connector have it."""


def _one_of(**labels: tuple[str, ...]) -> Mapping[str, frozenset[str]]:
    return {name: frozenset(values) for name, values in labels.items()}


def _nixl(name: str, sample: str, *, since: tuple[int, int] = (0, 12)) -> Counter:
    return Counter(name=name, samples=(f"vllm:nixl_{sample}",), since=since, nixl=True)


_BY_SOURCE = ("vllm:prompt_tokens_by_source_total",)

COUNTERS = (
    Counter(name="requests", samples=("vllm:request_success_total",)),
    Counter(
        name="ended_abnormally",
        samples=("vllm:request_success_total",),
        labels=_one_of(finished_reason=("abort", "error", "repetition")),
    ),
    Counter(name="prompt_tokens", samples=("vllm:prompt_tokens_total",)),
    Counter(name="generation_tokens", samples=("vllm:generation_tokens_total",)),
    Counter(
        name="prefix_cache_hits",
        samples=("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    ),
    Counter(name="preemptions", samples=("vllm:num_preemptions_total",)),
    Counter(
        name="prompt_tokens_computed",
        samples=_BY_SOURCE,
        labels=_one_of(source=("local_compute",)),
        since=(0, 16),
    ),
    Counter(
        name="prompt_tokens_received",
        samples=_BY_SOURCE,
        labels=_one_of(source=("external_kv_transfer",)),
        since=(0, 16),
    ),
    _nixl("kv_transfers", "xfer_time_seconds_count"),
    _nixl("kv_transfer_s", "xfer_time_seconds_sum"),
    _nixl("kv_post_s", "post_time_seconds_sum"),
    _nixl("kv_bytes", "bytes_transferred_sum"),
    _nixl("kv_descriptors", "num_descriptors_sum"),
    _nixl("kv_failed", "num_failed_transfers_total"),
    _nixl("kv_unnotified", "num_failed_notifications_total"),
    _nixl("kv_expired", "num_kv_expired_reqs_total", since=(0, 15)),
    _nixl("kv_read_late", "num_notifications_after_expiry_total", since=(0, 32)),
)
"""All counters; names of vLLM 0.10 to 0.33."""
BY_NAME = {counter.name: counter for counter in COUNTERS}


def release_of(version: str | None) -> tuple[int, int] | None:
    """Return major and minor number of a version of vLLM; None if it has none.

    A development build (``0.1.dev1+g…``) has none.
    """
    match = re.match(r"(\d+)\.(\d+)\.\d", version or "")
    return (int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Reason why an instance lacks a counter."""

    why: str
    """Likely cause."""
    proves_no_transfer: bool
    """True if no KV cache is moved for certain: its vLLM would have the counter otherwise."""


def version_has_counter(name: str, version: str | None) -> bool:
    """Return whether vLLM's *version* is known to support a counter."""
    release = release_of(version)
    return release is not None and release >= BY_NAME[name].since


def diagnose_missing(name: str, version: str | None, *, counts_requests: bool) -> Missing:
    """Return the reason why an instance lacks the counter *name*.

    :param version: version of its vLLM; None if not known.
    :param counts_requests: whether it has the counter of requests: if not, its statistics are off,
        which is not evidence about its connector.
    """
    counter, release = BY_NAME[name], release_of(version)
    first = ".".join(map(str, counter.since))
    if not counts_requests:
        return Missing(why=LOG_STATS, proves_no_transfer=False)
    if release is not None and release < counter.since:
        why = f"vLLM {version} does not count it, {first} and later do"
        return Missing(why=why, proves_no_transfer=False)
    cause = NO_CONNECTOR if counter.nixl else LOG_STATS
    if release is None and counter.since > (0, 0):
        why = f"the vLLM version is unknown (counted since {first}), or {cause}"
        return Missing(why=why, proves_no_transfer=False)
    return Missing(why=cause, proves_no_transfer=counter.nixl)


def counted_per_rank(count: float, expected: float, ranks: int) -> bool:
    """Return whether *count* is a multiple of *expected*, between 1 and *ranks* times.

    vLLM adds up the NIXL statistics of all tensor-parallel workers
    (``KVOutputAggregator`` in ``kv_transfer/kv_connector/utils.py``, 0.32), and each worker reads
    from one or more remote ranks; a cache that ranks replicate (MLA, few KV heads) is moved for
    each.
    """
    return expected > 0 and count % expected == 0 and 1 <= count / expected <= ranks
