"""Baselines: what an envelope admits, what a file may say, how a cell is recorded."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.judge.envelope import judge_cell
from pytest_pdserve.results.baselines import cell_envelopes
from pytest_pdserve.results.baselines import host_baseline_path
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import merge
from pytest_pdserve.results.baselines import record_envelopes
from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.results.baselines import write_baseline
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.metrics import Better
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import Workload
from tests.support.records import SESSION

MakeRecord = Callable[..., Record]


def envelope(better: Better, ref: float = 100.0, rtol: float = 0.1) -> Envelope:
    name = {"lower": "mean_ttft_ms", "higher": "output_throughput", "equal": "failed"}[better]
    return Envelope(ref=ref, rtol=rtol, better=better, unit=METRICS[name].unit, runs=5)


@pytest.mark.parametrize(
    ("better", "value", "admitted"),
    [
        ("lower", 100.0, True),
        ("lower", 0.1, True),
        ("lower", 100 * (1 + 0.1), True),
        ("lower", math.nextafter(100 * (1 + 0.1), math.inf), False),
        ("lower", math.inf, False),
        ("lower", -math.inf, True),
        ("lower", math.nan, False),
        ("higher", 90.0, True),
        ("higher", math.nextafter(90.0, 0.0), False),
        ("higher", 1e9, True),
        ("higher", math.inf, True),
        ("higher", -math.inf, False),
        ("higher", math.nan, False),
        ("equal", 100.0, True),
        ("equal", 100.00001, False),
        ("equal", 99.0, False),
        ("equal", math.nan, False),
    ],
)
def test_an_envelope_admits_what_is_no_worse_than_its_limit(
    better: Better, value: float, admitted: bool
) -> None:
    assert envelope(better).admits(value) is admitted


def test_nan_is_not_even_equal_to_nan() -> None:
    assert not envelope("equal", ref=math.nan).admits(math.nan)


CELL: dict[str, Any] = {
    "mean_ttft_ms": {"ref": 100.0, "rtol": 0.1, "better": "lower", "unit": "ms", "runs": 5},
    "output_throughput": {
        "ref": 500.0,
        "rtol": 0.1,
        "better": "higher",
        "unit": "tok/s",
        "runs": 5,
    },
    "failed": {"ref": 0, "rtol": 0, "better": "equal", "unit": "requests", "runs": 5},
}
SOUND: dict[str, Any] = {
    "schema_version": 2,
    "system": "p5-efa",
    "suite": "sweep",
    "provenance": {
        "date": "2026-08-14",
        "runs": [{"id": "20260814T101500-p5-efa", "started_at": "2026-08-14T10:15:00.000Z"}],
        "fingerprint": "0123456789ab",
        "versions": {"vllm": "0.15.1", "nixl": "0.10.1", "torch": "2.9.1"},
        "note": "by hand",
    },
    "cells": {"1p3d": {"random-512-256-n4": CELL}},
}


def written(folder: Path, data: Any) -> Path:
    path = folder / "sweep.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def load(path: Path, system: System, **options: Any) -> Baseline | None:
    return load_baseline(path, system=system, suite="sweep", **options)


def test_a_sound_file_is_read(tmp_path: Path, p5_efa: System) -> None:
    path = written(tmp_path, SOUND)
    baseline = load(path, p5_efa, fingerprint="0123456789ab")
    assert baseline is not None
    assert baseline.origin == f"{path} (vLLM 0.15.1, NIXL 0.10.1, 2026-08-14)"
    known = baseline.envelopes("1p3d", "random-512-256-n4")
    assert known is not None
    assert known["output_throughput"].limit == 450.0
    assert baseline.envelopes("dp", "random-512-256-n4") is None
    assert baseline.envelopes("1p3d", "random-512-512-n4") is None


def test_an_absent_file_is_no_baseline(tmp_path: Path, p5_efa: System) -> None:
    assert load(tmp_path / "sweep.json", p5_efa) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n "system": \n}', "is no valid JSON: Expecting value: line 3 column 1"),
        ('{"a": {"b": 1, "b": 2}}', "has the key 'b' twice in one object"),
        ('{"ref": NaN}', "holds NaN, which is no number that JSON can hold"),
        ('{"ref": -Infinity}', "holds -Infinity, which is no number"),
        ('{"ref": 1e999}', "holds 1e999, which is no number"),
        ("[]", ": /: [] is not of type 'object'"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 900 + "1" + "}" * 900, ""),
    ],
    ids=["cut", "twice", "NaN", "infinity", "too large", "list", "deep", "less deep"],
)
def test_a_file_that_is_no_json_object_is_refused(
    tmp_path: Path, p5_efa: System, text: str, message: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        load(path, p5_efa)
    assert str(refused.value).startswith(str(path))
    assert message in str(refused.value)


def test_nesting_is_refused_at_any_depth(tmp_path: Path, p5_efa: System) -> None:
    """Reading, checking and telling have limits of their own: none may show as a traceback."""
    for depth in range(900, 1010):
        nested = '{"a": ' * depth + "1" + "}" * depth
        text = json.dumps(mutated("/provenance/versions/vllm", "?")).replace('"?"', nested)
        with pytest.raises(ConfigError) as refused:
            load(written(tmp_path, text), p5_efa)
        assert str(refused.value).startswith(str(tmp_path))


def test_a_folder_in_its_place_is_refused(tmp_path: Path, p5_efa: System) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, p5_efa)


def test_a_baseline_of_another_host_is_refused(tmp_path: Path, p5_efa: System) -> None:
    path = written(tmp_path, SOUND)
    with pytest.raises(ConfigError) as refused:
        load(path, p5_efa, fingerprint="999999999999")
    assert str(refused.value) == (
        f"{path} was recorded on another host or system file (fingerprint 0123456789ab, here "
        "999999999999); move it away, and record or propose one of this"
    )


METRIC = "/cells/1p3d/random-512-256-n4/"
TTFT, RATE, FAILED = (f"{METRIC}{name}" for name in CELL)
MUTATIONS: list[tuple[str, object, str]] = [
    # place, value (DROP removes it), what the message says
    *((f"/{key}", ..., f": /: {key!r} is a required property") for key in SOUND),
    *(
        (f"/provenance/{key}", ..., f": /provenance: {key!r} is a required property")
        for key in ("date", "runs", "fingerprint", "versions")
    ),
    *(
        (f"{TTFT}/{key}", ..., f": {TTFT}: {key!r} is a required property")
        for key in CELL["mean_ttft_ms"]
    ),
    *((f"/{key}", None, f": /{key}: ") for key in SOUND),
    *((f"{TTFT}/{key}", None, f": {TTFT}/{key}: ") for key in CELL["mean_ttft_ms"]),
    *((f"{TTFT}/{key}", [], f": {TTFT}/{key}: ") for key in CELL["mean_ttft_ms"]),
    ("/schema_version", 3, ": /schema_version: 3, expected 1 or 2"),
    ("/schema_version", "2", ": /schema_version: '2', expected 1 or 2"),
    ("/schema_version", True, ": /schema_version: True, expected 1 or 2"),
    ("/system", "", ": /system: '' should be non-empty"),
    ("/provenance/date", "yesterday", ": /provenance/date: 'yesterday' does not match"),
    ("/provenance/runs", [], ": /provenance/runs: [] should be non-empty"),
    ("/provenance/versions/vllm", 0.15, ": /provenance/versions/vllm: 0.15 is not of type"),
    ("/provenance/who", "me", "'who' was unexpected"),
    ("/cells/1p3d", 7, ": /cells/1p3d: 7 is not of type 'object'"),
    (METRIC, {}, f": {METRIC.rstrip('/')}: {{}} should be"),
    (TTFT, 100.0, f": {TTFT}: 100.0 is not of type 'object'"),
    (f"{TTFT}/atol", 1.0, "'atol' was unexpected"),
    (f"{TTFT}/ref", "100", f": {TTFT}/ref: '100' is not of type 'number'"),
    (f"{TTFT}/ref", True, f": {TTFT}/ref: True is not of type 'number'"),
    (f"{TTFT}/ref", -1.0, f": {TTFT}/ref: -1.0 is less than the minimum of 0"),
    (f"{TTFT}/ref", 0, f": {TTFT}/ref: 0.0, but a timing or rate is above 0"),
    (f"{RATE}/ref", 0.0, f": {RATE}/ref: 0.0, but a timing or rate is above 0"),
    (f"{TTFT}/ref", 1e300, f": {TTFT}/ref: 1e+300 is greater than the maximum"),
    (f"{TTFT}/ref", 10**400, f": {TTFT}/ref: 1000000"),
    (f"{TTFT}/rtol", -0.1, f": {TTFT}/rtol: -0.1 is less than the minimum of 0"),
    (f"{TTFT}/rtol", 1e300, f": {TTFT}/rtol: 1e+300 is greater than the maximum of 10"),
    (f"{RATE}/rtol", 1.0, f": {RATE}/rtol: 1.0 admits every value; must be below 1"),
    (f"{FAILED}/rtol", 0.1, f": {FAILED}/rtol: 0.1, but a count has no room: 0"),
    (f"{TTFT}/better", "higher", f": {TTFT}/better: 'higher', but of mean_ttft_ms 'lower' is"),
    (f"{FAILED}/better", "lower", f": {FAILED}/better: 'lower', but of failed 'equal' is better"),
    (f"{TTFT}/better", "best", f": {TTFT}/better: 'best' is not one of"),
    (f"{TTFT}/unit", "s", f": {TTFT}/unit: 's', but mean_ttft_ms is in 'ms'"),
    (f"{TTFT}/runs", 0, f": {TTFT}/runs: 0 is less than the minimum of 1"),
    (f"{TTFT}/runs", 2.5, f": {TTFT}/runs: 2.5 is not of type 'integer'"),
    (f"{TTFT}/known_issue", "", f": {TTFT}/known_issue: '' should be non-empty"),
    (
        f"{METRIC}mean_tfft_ms",
        CELL["mean_ttft_ms"],
        f": {METRIC}mean_tfft_ms: unknown metric 'mean_tfft_ms'; known are mean_ttft_ms, ",
    ),
]


def mutated(pointer: str, value: object) -> dict[str, Any]:
    data = copy.deepcopy(SOUND)
    place: Any = data
    *parts, last = pointer.strip("/").split("/")
    for part in parts:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


@pytest.mark.parametrize(
    ("pointer", "value", "message"),
    MUTATIONS,
    ids=[
        f"{pointer.rpartition('/')[0].rpartition('/')[2]}/{pointer.rpartition('/')[2]}"
        f" {'dropped' if value is ... else repr(value)[:20]}"
        for pointer, value, _ in MUTATIONS
    ],
)
def test_a_mistake_anywhere_is_a_config_error_that_names_the_place(
    tmp_path: Path, p5_efa: System, pointer: str, value: object, message: str
) -> None:
    path = written(tmp_path, mutated(pointer, value))
    with pytest.raises(ConfigError) as refused:
        load(path, p5_efa)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 1500


def test_there_are_fifty_mistakes() -> None:
    assert len(MUTATIONS) >= 50


@pytest.mark.parametrize("name", list(CELL))
def test_a_metric_that_is_dropped_is_the_only_mistake_nobody_can_see(
    tmp_path: Path, p5_efa: System, make_record: MakeRecord, name: str
) -> None:
    baseline = load(written(tmp_path, mutated(f"{METRIC}{name}", ...)), p5_efa)
    assert baseline is not None
    worse = make_record({"mean_ttft_ms": 999.0, "output_throughput": 1.0, "failed": 1.0})
    misses = judge_cell([worse], baseline).misses
    assert sorted(m.partition(" ")[0] for m in misses) == sorted(set(CELL) - {name})


JUDGED = (*METRICS.times, *METRICS.counts)


def recorded(folder: Path, system: System, *records: Record) -> Baseline:
    path = folder / "b" / "sweep.json"
    record_envelopes(records, system, path=path, suite="sweep", names=JUDGED)
    baseline = load(path, system)
    assert baseline is not None
    return baseline


def with_limits(system: System, **rtol: float) -> System:
    """The system with fixed limits for some metrics, whose nights are then not judged."""
    return replace(system, judgement=replace(system.judgement, rtol=rtol))


def test_a_recorded_cell_is_read_back(
    tmp_path: Path, p5_efa: System, make_record: MakeRecord
) -> None:
    runs = [make_record({"mean_ttft_ms": value}, repeat=n) for n, value in enumerate((50, 200))]
    baseline = recorded(tmp_path, with_limits(p5_efa, mean_ttft_ms=0.03), *runs)
    cell = baseline.envelopes("1p3d", "random-512-256-n4")
    assert cell is not None
    assert cell["mean_ttft_ms"].ref == pytest.approx(100.0)
    assert (cell["mean_ttft_ms"].rtol, cell["mean_ttft_ms"].runs) == (0.03, 2)
    assert (cell["completed"].ref, cell["completed"].rtol) == (4.0, 0.0)
    assert baseline.runs == (SESSION,)
    assert baseline.provenance is not None
    assert baseline.provenance.fingerprint is None
    assert judge_cell(runs[:1], baseline).status == "PASS"


def test_recording_a_cell_keeps_the_others(
    tmp_path: Path, p5_efa: System, make_record: MakeRecord
) -> None:
    recorded(tmp_path, p5_efa, make_record())
    recorded(tmp_path, p5_efa, make_record(topology="dp"))
    longer = Workload(input_len=512, output_len=512, num_prompts=4)
    recorded(tmp_path, p5_efa, make_record(workload=longer))
    next_day = SessionRef(id="20260823T101500-p5-efa", started_at="2026-08-23T10:15:00.000Z")
    again = make_record({"mean_ttft_ms": 70.0}, session=next_day)
    baseline = recorded(tmp_path, p5_efa, again)
    cells = {t: sorted(workloads) for t, workloads in baseline.cells.items()}
    assert cells == {
        "1p3d": ["random-512-256-n4", "random-512-512-n4"],
        "dp": ["random-512-256-n4"],
    }
    assert baseline.cells["1p3d"]["random-512-256-n4"]["mean_ttft_ms"].ref == pytest.approx(70.0)
    assert baseline.cells["1p3d"]["random-512-512-n4"]["mean_ttft_ms"].ref == pytest.approx(100.0)
    assert baseline.runs == (SESSION, next_day)


def test_nothing_is_recorded_over_a_file_that_cannot_be_read(
    tmp_path: Path, p5_efa: System, make_record: MakeRecord
) -> None:
    path = written(tmp_path, "{")
    with pytest.raises(ConfigError):
        record_envelopes([make_record()], p5_efa, path=path, suite="sweep", names=JUDGED)
    assert path.read_text() == "{"


@pytest.mark.parametrize(
    ("runs", "left_out"),
    [
        ([{}, {"p99_ttft_ms": 0.0}], "p99_ttft_ms"),
        ([{}, {"completed": 5.0}], "completed"),
    ],
    ids=["a timing of 0", "a count that differs"],
)
def test_what_cannot_be_a_reference_is_left_out(
    runs: list[dict[str, float]], left_out: str, p5_efa: System, make_record: MakeRecord
) -> None:
    system = with_limits(p5_efa, p99_ttft_ms=0.1)
    made = cell_envelopes([make_record(metrics) for metrics in runs], system, list(METRICS))
    assert left_out not in made
    assert "mean_ttft_ms" in made


def without(metrics: Mapping[str, float], name: str) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if key != name}


def test_what_sanity_voids_or_a_run_lacks_is_left_out(
    p5_efa: System, make_record: MakeRecord
) -> None:
    note = Finding(check="chunks", severity="note", message="", voids=("mean_itl_ms",))
    whole = make_record(findings=(note,))
    lacking = replace(whole, metrics=without(whole.metrics, "p99_ttft_ms"))
    names = ["mean_itl_ms", "p99_ttft_ms", "mean_ttft_ms"]
    assert list(cell_envelopes([whole, lacking], p5_efa, names)) == ["mean_ttft_ms"]


def test_a_known_issue_survives_writing(tmp_path: Path, p5_efa: System) -> None:
    data = mutated(f"{TTFT}/known_issue", "vllm#1")
    path = written(tmp_path, data)
    baseline = load(path, p5_efa)
    assert baseline is not None
    write_baseline(path, baseline)
    assert json.loads(path.read_text()) == data


def test_later_baselines_win_where_both_know(tmp_path: Path, p5_efa: System) -> None:
    shared = load(written(tmp_path, SOUND), p5_efa)
    other = mutated(f"{TTFT}/ref", 50.0)
    del other["cells"]["1p3d"]["random-512-256-n4"]["failed"]
    other["cells"]["dp"] = {"random-512-256-n4": {"failed": CELL["failed"]}}
    (tmp_path / "host").mkdir()
    host = load(written(tmp_path / "host", other), p5_efa)
    both = merge(shared, None, host)
    assert both is not None
    assert both.cells["1p3d"]["random-512-256-n4"]["mean_ttft_ms"].ref == 50.0
    assert set(both.cells["1p3d"]["random-512-256-n4"]) == set(CELL)
    assert set(both.cells) == {"1p3d", "dp"}
    assert both.source == f"{tmp_path / 'sweep.json'} + {tmp_path / 'host' / 'sweep.json'}"
    assert merge(None, None) is None


def test_what_is_kept_of_a_host_lies_in_the_users_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "pytest-pdserve"


def test_a_hosts_baseline_lies_under_its_fingerprint(tmp_path: Path, p5_efa: System) -> None:
    path = host_baseline_path(p5_efa, "sweep", "0123", tmp_path)
    assert path == tmp_path / "baselines" / "p5-efa" / "0123" / "sweep.json"
