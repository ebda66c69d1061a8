"""Rows of InferenceX, raw and aggregated: times in seconds, throughput per GPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_pdserve.results.documents import Row
from pytest_pdserve.results.foreign import Fields
from pytest_pdserve.results.foreign import ForeignRun
from pytest_pdserve.results.foreign import bench_result
from pytest_pdserve.results.foreign import moment
from pytest_pdserve.results.foreign import take_latencies
from pytest_pdserve.results.readers import vllm
from pytest_pdserve.values.result import BenchResult

TEXT = "rows of InferenceX, and other results with times in seconds"
_SECONDS = "{statistic}_(?P<quantity>ttft|tpot|itl|e2el)"
_SECONDS_AFTER = "(?P<quantity>ttft|tpot|itl|e2e_latency|e2el)_{statistic}"
_IN_SECONDS = re.compile(r"(mean|median|p\d+)_(ttft|tpot|itl|e2el)")
_AGGREGATED = {"conc", "tput_per_gpu"}
_SERVERS = (
    *("hw", "framework", "precision", "spec_decoding", "mtp", "disagg", "is_multinode"),
    *("tp", "pp", "ep", "dcp_size", "pcp_size", "dp_attention", "kv_p2p_transfer"),
    *("num_prefill_gpu", "num_decode_gpu", "prefill_hw", "decode_hw"),
    *(
        f"{role}_{name}"
        for role in ("prefill", "decode")
        for name in ("tp", "pp", "ep", "dcp_size", "pcp_size", "dp_attention", "num_workers")
    ),
)
"""Facts about the servers."""
_NOT_NEEDED = re.compile(
    r"infmax_model_prefix|(.*_)?intvty(_.*)?|tput_per_gpu|good_completed|request_goodput|"
    r"input_throughput|tokenizer_id|global_batch_size|local_batch_size|measured_decode_rounds|"
    r"decode_round_tpot_ms|decode_step_tput_per_gpu|observed_tokens_per_step"
)
IN_SECONDS = "times under names without _ms are read as seconds"


def reads(row: Mapping[str, Any]) -> bool:
    """Tell whether *row* is aggregated, or has times only under names without ``_ms``."""
    if _AGGREGATED <= row.keys():
        return True
    named = [name for name in row if _IN_SECONDS.fullmatch(name.removesuffix("_ms"))]
    return "completed" in row and bool(named) and not any(n.endswith("_ms") for n in named)


def read(row: Row) -> ForeignRun:
    """Return the run of a result.

    :raises ConfigError: if a value is not a number where one was expected.
    """
    return _aggregated(row) if _AGGREGATED <= row.data.keys() else _raw(row)


def _raw(row: Row) -> ForeignRun:
    fields = Fields(row)
    backend = fields.text("backend") or ""
    vllm.check_tokens_timed(fields, backend)
    load = vllm.take_load(fields)
    model, date = fields.text("model_id"), moment(fields.take("date"))
    measured = take_latencies(fields, _SECONDS, to_ms=1000.0)
    throughputs = ("request_throughput", "output_throughput", "total_token_throughput")
    result = bench_result(fields, measured, throughputs)
    fields.skip_matching(_NOT_NEEDED)
    return ForeignRun(
        client_kind="inferencex",
        where=row.where,
        load=load,
        result=result,
        date=date,
        served_by={"model": model} if model else {},
        notes=(IN_SECONDS,),
        not_understood=fields.left,
    )


def _aggregated(row: Row) -> ForeignRun:
    """Return the run of a row that has neither totals nor a duration."""
    fields = Fields(row)
    fields.skip("conc", "isl", "osl")
    load = {
        name: row.data[theirs]
        for name, theirs in (
            ("max_concurrency", "conc"),
            ("input_len", "isl"),
            ("output_len", "osl"),
        )
        if row.data.get(theirs) is not None
    }
    measured = {
        **take_latencies(fields, _SECONDS, to_ms=1000.0),
        **take_latencies(fields, _SECONDS_AFTER, to_ms=1000.0),
        **_throughputs(fields),
    }
    model = fields.text("model")
    versions = {"image": fields.text("image"), "recipe": fields.text("recipe_fingerprint")}
    servers = {"model": model, **{name: fields.fact(name) for name in _SERVERS}, **_router(fields)}
    fields.skip_matching(_NOT_NEEDED)
    return ForeignRun(
        client_kind="inferencex",
        where=row.where,
        load=load,
        result=BenchResult(
            completed=None,
            failed=None,
            duration_s=float("nan"),
            total_input_tokens=None,
            total_output_tokens=None,
            raw={**fields.single_values, **measured},
        ),
        versions={name: v for name, v in versions.items() if v},
        served_by={name: value for name, value in servers.items() if value},
        instances=_instances(row.data),
        notes=(IN_SECONDS, "throughput per GPU is multiplied by the GPUs that do the work"),
        not_understood=fields.left,
    )


def _throughputs(fields: Fields) -> dict[str, float]:
    """Take throughputs per GPU; return those of all GPUs, empty if their number is unknown.

    Output is per GPU that decodes, input per GPU that prefills; without roles these are all.
    """
    output, prompt = fields.number("output_tput_per_gpu"), fields.number("input_tput_per_gpu")
    decoding, prefilling = fields.count("num_decode_gpu"), fields.count("num_prefill_gpu")
    if decoding is None and prefilling is None:
        sizes = [fields.count(name) for name in ("tp", "pp", "dcp_size", "pcp_size")]
        if sizes[0] is not None and all(size in (None, 1) for size in sizes[1:]):
            decoding = prefilling = sizes[0]
    found = {}
    if output is not None and decoding:
        found["output_throughput"] = round(output * decoding, 6)
        if prompt is not None and prefilling:
            total = output * decoding + prompt * prefilling
            found["total_token_throughput"] = round(total, 6)
    return found


def _router(fields: Fields) -> dict[str, str | None]:
    if not isinstance(fields.take("router"), dict):
        return {"router": fields.fact("router")}
    router = fields.table("router")
    return {f"router.{name}": router.fact(name) for name in ("name", "version")}


def _instances(data: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of instances by role."""
    if data.get("disagg") is False:
        return {"prefill": 0}
    named = {role: data.get(f"{role}_num_workers") for role in ("prefill", "decode")}
    return {role: count for role, count in named.items() if isinstance(count, int) and count}
