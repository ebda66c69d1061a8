"""llm-d Benchmark Reports, versions 0.2 and 0.2.1."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from pytest_pdserve.results.documents import Row
from pytest_pdserve.results.foreign import Fields
from pytest_pdserve.results.foreign import ForeignRun
from pytest_pdserve.results.foreign import moment
from pytest_pdserve.results.foreign import request_rate
from pytest_pdserve.results.foreign import scaled
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.workload import LENGTH_FLAGS

TEXT = "llm-d Benchmark Reports 0.2 and 0.2.1"
VERSIONS = ("0.2", "0.2.1")
_MS = {"ms": 1.0, "s": 1000.0, "ms/token": 1.0, "s/token": 1000.0}
"""Milliseconds of each unit of a latency."""
_LATENCIES = {
    "time_to_first_token": "ttft",
    "time_per_output_token": "tpot",
    "inter_token_latency": "itl",
    "request_latency": "e2el",
}
_THROUGHPUTS = {
    "request_rate": ("request_throughput", "queries/s"),
    "output_token_rate": ("output_throughput", "tokens/s"),
    "total_token_rate": ("total_token_throughput", "tokens/s"),
}
_STATISTICS = {
    **{name: name for name in ("mean", "p50", "p90", "p95", "p99")},
    "stddev": "std",
}
_UNBOUND = ("inf", "Infinity")
WHOLE = 0.01
"""Maximum distance from a whole number at which mean times requests is taken for the total."""
_VLLM = "vllm-benchmark"
"""Name of the tool that reports mean lengths unless its arguments contain them."""


def reads(row: Mapping[str, Any]) -> bool:
    """Tell whether *row* is an llm-d Benchmark Report, of any version."""
    return "version" in row and "run" in row and ("scenario" in row or "results" in row)


def read(row: Row) -> ForeignRun:
    """Return the run of a report.

    :raises ConfigError: if it is of another version, or a value is of another type than expected.
    """
    fields = Fields(row)
    if str(fields.take("version")) not in VERSIONS:
        raise fields.wrong("version", f"{' or '.join(VERSIONS)} of the Benchmark Report")
    run, scenario, results = (fields.table(name) for name in ("run", "scenario", "results"))
    load_part = scenario.table("load")
    aggregate = results.table("request_performance").table("aggregate")
    counts = aggregate.table("requests")
    latency, throughput = aggregate.table("latency"), aggregate.table("throughput")
    measured = _latencies(latency) | _throughputs(throughput)
    time = run.table("time")
    begun, ended = moment(time.take("start")), moment(time.take("end"))
    stack = [each.table("standardized") for each in scenario.tables("stack")]
    load, left = _take_load(load_part, counts)
    versions = dict(_versions([*stack, load_part.table("standardized")]))
    latency.skip("normalized_time_per_output_token")
    throughput.skip("input_token_rate")
    return ForeignRun(
        client_kind="llm-d",
        where=row.where,
        load=load,
        result=_result(counts, measured),
        date=begun or ended,
        versions=versions,
        served_by=dict(_servers(stack)),
        instances=_instances(stack),
        notes=("how long the load took is not in the report: run.time is of the whole tool",),
        not_understood=(*fields.left, *left, *latency.left, *throughput.left),
    )


def _latencies(latency: Fields) -> dict[str, float]:
    found = {}
    for name, quantity in _LATENCIES.items():
        values = latency.table(name)
        if name not in latency or (units := values.text("units")) is None:
            continue
        if units not in _MS:
            raise values.wrong("units", f"one of {', '.join(_MS)}")
        for statistic, ours in _STATISTICS.items():
            if (value := values.number(statistic)) is not None:
                found[f"{ours}_{quantity}_ms"] = scaled(value, _MS[units])
    return found


def _throughputs(throughput: Fields) -> dict[str, float]:
    found = {}
    for name, (ours, units) in _THROUGHPUTS.items():
        values = throughput.table(name)
        if (mean := values.number("mean")) is not None:
            if values.text("units") != units:
                raise values.wrong("units", units)
            found[ours] = mean
    return found


def _result(counts: Fields, measured: Mapping[str, float]) -> BenchResult:
    total, failures = counts.count("total"), counts.count("failures")
    incomplete = counts.count("incomplete") or 0
    completed = None if total is None or failures is None else total - failures - incomplete
    if completed is not None and completed < 0:
        raise counts.wrong("failures", f"at most the total of {total}")
    return BenchResult(
        completed=completed,
        failed=None if failures is None else failures + incomplete,
        duration_s=math.nan,
        total_input_tokens=_tokens(counts, "input_length", completed if not failures else None),
        total_output_tokens=_tokens(counts, "output_length", completed),
        raw={**counts.single_values, **measured},
    )


def _tokens(counts: Fields, name: str, requests: int | None) -> int | None:
    """Return the total tokens, computed from the mean of a report; None if not exact."""
    mean = counts.table(name).number("mean")
    if mean is None or requests is None:
        return None
    whole = round(mean * requests)
    return whole if abs(mean * requests - whole) < WHOLE else None


def _take_load(load_part: Fields, counts: Fields) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Take the fields of the workload; return them, and names that are not understood."""
    standard, arguments = load_part.table("standardized"), load_part.table("native").table("args")
    standard.skip("tool", "tool_version", "parallelism", "stage", "source")
    load = request_rate(standard, "rate_qps")
    if (total := counts.count("total")) is not None:
        load["num_prompts"] = total
    bound = standard.take("concurrency")
    if bound in _UNBOUND or isinstance(bound, int | float):
        whole = isinstance(bound, float) and bound.is_integer()
        load["max_concurrency"] = None if bound in _UNBOUND else int(bound) if whole else bound
    dataset = arguments.text("dataset-name") or arguments.text("--dataset-name")
    if dataset:
        load["dataset"] = dataset
    lengths = {f"{what}_len": _fixed(standard, arguments, what) for what in ("input", "output")}
    shaped = [name for name in ("prefix", "multi_turn") if standard.take(name) is not None]
    if not shaped and (dataset is None or dataset in LENGTH_FLAGS):
        load |= {name: length for name, length in lengths.items() if length is not None}
    return load, (*(f"scenario.load.standardized.{name}" for name in shaped), *standard.left)


def _fixed(standard: Fields, arguments: Fields, what: str) -> int | None:
    """Return a length that all requests share; None if it varies or is a mean."""
    length = standard.table(f"{what}_seq_len")
    value = length.number("value")
    if length.text("distribution") != "fixed" or value is None or not value.is_integer():
        return None
    if {length.number("min"), length.number("max")} - {None, value}:
        return None
    if standard.take("tool") == _VLLM and not any(
        name.endswith(f"{what}-len") for name in arguments
    ):
        return None
    return int(value)


def _versions(parts: Iterable[Fields]) -> Iterator[tuple[str, str]]:
    for part in parts:
        tool, version = part.text("tool"), part.text("tool_version")
        if tool and version:
            yield tool, version


def _servers(stack: Iterable[Fields]) -> Iterator[tuple[str, str]]:
    """Yield the facts about the servers, named by role."""
    for part in stack:
        if part.take("kind") != "inference_engine":
            continue
        role, accelerator = part.text("role") or "replica", part.table("accelerator")
        facts = {
            "model": part.table("model").fact("name"),
            "replicas": part.fact("replicas"),
            "accelerator": accelerator.fact("model"),
            "accelerators": accelerator.fact("count"),
        }
        sizes = accelerator.table("parallelism")
        facts |= {name: sizes.fact(name) for name in sizes}
        yield from ((f"{role}.{name}", fact) for name, fact in facts.items() if fact)


def _instances(stack: Iterable[Fields]) -> dict[str, int]:
    """Return the instances by role."""
    found: Counter[str] = Counter()
    for part in stack:
        if part.take("kind") == "inference_engine":
            found[part.text("role") or ""] += part.count("replicas") or 0
    if "replica" in found:
        return {"prefill": 0}
    return {role: found[role] for role in ("prefill", "decode") if role in found}
