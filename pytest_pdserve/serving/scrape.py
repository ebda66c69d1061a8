"""The counters that every instance shows at ``/metrics``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.record import ServedCounts

SETTLE_S = 5.0
"""Longest wait for counters to stand still after the last response."""
_SETTLE_STEP_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """One scrape of one instance; sums over its data-parallel engines."""

    sums: tuple[tuple[str, float], ...]
    """Sample name to sum over labels."""
    block_size: int | None
    """KV block, tokens."""

    def get(self, name: str) -> float | None:
        """The sample called *name*, or None if the instance does not show it."""
        return dict(self.sums).get(name)


WATCHED = {
    "requests": "vllm:request_success_total",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "generation_tokens": "vllm:generation_tokens_total",
    "prefix_cache_hits": "vllm:prefix_cache_hits_total",
    "preemptions": "vllm:num_preemptions_total",
    "kv_transfers": "vllm:nixl_xfer_time_seconds_count",
    "kv_transfer_s": "vllm:nixl_xfer_time_seconds_sum",
    "kv_bytes": "vllm:nixl_bytes_transferred_sum",
    "kv_failed": "vllm:nixl_num_failed_transfers_total",
    "kv_expired": "vllm:nixl_num_kv_expired_reqs_total",
}
"""Field of :class:`ServedCounts` to the counter's name (vLLM 0.15 to 0.32)."""
OPTIONAL = tuple(WATCHED)[3:]
"""Fields that are None where an instance does not show the counter."""
_NOT_OFFERED = (401, 403, 404, 405)
_START = "process_start_time_seconds"


def parse_counters(text: str) -> Counters:
    """Read Prometheus text.

    :raises ValueError: if it is none.
    """
    wanted = {*WATCHED.values(), _START}
    sums: dict[str, float] = {}
    block_size = None
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in wanted:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
            elif sample.name == "vllm:cache_config_info":
                said = sample.labels.get("block_size", "")
                block_size = int(said) if said.isdigit() else None
    return Counters(sums=tuple(sums.items()), block_size=block_size)


def scrape(client: httpx.Client, url: str) -> Counters:
    """Ask the instance at *url* for its counters.

    :raises PathError: if it does not answer, or not with counters.
    """
    try:
        response = client.get(f"{url}/metrics")
        response.raise_for_status()
        return parse_counters(response.text)
    except (httpx.HTTPError, ValueError) as error:
        raise PathError(f"{url}/metrics cannot be read: {error}") from error


def reset_prefix_cache(client: httpx.Client, url: str) -> bool | None:
    """Ask the instance at *url* to empty its prefix cache.

    :returns: whether it did; None if it does not offer that.
    """
    try:
        response = client.post(f"{url}/reset_prefix_cache")
        if response.status_code in _NOT_OFFERED:
            return None
        response.raise_for_status()
        said = response.json() if response.content else {}  # before vLLM 0.14 without a body
        return bool(said.get("success", True)) if isinstance(said, dict) else False
    except (httpx.HTTPError, ValueError):
        return False


def settled(
    look: Callable[[], dict[str, Counters]],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Counters]:
    """Scrape until two looks agree: engines publish the last step's counts a little later."""
    deadline = clock() + SETTLE_S
    seen = look()
    while clock() < deadline:
        sleep(_SETTLE_STEP_S)
        again = look()
        if again == seen:
            return seen
        seen = again
    return seen


def difference(name: str, role: str, before: Counters, after: Counters) -> ServedCounts:
    """What the instance *name* counted between two scrapes."""

    def delta_of(sample: str) -> float | None:
        first, last = before.get(sample), after.get(sample)
        return None if first is None or last is None else last - first

    def delta(field: str) -> float | None:
        return delta_of(WATCHED[field])

    return ServedCounts(
        name=name,
        role=role,
        requests=delta("requests") or 0.0,
        prompt_tokens=delta("prompt_tokens") or 0.0,
        generation_tokens=delta("generation_tokens") or 0.0,
        **{field: delta(field) for field in OPTIONAL},
        block_size=after.block_size,
        restarted=None if delta_of(_START) is None else delta_of(_START) != 0.0,
    )
