"""Measure the bytes of a KV cache by moving one, for models whose shape is not known."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

import httpx

from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.scrape import Counters
from pytest_pdserve.serving.scrape import scrape
from pytest_pdserve.serving.scrape import settled
from pytest_pdserve.serving.warm_load import distinct_prompt
from pytest_pdserve.serving.warmup import COUNTER_S
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.serving.warmup import pairs_of

_STEP_S = 0.1


def probe_bytes(
    length: int,
    sizes: dict[int, float],
    *,
    servers: Sequence[Server],
    completions: Completions,
    client: httpx.Client,
    vocabulary: int,
) -> None:
    """Move the KV cache of one prompt of *length* tokens, and add its bytes to *sizes*.

    Does nothing if *sizes* has this length, if there is no prefill-decode pair, or if instances do
    not count transfers.

    :param sizes: bytes by prompt length.
    :raises PathError: if a request fails.
    """
    pairs, _ = pairs_of(servers)
    if length in sizes or not pairs:
        return
    prefill, decode = pairs[0]
    url = str(decode[0].url)
    before = _settled(client, url)
    if before.get("kv_bytes") is None:
        return
    name = f"kv probe {length} {secrets.token_hex(4)}"  # in no prefix cache
    completions.transfer(prefill, decode, distinct_prompt(name, length, vocabulary), tokens=1)
    if moved := _bytes_since(client, url, before):
        sizes[length] = moved


def _bytes_since(client: httpx.Client, url: str, before: Counters) -> float:
    """Return the bytes moved since *before*, once all ranks have counted their transfers."""
    deadline = time.monotonic() + COUNTER_S
    while time.monotonic() < deadline:
        after = _settled(client, url)
        if (after.get("kv_transfers") or 0.0) > (before.get("kv_transfers") or 0.0):
            return (after.get("kv_bytes") or 0.0) - (before.get("kv_bytes") or 0.0)
        time.sleep(_STEP_S)
    return 0.0


def _settled(client: httpx.Client, url: str) -> Counters:
    return settled(lambda: {url: scrape(client, url)})[url]
