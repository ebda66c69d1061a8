"""What may be judged of a client that reports its own lateness: ``precise``.

Its result says by which share its lateness may have moved each metric
(``client_lateness_share``), which clock it used (``client_clock``), and how many tokens came
several in a chunk (``tokens_beyond_chunks``). Other clients say nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from pytest_pdserve.judge.client_checks import MIN_CHUNKS_PER_TOKEN
from pytest_pdserve.judge.findings import note
from pytest_pdserve.judge.findings import unproven
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.numbers import finite
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding

MAX_MOVED = 0.01
"""Share of a metric by which the client's lateness may move it; above, the metric is void."""
MAX_TOGETHER = 0.01
"""Share of chunks that may be read together with the one before, before it is worth a note."""
KERNEL_CLOCK = "kernel"
"""What ``client_clock`` is where the kernel told when chunks arrived."""
_AFTER_QUEUE = "_including_client_queue"


def check_client_lateness(seen: Observation) -> Iterator[Finding]:
    """No metric is moved by the client's own lateness, where the client says how late it was."""
    raw = seen.result.raw
    if "client_lateness_share" not in raw and "client_clock" not in raw:
        return
    yield from _clock(raw)
    yield from _moved(seen, raw)
    yield from _together(seen, raw)


def _clock(raw: Mapping[str, Any]) -> Iterator[Finding]:
    clock = raw.get("client_clock")
    if clock != KERNEL_CLOCK:
        yield unproven(
            "client_lateness",
            "the kernel did not say of every chunk when it arrived (client_clock = "
            f"{clock or 'unknown'}): one that waited to be read counts as late",
        )


def _moved(seen: Observation, raw: Mapping[str, Any]) -> Iterator[Finding]:
    shares = raw.get("client_lateness_share")
    if not isinstance(shares, Mapping):
        yield unproven(
            "client_lateness", "the client does not say by how much its lateness moves metrics"
        )
        return
    moved = {
        name: share
        for name in METRICS
        if name in METRICS.measured and (share := _share_of(name, shares)) > MAX_MOVED
    }
    if moved:
        worst = max(moved, key=lambda name: moved[name])
        late = finite(raw.get("client_p99_read_late_ms"))
        read = "" if late is None else f"; p99 of its reads is {late:.1f} ms late"
        yield note(
            "client_lateness",
            f"the client's own lateness may move {worst} by {moved[worst]:.1%}, limit "
            f"{MAX_MOVED:.0%}{read}; {', '.join(moved)} {'is' if len(moved) == 1 else 'are'} "
            "not judged: give the client more CPU, or a lower max_concurrency",
            voids=tuple(moved),
        )


def _share_of(name: str, shares: Mapping[str, Any]) -> float:
    """By how much a metric is moved; a percentile may go by a further name."""
    row = METRICS[name]
    found = [finite(shares.get(each)) for each in (name.replace(_AFTER_QUEUE, ""), *row.aliases)]
    return max((share for share in found if share is not None), default=0.0)


def _together(seen: Observation, raw: Mapping[str, Any]) -> Iterator[Finding]:
    """Several tokens in one chunk, and chunks of which the client saw only the last arrive."""
    beyond, merged = (
        int(finite(raw.get(key)) or 0) for key in ("tokens_beyond_chunks", "chunks_read_together")
    )
    tokens, chunks = seen.result.total_output_tokens or 0, seen.result.chunks or 0
    said = []
    if 0 < beyond <= tokens * (1 - MIN_CHUNKS_PER_TOKEN):  # more is the matter of ``chunks``
        said.append(
            f"{beyond} of {tokens} tokens came in a chunk with others, "
            "so they have no inter-token latency"
        )
    if merged > MAX_TOGETHER * chunks:
        said.append(
            f"{merged} of {chunks} chunks were read together with the one "
            "before, and share one time"
        )
    if said:
        yield note("client_lateness", "; ".join(said))
