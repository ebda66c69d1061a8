"""Run records: written whole, read back the same, and without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from pytest_pdserve.plan.command import Command
from pytest_pdserve.results.files import check_schema
from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.record import result_metrics
from pytest_pdserve.values.result import BenchResult

MakeRecord = Callable[..., Record]
FINITE = st.floats(-1e18, 1e18)
TEXTS = st.dictionaries(st.text(), st.text(), max_size=3).map(lambda d: tuple(d.items()))
NUMBERS = st.dictionaries(st.text(), FINITE, max_size=3).map(lambda d: tuple(d.items()))
FINDINGS = st.builds(
    Finding,
    check=st.text(),
    severity=st.sampled_from(["invalid", "unproven", "note"]),
    message=st.text(),
    voids=st.lists(st.text()).map(tuple),
)
PROCESSES = st.builds(
    ProcessRecord,
    name=st.text(),
    node=st.text(),
    argv=st.lists(st.text(), min_size=1).map(tuple),
    env=TEXTS,
    log=st.text(),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.fixed_dictionaries(
        {
            "versions": TEXTS,
            "host": TEXTS,
            "metrics": NUMBERS,
            "nodes": st.lists(st.text()).map(tuple),
            "findings": st.lists(FINDINGS, max_size=2).map(tuple),
            "processes": st.lists(PROCESSES, max_size=2).map(tuple),
            "requests": st.none() | st.text(),
            "simulated": st.booleans(),
        }
    )
)
def test_a_record_is_read_back_from_json(make_record: MakeRecord, changes: dict[str, Any]) -> None:
    record = replace(make_record(), **changes)
    written = json.loads(json.dumps(record.to_json(), allow_nan=False))
    check_schema(written, "record", "record.json")
    assert Record.from_json(written) == record


# ``cluster`` came later: records without it are still read.
REQUIRED = [name for name in Record.__slots__ if name != "cluster"] + ["schema_version"]


@pytest.mark.parametrize("key", REQUIRED)
def test_a_record_without_a_key_is_refused(
    make_record: MakeRecord, tmp_path: Path, key: str
) -> None:
    data = make_record().to_json()
    del data[key]
    path = tmp_path / "r.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError) as refused:
        load_record(path)
    assert str(refused.value) == f"{path}: /: {key!r} is a required property"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"repeat": -1}, "/repeat"),
        ({"schema_version": 2}, "/schema_version"),
        ({"started_at": "2026-08-22 10:15"}, "/started_at"),
        ({"metrics": {"mean_ttft_ms": "fast"}}, "/metrics/mean_ttft_ms"),
        ({"speed": 1}, "/"),
        ({"processes": [{}]}, "/processes/0"),
    ],
    ids=["repeat", "version", "local time", "text for a number", "unknown key", "process"],
)
def test_a_record_that_says_something_else_is_refused(
    make_record: MakeRecord, change: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(ConfigError, match=f"^record.json: {pointer}: "):
        check_schema({**make_record().to_json(), **change}, "record", "record.json")


def test_a_secret_is_named_in_a_command_and_its_value_is_nowhere() -> None:
    assert "secrets" not in ProcessRecord.__slots__
    command = Command(name="router", node="n", argv=("r",), secrets=("VLLM_API_KEY",))
    assert "VLLM_API_KEY=<session API key>" in command.render()


def test_a_record_says_its_cell_and_what_is_wrong_with_it(make_record: MakeRecord) -> None:
    bad = Finding(check="completed", severity="invalid", message="3 of 4", voids=("a", "b"))
    note = Finding(check="chunks", severity="note", message="0.5", voids=("b", "c"))
    record = make_record(findings=(note, bad))
    assert record.cell == "1p3d, random-512-256, p5-efa"
    assert record.invalid == (bad,)
    assert record.voided == {"a", "b", "c"}


def test_the_clients_metrics_and_counts_are_one_table(
    make_result: Callable[..., BenchResult], make_counts: Callable[..., ServedCounts]
) -> None:
    served = (
        make_counts("prefill[0]", kv_transfers=0.0, kv_bytes=0.0, kv_failed=1.0),
        make_counts("decode[0]", kv_transfers=3.0, kv_bytes=300.0, kv_failed=0.0),
        make_counts("decode[1]", kv_transfers=1.0, kv_bytes=100.0),
    )
    metrics = dict(result_metrics(make_result(metrics=(("mean_ttft_ms", 9.0),)), served))
    assert metrics == {
        "mean_ttft_ms": 9.0,
        "completed": 4.0,
        "total_input_tokens": 2048.0,
        "total_output_tokens": 1024.0,
        "failed": 0.0,
        "kv_transfers": 4.0,
        "kv_failed_transfers": 1.0,
        "kv_bytes_per_request": 100.0,
    }


@pytest.mark.parametrize(
    ("name", "kv", "present"),
    [
        ("decode[0]", {}, set[str]()),
        ("aggregated[0]", {"kv_transfers": 4.0}, set[str]()),
        ("decode[0]", {"kv_transfers": 0.0}, {"kv_transfers"}),
    ],
    ids=["no counters", "no decode", "nothing moved"],
)
def test_transfers_are_counted_only_where_they_can_be(
    make_result: Callable[..., BenchResult],
    make_counts: Callable[..., ServedCounts],
    name: str,
    kv: dict[str, float],
    present: set[str],
) -> None:
    metrics = dict(result_metrics(make_result(failed=None), (make_counts(name, **kv),)))
    assert {key for key in metrics if key.startswith("kv_")} == present
    assert "failed" not in metrics
