"""Check of the metrics of a client that reports its own lateness: ``precise``.

Its result has the share of each metric that its lateness may have added
(``client_lateness_share``), the clock that it used (``client_clock``), and the number of tokens
that shared a chunk with others (``tokens_beyond_chunks``). Other clients report none of these.
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

MAX_LATENESS_SHARE = 0.01
"""Share of a metric that the client's lateness may add; above it, the metric is void."""
MAX_MERGED_SHARE = 0.01
"""Share of chunks read together with the previous one above which there is a note."""
KERNEL_CLOCK = "kernel"
"""Value of ``client_clock`` if arrival times of chunks are the kernel's timestamps."""
_AFTER_QUEUE = "_including_client_queue"


def check_client_lateness(run: Observation) -> Iterator[Finding]:
    """Check that the client's lateness affected no metric, if the client reports its lateness."""
    raw = run.result.raw
    if "client_lateness_share" not in raw and "client_clock" not in raw:
        return
    yield from _check_clock(raw)
    yield from _check_metrics(run, raw)
    yield from _check_chunks(run, raw)


def _check_clock(raw: Mapping[str, Any]) -> Iterator[Finding]:
    clock = raw.get("client_clock")
    if clock != KERNEL_CLOCK:
        yield unproven(
            "client_lateness",
            "not every chunk has the kernel's arrival time (client_clock = "
            f"{clock or 'unknown'}): a chunk that waited to be read counts as late",
        )


def _check_metrics(run: Observation, raw: Mapping[str, Any]) -> Iterator[Finding]:
    shares = raw.get("client_lateness_share")
    if not isinstance(shares, Mapping):
        yield unproven(
            "client_lateness", "the client does not report how much its lateness adds to metrics"
        )
        return
    affected = {
        name: share
        for name in METRICS
        if name in METRICS.measured and (share := _share_of(name, shares)) > MAX_LATENESS_SHARE
    }
    if affected:
        worst = max(affected, key=lambda name: affected[name])
        late = finite(raw.get("client_p99_read_late_ms"))
        read = "" if late is None else f"; p99 of its reads is {late:.1f} ms late"
        yield note(
            "client_lateness",
            f"the client's own lateness may change {worst} by {affected[worst]:.1%}, limit "
            f"{MAX_LATENESS_SHARE:.0%}{read}; {', '.join(affected)} "
            f"{'is' if len(affected) == 1 else 'are'} "
            "not judged: give the client more CPU, or a lower max_concurrency",
            voids=tuple(affected),
        )


def _share_of(name: str, shares: Mapping[str, Any]) -> float:
    """Return the share of a metric that lateness may have added; percentiles may have aliases."""
    names = (name.replace(_AFTER_QUEUE, ""), *METRICS[name].aliases)
    by_name = [finite(shares.get(alias)) for alias in names]
    return max((share for share in by_name if share is not None), default=0.0)


def _check_chunks(run: Observation, raw: Mapping[str, Any]) -> Iterator[Finding]:
    """Note chunks with several tokens, and chunks that were read together with the previous one."""
    beyond, merged = (
        int(finite(raw.get(key)) or 0) for key in ("tokens_beyond_chunks", "chunks_read_together")
    )
    tokens, chunks = run.result.total_output_tokens or 0, run.result.chunks or 0
    causes = []
    if 0 < beyond <= tokens * (1 - MIN_CHUNKS_PER_TOKEN):  # ``chunks`` reports larger numbers
        causes.append(
            f"{beyond} of {tokens} tokens came in a chunk with others, "
            "so they have no inter-token latency"
        )
    if merged > MAX_MERGED_SHARE * chunks:
        causes.append(
            f"{merged} of {chunks} chunks were read together with the one "
            "before, and share one time"
        )
    if causes:
        yield note("client_lateness", "; ".join(causes))
