"""Records made of result files that somebody else's ``vllm bench serve`` wrote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_pdserve.judge.sanity import Observation
from pytest_pdserve.judge.sanity import check_sanity
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import result_metrics
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

UNKNOWN = "unknown"
SIMULATED_BACKEND = "simulated"
"""What stands as ``backend`` in a result that no server answered."""


def import_result(
    result: BenchResult,
    *,
    source: Path,
    topology: Topology,
    system: str,
    dataset: str,
    versions: Sequence[tuple[str, str]],
    store: RunStore,
) -> tuple[Record, Path]:
    """Turn one result into a record of *store*; what only a live server shows is unproven.

    :param source: file that it was read from.
    :param dataset: ``--dataset-name`` that was used; result files do not say.
    :returns: the record, and its file.
    :raises ClientError: if no request completed, or it was simulated.
    :raises StoreError: if the record cannot be written.
    """
    if dict(result.raw).get("backend") == SIMULATED_BACKEND:
        raise ClientError(f"{source} was simulated: no server ran, so it is no run to import")
    workload = workload_of(result, dataset, source=str(source))
    repeat = store.next_repeat(topology.id, workload)
    stem = store.stem(topology.id, workload, repeat)
    seen = Observation(
        topology=topology,
        workload=workload,
        result=result,
        served=(),
        instances=0,
        kv_shape=None,
        client_cpu=None,
    )
    at = _when(dict(result.raw).get("date"), source)
    record = Record(
        run_id=store.run_id,
        system=system,
        simulated=False,
        fingerprint=UNKNOWN,
        topology=topology.id,
        workload=workload,
        repeat=repeat,
        started_at=at,
        finished_at=at,
        versions=tuple(versions),
        host=(("imported_from", str(source)),),
        nodes=(),
        processes=(),
        endpoint=UNKNOWN,
        client=result.raw,
        metrics=result_metrics(result, ()),
        served=(),
        timings_s=(("bench", round(result.duration_s, 3)),),
        findings=check_sanity(seen),
        requests=f"{stem.name}.requests.parquet" if result.detailed else None,
    )
    return record, store.write(record, result)


def workload_of(result: BenchResult, dataset: str, *, source: str) -> Workload:
    """The workload that a result tells of: its lengths are means over completed requests.

    :raises ClientError: if no request completed, so that there are no lengths.
    """
    if not result.completed or not result.total_input_tokens or not result.total_output_tokens:
        raise ClientError(f"{source}: no request completed, so there is nothing to import")
    raw = dict(result.raw)
    return Workload(
        input_len=max(1, round(result.total_input_tokens / result.completed)),
        output_len=max(1, round(result.total_output_tokens / result.completed)),
        num_prompts=_whole(raw.get("num_prompts")) or result.completed + (result.failed or 0),
        request_rate=_rate(raw.get("request_rate")),
        max_concurrency=_whole(raw.get("max_concurrency")),
        dataset=dataset,
    )


def _whole(value: Any) -> int | None:
    usable = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if usable else None


def _rate(value: Any) -> float:
    try:
        rate = float(value)
    except (TypeError, ValueError):
        return math.inf
    return rate if rate > 0 else math.inf


def _when(date: Any, path: Path) -> str:
    """UTC of a result: its ``date`` (local time of its machine, taken as UTC), or its file's."""
    try:
        at = datetime.strptime(str(date), "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
