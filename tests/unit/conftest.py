"""Values that many unit tests start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import Workload
from tests.support.records import METRICS
from tests.support.records import SESSION
from tests.support.records import TIMES


@pytest.fixture
def p5_efa() -> System:
    """The article's kind of cluster, from its shipped file."""
    return load_system("p5-efa", SHIPPED)


@pytest.fixture
def local_cpu() -> System:
    """The embedded default, from its shipped file."""
    return load_system("local-cpu", SHIPPED)


@pytest.fixture
def make_counts() -> Callable[..., ServedCounts]:
    """A factory of what one instance counted; keywords replace fields."""

    def make(name: str = "aggregated[0]", **fields: Any) -> ServedCounts:
        counts = ServedCounts(
            name=name,
            role=name.partition("[")[0],
            requests=4.0,
            prompt_tokens=2048.0,
            generation_tokens=1024.0,
            prefix_cache_hits=0.0,
            preemptions=0.0,
            kv_transfers=None,
            kv_bytes=None,
            kv_transfer_s=None,
            kv_failed=None,
            kv_expired=None,
            block_size=128,
            restarted=False,
        )
        return replace(counts, **fields)

    return make


@pytest.fixture
def make_result() -> Callable[..., BenchResult]:
    """A factory of a sound result of 4 requests, 512 tokens in and 256 out; keywords replace."""

    def make(**fields: Any) -> BenchResult:
        result = BenchResult(
            completed=4,
            failed=0,
            duration_s=2.0,
            total_input_tokens=2048,
            total_output_tokens=1024,
            ttft_s=(0.1,) * 4,
            itl_s=((0.01,) * 255,) * 4,
            input_lens=(512,) * 4,
            output_lens=(256,) * 4,
            start_s=(1.0,) * 4,
            errors=("",) * 4,
            raw={"backend": "openai", "request_rate": "inf", **TIMES},
        )
        return replace(result, **fields)

    return make


@pytest.fixture
def make_record(make_counts: Callable[..., ServedCounts]) -> Callable[..., Record]:
    """A factory of records of 1p3d, random-512-256, on p5-efa; ``metrics`` are merged."""

    def make(metrics: dict[str, float] | None = None, **fields: Any) -> Record:
        record = Record(
            session=SESSION,
            system="p5-efa",
            simulated=False,
            fingerprint="0123456789ab",
            topology="1p3d",
            workload=Workload(input_len=512, output_len=256, num_prompts=4),
            repeat=0,
            start=0,
            started_at="2026-08-22T10:15:00.000Z",
            finished_at="2026-08-22T10:15:02.000Z",
            versions={"vllm": "0.15.1", "nixl": "0.10.1"},
            host={"cpu": "Xeon"},
            nodes=("node0", "node1"),
            processes=(
                ProcessRecord(
                    name="prefill[0]",
                    node="node0",
                    argv=("vllm", "serve", "m"),
                    env={"UCX_TLS": "tcp"},
                    log="1p3d/logs/prefill-0.log",
                ),
            ),
            endpoint="http://127.0.0.1:8001",
            client={"backend": "openai", "max_concurrency": None},
            metrics={**METRICS, **(metrics or {})},
            served=(make_counts("prefill[0]"), make_counts("decode[0]", kv_transfers=4.0)),
            timings_s={"ready": 30.0, "bench": 2.0},
            findings=(Finding(check="client", severity="unproven", message="not seen"),),
            requests="random-512-256-n4.0.requests.parquet",
        )
        return replace(record, **fields)

    return make
