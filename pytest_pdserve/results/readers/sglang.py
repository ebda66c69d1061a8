"""Rows of sglang's ``bench_serving``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_pdserve.results.documents import Row
from pytest_pdserve.results.foreign import Fields
from pytest_pdserve.results.foreign import ForeignRun
from pytest_pdserve.results.foreign import bench_result
from pytest_pdserve.results.foreign import request_rate
from pytest_pdserve.results.foreign import take_latencies
from pytest_pdserve.results.readers.vllm import check_tokens_timed
from pytest_pdserve.values.workload import UNKNOWN

TEXT = "rows of sglang's bench_serving"
_OWN = {
    "mean_e2e_latency_ms",
    "median_e2e_latency_ms",
    "total_output_tokens_retokenized",
    "sharegpt_output_len",
}
_NOT_NEEDED = re.compile(
    "tag|sharegpt_output_len|concurrency|input_throughput|accept_length|num_processes|"
    "total_input_(text|vision)_tokens|.*_retokenized|.*max_output_tokens_per_s|"
    "max_concurrent_requests|benchmark_(start|end)_time|arrival_seed"
)
_RANDOM = ("random", "random-ids")
"""Data sets that take lengths: texts cut to them, and tokens drawn, as vLLM's ``random``."""
FIXED = 1.0
"""``random_range_ratio`` of lengths that do not vary: sglang draws from ratio x length upwards."""


def reads(row: Mapping[str, Any]) -> bool:
    """Tell whether *row* has a name that only sglang writes."""
    return "completed" in row and not _OWN.isdisjoint(row)


def read(row: Row) -> ForeignRun:
    """Return the run of a result.

    :raises ConfigError: if a value is not a number where one was expected.
    """
    fields = Fields(row)
    check_tokens_timed(fields, fields.text("backend") or "")
    load, notes = _take_load(fields)
    latencies = take_latencies(fields, "{statistic}_(?P<quantity>ttft|tpot|itl|e2e_latency)_ms")
    total = fields.number("total_throughput")
    measured = latencies if total is None else {**latencies, "total_token_throughput": total}
    result = bench_result(fields, measured, ("request_throughput", "output_throughput"))
    fields.skip_matching(_NOT_NEEDED)
    server = fields.table("server_info")
    version, model = server.text("version"), server.text("model_path")
    return ForeignRun(
        client_kind="sglang",
        where=row.where,
        load=load,
        result=result,
        versions={"sglang": version} if version else {},
        served_by={"model": model} if model else {},
        notes=notes,
        not_understood=fields.left,
    )


def _take_load(fields: Fields) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Take the fields of the workload; return them, and a sentence on each reinterpreted value."""
    load: dict[str, Any] = {"burstiness": 1.0}  # sglang has Poisson arrivals only
    rate = request_rate(fields)
    if rate.get("request_rate") == "trace":
        rate = {"request_rate": UNKNOWN}
    if "max_concurrency" in fields:
        load["max_concurrency"] = fields.take("max_concurrency")
    if (prompts := fields.take("num_prompts")) is not None:
        load["num_prompts"] = prompts
    notes: list[str] = []
    dataset = fields.text("dataset_name")
    lengths = {name: fields.take(f"random_{name}") for name in ("input_len", "output_len")}
    ratio = fields.number("random_range_ratio")
    if dataset in _RANDOM:
        if dataset != "random":
            notes.append(f"data set {dataset!r} of sglang is vLLM's 'random'")
        if ratio == FIXED:
            load |= {name: value for name, value in lengths.items() if value is not None}
        else:
            notes.append(
                f"lengths vary (random_range_ratio {ratio}): they are not taken for "
                f"{lengths['input_len']} and {lengths['output_len']}"
            )
        dataset = "random"
    if dataset:
        load["dataset"] = dataset
    return {**load, **rate}, tuple(notes)
