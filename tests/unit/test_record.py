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
from pytest_pdserve.results.kinds import RECORD
from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import values_of
from pytest_pdserve.values.record import voided_in
from pytest_pdserve.values.sessions import SessionRef

MakeRecord = Callable[..., Record]
FINITE = st.floats(-1e18, 1e18)
LINES = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1)
TEXTS = st.dictionaries(st.text(), st.text(), max_size=3)
NUMBERS = st.dictionaries(st.text(), FINITE, max_size=3)
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
            "cluster": TEXTS,
            "client": st.dictionaries(st.text(), st.none() | FINITE | st.text(), max_size=3),
            "metrics": NUMBERS,
            "nodes": st.lists(st.text()).map(tuple),
            "findings": st.lists(FINDINGS, max_size=2).map(tuple),
            "processes": st.lists(PROCESSES, max_size=2).map(tuple),
            "requests": st.none() | st.text(),
            "simulated": st.booleans(),
            "start": st.none() | st.integers(0, 99),
            "session": st.builds(
                SessionRef,
                id=LINES,
                started_at=st.sampled_from([None, "2026-08-22T10:15:00.000Z"]),
                simulated_night=st.none() | st.integers(0, 99),
            ),
        }
    )
)
def test_a_record_is_read_back_from_json(make_record: MakeRecord, changes: dict[str, Any]) -> None:
    record = replace(make_record(), **changes)
    written = json.dumps(RECORD.dump(record, "record.json"), allow_nan=False)
    assert RECORD.parse(json.loads(written), "record.json") == record


LATER = (
    *("cluster", "warm_load", "router", "prefix_cache_reset", "client_node", "client_kind"),
    *("client_offset_ms", "shared_start", "gpus", "compiled", "transfers", "fabric"),
)
"""Records without these are still read."""
REQUIRED = [name for name in Record.__slots__ if name not in LATER]


@pytest.mark.parametrize("key", [*REQUIRED, "schema_version"])
def test_a_record_without_a_key_is_refused(
    make_record: MakeRecord, tmp_path: Path, key: str
) -> None:
    data = RECORD.dump(make_record(), "record.json")
    del data[key]
    path = tmp_path / "r.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError) as refused:
        load_record(path)
    expected = "; expected 2" if key == "schema_version" else ""
    assert str(refused.value) == f"{path}: /: {key!r} is a required property{expected}"


def test_a_record_without_what_came_later_is_read(make_record: MakeRecord) -> None:
    data = RECORD.dump(make_record(), "record.json")
    del data["cluster"]
    assert RECORD.parse(data, "record.json") == make_record()


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"repeat": -1}, "/repeat"),
        ({"schema_version": 3}, "/schema_version"),
        ({"started_at": "2026-08-22 10:15"}, "/started_at"),
        ({"metrics": {"mean_ttft_ms": "fast"}}, "/metrics/mean_ttft_ms"),
        ({"speed": 1}, "/"),
        ({"processes": [{}]}, "/processes/0"),
        ({"run_id": "20260822T101500-p5-efa"}, "/"),
        ({"session": "20260822T101500-p5-efa"}, "/session"),
        ({"session": {"id": ""}}, "/session/id"),
        ({"session": {"id": "a\nb"}}, "/session/id"),
        ({"start": -1}, "/start"),
    ],
    ids=[
        *("repeat", "version", "local time", "text for a number", "unknown key", "process"),
        *("run id", "session id alone", "empty session id", "two lines", "start"),
    ],
)
def test_a_record_that_says_something_else_is_refused(
    make_record: MakeRecord, change: dict[str, Any], pointer: str
) -> None:
    data = RECORD.dump(make_record(), "record.json")
    with pytest.raises(ConfigError, match=f"^record.json: {pointer}: "):
        RECORD.parse({**data, **change}, "record.json")


def test_a_secret_is_named_in_a_command_and_its_value_is_nowhere() -> None:
    assert "secrets" not in ProcessRecord.__slots__
    command = Command(name="router", node="n", argv=("r",), secrets=("VLLM_API_KEY",))
    assert "VLLM_API_KEY=<session API key>" in command.render()


def test_a_record_says_its_cell_and_what_is_wrong_with_it(make_record: MakeRecord) -> None:
    bad = Finding(check="completed", severity="invalid", message="3 of 4", voids=("a", "b"))
    note = Finding(check="chunks", severity="note", message="0.5", voids=("b", "c"))
    record = make_record(findings=(note, bad))
    assert record.cell == "1p3d, random-512-256-n4, p5-efa"
    assert record.invalid == (bad,)
    assert record.voided == {"a", "b", "c"}


def test_a_value_to_judge_is_there_and_not_voided(make_record: MakeRecord) -> None:
    gaps = Finding(check="chunks", severity="note", message="0.5", voids=("mean_itl_ms",))
    record = make_record(findings=(gaps,))
    assert record.metrics["mean_itl_ms"] == 10.0
    assert record.value("mean_itl_ms") is None
    assert record.value("mean_ttft_ms") == 100.0
    assert record.value("kv_transfers") is None


def test_runs_have_values_of_a_metric_if_each_has_one(make_record: MakeRecord) -> None:
    gaps = Finding(check="chunks", severity="note", message="0.5", voids=("mean_itl_ms",))
    runs = [make_record({"kv_transfers": 4.0}), make_record({"mean_ttft_ms": 90.0})]
    assert values_of(runs, "mean_ttft_ms") == (100.0, 90.0)
    assert values_of(runs, "kv_transfers") is None
    assert values_of([*runs, make_record(findings=(gaps,))], "mean_itl_ms") is None
    assert voided_in(runs) == frozenset()
    assert voided_in([*runs, make_record(findings=(gaps,))]) == {"mean_itl_ms"}
