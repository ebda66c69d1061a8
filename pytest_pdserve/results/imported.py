"""Records made of result files that somebody else's ``vllm bench serve`` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.building import RunFacts
from pytest_pdserve.results.building import build_record
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import LENGTH_FLAGS
from pytest_pdserve.values.workload import UNKNOWN
from pytest_pdserve.values.workload import RampUp
from pytest_pdserve.values.workload import Workload

SIMULATED_BACKEND = "simulated"
"""What stands as ``backend`` in a result that no server answered."""


def import_result(
    result: BenchResult,
    *,
    source: Path,
    topology: Topology,
    system: str,
    dataset: str,
    versions: Mapping[str, str],
    store: RunStore,
) -> tuple[Record, Path]:
    """Turn one result into a record of *store*; what only a live server shows is unproven.

    :param source: file that it was read from.
    :param dataset: ``--dataset-name`` that was used, which result files do not say; or ``unknown``.
    :returns: the record, and its file.
    :raises ClientError: if no request completed, it was simulated, or its load makes no sense.
    :raises StoreError: if the record cannot be written.
    """
    if result.raw.get("backend") == SIMULATED_BACKEND:
        raise ClientError(f"{source} was simulated: no server ran, so it is no run to import")
    workload = workload_of(result, dataset, source=str(source))
    at = _when(result.raw.get("date"), source)
    facts = RunFacts(
        system=system,
        repeat=store.next_repeat(topology.id, workload),
        start=None,
        started_at=at,
        finished_at=at,
        endpoint=UNKNOWN,
        timings_s={"bench": result.duration_s},
    )
    provenance = Provenance(
        versions=versions, host={"imported_from": str(source)}, fingerprint=UNKNOWN
    )
    seen = Observation(topology=topology, workload=workload, result=result)
    return build_record(seen, facts, provenance, store)


def workload_of(result: BenchResult, dataset: str, *, source: str) -> Workload:
    """Return the load that a result tells of; what it does not say is unknown.

    Of a data set that takes lengths they are known where the totals are whole multiples of the
    requests; options are never told.

    :raises ClientError: if no request completed, or what the result says makes no load.
    """
    if not result.completed:
        raise ClientError(f"{source}: no request completed, so there is nothing to import")
    lengths: dict[str, Any] = {}
    tokens = (result.total_input_tokens, result.total_output_tokens)
    if dataset in LENGTH_FLAGS:
        lengths = {
            name: total // result.completed if total and not total % result.completed else UNKNOWN
            for name, total in zip(("input_len", "output_len"), tokens, strict=True)
        }
    if dataset == UNKNOWN or UNKNOWN in lengths.values():
        lengths["counted_tokens"] = tokens
    try:
        return Workload(dataset=dataset, **lengths, **_load(result), options=UNKNOWN)
    except ConfigError as error:
        raise ClientError(f"{source}: {error}") from error


def _load(result: BenchResult) -> dict[str, Any]:
    """How requests arrived, as fields of a workload."""
    raw = result.raw
    prompts = raw.get("num_prompts")
    known = None if result.failed is None else result.completed + result.failed
    rate = raw.get("request_rate")
    rate = UNKNOWN if rate is None else rate
    load = {
        "num_prompts": prompts if prompts is not None else known or UNKNOWN,
        "request_rate": None if rate in ("inf", "Infinity") else rate,
        "max_concurrency": raw.get("max_concurrency", UNKNOWN),
        "burstiness": raw.get("burstiness", UNKNOWN),
    }
    if load["request_rate"] is None and raw.get("ramp_up_strategy") is None:
        load["burstiness"] = 1.0 if load["burstiness"] != UNKNOWN else UNKNOWN  # without effect
    if raw.get("ramp_up_strategy") is not None:
        load["ramp_up"] = RampUp(
            strategy=raw["ramp_up_strategy"],
            start_rps=raw.get("ramp_up_start_rps", UNKNOWN),
            end_rps=raw.get("ramp_up_end_rps", UNKNOWN),
        )
    return load


def _when(date: Any, path: Path) -> str:
    """UTC of a result: its ``date`` (local time of its machine, taken as UTC), or its file's."""
    try:
        at = datetime.strptime(str(date), "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
