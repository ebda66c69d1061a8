"""Results of ``vllm bench serve``, of every version from 0.6 on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_pdserve.results.documents import Row
from pytest_pdserve.results.foreign import Fields
from pytest_pdserve.results.foreign import ForeignRun
from pytest_pdserve.results.foreign import bench_result
from pytest_pdserve.results.foreign import moment
from pytest_pdserve.results.foreign import request_rate
from pytest_pdserve.results.foreign import take_latencies
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.result import SIMULATED_BACKEND
from pytest_pdserve.values.workload import UNKNOWN
from pytest_pdserve.values.workload import RampUp

TEXT = "results of vllm bench serve"
LATENCY = "{statistic}_(?P<quantity>ttft|tpot|itl|e2el)_ms"
LENGTH_NAMES = {
    "input_len": ("random_input_len", "sonnet_input_len", "input_len", "isl"),
    "output_len": ("random_output_len", "sonnet_output_len", "output_len", "osl"),
}
"""Usual names of the lengths in ``--metadata`` or in a sweep, the most specific first."""
_THROUGHPUTS = ("request_throughput", "output_throughput", "total_token_throughput")
_NOT_NEEDED = re.compile(
    "label|tokenizer_id|endpoint_type|best_of|use_beam_search|model|latencies|rtfx|"
    "request_goodput:?|max_output_tokens_per_s|max_concurrent_requests|rps_change_events|"
    "input_sequence_throughput|total_input_sequences|(spec_decode|diffusion)_.*"
)
_WITHOUT_TOKENS = re.compile("embed|pool|rerank|score|classif", re.IGNORECASE)
_DIGITS = re.compile("[0-9]{1,9}")


def reads(row: Mapping[str, Any]) -> bool:
    """Tell whether *row* is such a result; formats derived from it are checked first."""
    return "completed" in row and ("duration" in row or "total_input_tokens" in row)


def read(row: Row) -> ForeignRun:
    """Return the run of a result.

    :raises ConfigError: if a value is not a number where one was expected, or there are no tokens.
    """
    return read_fields(Fields(row))


def read_fields(fields: Fields, served_by: Mapping[str, str] | None = None) -> ForeignRun:
    """Return the run of a result from its *fields*.

    :param served_by: facts about the servers beside the model.
    """
    backend = fields.text("backend") or fields.text("endpoint_type") or ""
    check_tokens_timed(fields, backend)
    load = take_load(fields)
    model = fields.text("model_id")
    version = fields.text("vllm_version")
    date = fields.take("date")
    result = bench_result(fields, take_latencies(fields, LATENCY), _THROUGHPUTS)
    fields.skip_matching(_NOT_NEEDED)
    at = moment(date)
    return ForeignRun(
        where=fields.where,
        load=load,
        result=result,
        date=at,
        versions={"vllm": version} if version else {},
        served_by={**({"model": model} if model else {}), **(served_by or {})},
        instances=_instances(fields),
        notes=() if at or date is None else (f"date = {date!r:.60} is not a date in a known form",),
        not_understood=fields.left,
    )


def check_tokens_timed(fields: Fields, backend: str) -> None:
    """Reject simulated results, and results without output tokens.

    :raises ConfigError: if it is one of them.
    """
    if backend == SIMULATED_BACKEND:
        raise ConfigError(
            f"{fields.where} was simulated: no server ran, so there is nothing to import"
        )
    if _WITHOUT_TOKENS.search(backend) or "total_output_tokens" not in fields:
        kind = f"backend {backend!r}" if backend else "it has no total_output_tokens"
        raise ConfigError(
            f"{fields.where}: {kind}: an embeddings benchmark, or another without output, has no "
            "tokens to time"
        )


def take_load(fields: Fields) -> dict[str, Any]:
    """Take the fields of the workload that the result contains."""
    load: dict[str, Any] = request_rate(fields)
    for name in ("num_prompts", "burstiness"):
        if (value := fields.take(name)) is not None:
            load[name] = value
    if "max_concurrency" in fields:
        load["max_concurrency"] = fields.take("max_concurrency")
    load |= _dataset(fields) | _lengths(fields) | _ramp_up(fields)
    return load


def _dataset(fields: Fields) -> dict[str, Any]:
    found = [name for name in ("dataset_name", "dataset-name", "dataset") if name in fields]
    name = fields.text(found[0]) if found else None
    return {"dataset": name} if name else {}


def _lengths(fields: Fields) -> dict[str, Any]:
    """Take the lengths that ``--metadata`` or a sweep names; unknown if they vary."""
    ratio = fields.fact("random_range_ratio")
    found: dict[str, Any] = {}
    for length, names in LENGTH_NAMES.items():
        for name in (*names, *(each.replace("_", "-") for each in names)):
            if length not in found and (value := _whole(fields, name)) is not None:
                found[length] = value
    varied = ratio is not None and ratio not in ("0", "0.0")
    return dict.fromkeys(found, UNKNOWN) if varied else found


def _whole(fields: Fields, name: str) -> int | None:
    """Take a whole number, which ``--metadata`` writes as text; leave anything else."""
    value = fields.peek(name)
    if isinstance(value, bool) or not (isinstance(value, int) or _DIGITS.fullmatch(str(value))):
        return None
    return int(fields.take(name))


def _ramp_up(fields: Fields) -> dict[str, Any]:
    strategy = fields.take("ramp_up_strategy")
    ends = {f"{end}_rps": fields.take(f"ramp_up_{end}_rps") for end in ("start", "end")}
    if strategy is None:
        return {}
    rates: Any = {name: UNKNOWN if rate is None else rate for name, rate in ends.items()}
    return {"ramp_up": RampUp(strategy=strategy, **rates)}


def _instances(fields: Fields) -> dict[str, int]:
    """Take the instances by role that ``--metadata`` names, as llm-d does."""
    found = {}
    for role in ("prefill", "decode"):
        value = fields.fact(f"{role}_replicas")
        if value is not None and _DIGITS.fullmatch(value):
            found[role] = int(value)
    return found
