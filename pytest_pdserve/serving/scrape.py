"""Read the counters of instances and router from ``/metrics``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import AnswerLimits
from pytest_pdserve.serving.answers import printable
from pytest_pdserve.serving.answers import read_answer
from pytest_pdserve.serving.metrics_text import check_text
from pytest_pdserve.serving.metrics_text import read_samples
from pytest_pdserve.values.counters import COUNTERS
from pytest_pdserve.values.counters import Counter
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.record import ServedCounts

SETTLE_S = 5.0
"""Longest wait, seconds, until counters no longer change after the last response."""
_SETTLE_STEP_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """One scrape of one instance, summed over its data-parallel engines."""

    counts: Mapping[str, float]
    """Count by name of :data:`~.counters.COUNTERS`, without those that the instance lacks."""
    started: float | None = None
    """``process_start_time_seconds``."""
    block_size: int | None = None
    """Tokens of a KV block."""

    def get(self, name: str) -> float | None:
        """Return the count called *name*, or None if the instance lacks it."""
        return self.counts.get(name)


COUNTERS_LIMITS = AnswerLimits(time_s=30.0, size_mib=16)
"""Limits of one scrape: a vLLM engine has about 100 KB, and an instance may have many engines."""
_ROUTER = "vllm_router_"
_ROUTER_LIMITS = AnswerLimits(time_s=5.0, size_mib=16)
_RESET_LIMITS = AnswerLimits(time_s=30.0)
_NOT_OFFERED = (401, 403, 404, 405)
_START = "process_start_time_seconds"
_CACHE = "vllm:cache_config_info"
_SAMPLES = frozenset(sample for counter in COUNTERS for sample in counter.samples)


def parse_counters(text: str) -> Counters:
    """Parse the Prometheus text of an instance.

    :raises ValueError: if it is not Prometheus text.
    """
    found: dict[str, list[Sample]] = {}
    started = block_size = None
    samples = list(read_samples(text, _SAMPLES | {_START, _CACHE}))
    if not samples:
        check_text(text)
    for sample in samples:
        if sample.name == _START:
            started = (started or 0.0) + sample.value
        elif sample.name == _CACHE:
            size = sample.labels.get("block_size", "")
            block_size = int(size) if size.isdigit() else None
        elif math.isfinite(sample.value):
            found.setdefault(sample.name, []).append(sample)
    counts = {each.name: count for each in COUNTERS if (count := _count(each, found)) is not None}
    return Counters(counts=counts, started=started, block_size=block_size)


def _count(counter: Counter, found: Mapping[str, Sequence[Sample]]) -> float | None:
    """Return the sum of a counter's samples; None if the instance lacks it."""
    name = next((name for name in counter.samples if name in found), None)
    if name is None:
        return None
    return sum(
        sample.value
        for sample in found[name]
        if all(sample.labels.get(label) in values for label, values in counter.labels.items())
    )


def scrape(client: httpx.Client, url: str) -> Counters:
    """Return the counters of the instance at *url*.

    :raises PathError: if it does not answer with counters.
    """
    target = f"{url}/metrics"
    try:
        answer = read_answer(client, "GET", target, limits=COUNTERS_LIMITS).checked()
        return parse_counters(answer.text)
    except AnswerError as error:
        raise PathError(f"{target} cannot be read: it {error.why}") from error
    except ValueError as error:
        raise PathError(f"{target} cannot be read: {printable(str(error))}") from error


def counted_between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the counters that changed between two scrapes, and by how much."""
    differences = {name: count - before.get(name, 0.0) for name, count in after.items()}
    return {name: count for name, count in differences.items() if count}


def scrape_router(client: httpx.Client, url: str) -> dict[str, float]:
    """Return the router's counters by name, summed over workers and routes.

    A counter exists only once it is above 0. Empty if the router does not answer.
    """
    found: dict[str, float] = {}
    try:
        answer = read_answer(client, "GET", f"{url}/metrics", limits=_ROUTER_LIMITS).checked()
        for metric in text_string_to_metric_families(answer.text):
            for sample in metric.samples if metric.type == "counter" else ():
                if sample.name.startswith(_ROUTER) and math.isfinite(sample.value):
                    found[sample.name] = found.get(sample.name, 0.0) + sample.value
    except (AnswerError, ValueError):
        return {}
    return found


def reset_prefix_cache(client: httpx.Client, url: str) -> bool | None:
    """Empty the prefix cache of the instance at *url*.

    :returns: whether it did; None if it does not offer that.
    """
    try:
        answer = read_answer(client, "POST", f"{url}/reset_prefix_cache", limits=_RESET_LIMITS)
        if answer.status in _NOT_OFFERED:
            return None
        result = answer.checked().json() if answer.body else {}  # before vLLM 0.14 without a body
        return bool(result.get("success", True)) if isinstance(result, dict) else False
    except AnswerError:
        return False


def settled(
    scrape_all: Callable[[], dict[str, Counters]],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Counters]:
    """Scrape until two scrapes are equal: engines publish the counts of a step a little later."""
    deadline = clock() + SETTLE_S
    seen = scrape_all()
    while clock() < deadline:
        sleep(_SETTLE_STEP_S)
        again = scrape_all()
        if again == seen:
            return seen
        seen = again
    return seen


def difference(name: str, role: str, before: Counters, after: Counters) -> ServedCounts:
    """Return the counts of the instance *name* between two scrapes."""
    counts = {
        counter.name: after.counts[counter.name] - before.counts[counter.name]
        for counter in COUNTERS
        if counter.name in before.counts and counter.name in after.counts
    }
    known = before.started is not None and after.started is not None
    return ServedCounts(
        name=name,
        role=role,
        **counts,
        block_size=after.block_size,
        restarted=before.started != after.started if known else None,
    )
