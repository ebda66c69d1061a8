"""Baseline files: what they say, how a mistake in them is named, and how they are written."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import write_baseline
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from tests.support.stored_nights import typical_baseline

FIRST, SECOND = "20260813T220000-p5-efa", "20260814T220000-p5-efa"
SOUND: dict[str, Any] = {
    "schema_version": 3,
    "system": "p5-efa",
    "suite": "sweep",
    "fingerprint": "0123456789ab",
    "host": {"cpu": "Xeon"},
    "approver": "Ada",
    "accepted_on": "2026-08-15",
    "note": "by hand",
    "sessions": [
        {"id": FIRST, "started_at": "2026-08-13T22:00:00.000Z", "versions": {"vllm": "0.15.0"}},
        {
            "id": SECOND,
            "started_at": "2026-08-14T22:00:00.000Z",
            "simulated_night": 1,
            "versions": {"vllm": "0.15.1", "nixl": "0.10.1", "torch": "2.9.1"},
            "nodes": ["node0", "node1"],
        },
    ],
    "cells": {
        "1p3d": {
            "random-512-256-n4": {
                "counts": {"completed": 4.0},
                "nights": [
                    {"session": FIRST, "starts": 3, "values": {"mean_ttft_ms": 100.0}},
                    {
                        "session": SECOND,
                        "values": {"mean_ttft_ms": 101.0, "output_throughput": 500.0},
                    },
                ],
            }
        }
    },
}
CELL = "/cells/1p3d/random-512-256-n4"
NIGHT = f"{CELL}/nights/1"


def at(data: Any, pointer: str) -> Any:
    for part in pointer.strip("/").split("/"):
        data = data[int(part) if isinstance(data, list) else part]
    return data


def changed(pointer: str, value: object) -> dict[str, Any]:
    """The sound file with another value at *pointer*; ``...`` removes it."""
    data = copy.deepcopy(SOUND)
    above, _, last = pointer.rpartition("/")
    place: Any = at(data, above) if above else data
    key: Any = int(last) if isinstance(place, list) else last
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return data


def written(folder: Path, data: Any) -> Path:
    path = folder / "sweep.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def refusal(path: Path, system: System, **options: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        load_baseline(path, system=system, **options)
    return str(refused.value)


@pytest.fixture
def sound(tmp_path: Path, p5_efa: System) -> Baseline:
    baseline = load_baseline(written(tmp_path, SOUND), system=p5_efa)
    assert baseline is not None
    return baseline


def test_a_cell_has_the_values_of_its_nights_oldest_first(sound: Baseline) -> None:
    cell = sound.cell(("1p3d", "random-512-256-n4"))
    assert cell is not None
    assert cell.values("mean_ttft_ms") == (100.0, 101.0)
    assert cell.values("output_throughput") == (500.0,)
    assert cell.values("mean_itl_ms") == ()
    assert cell.metrics == ("mean_ttft_ms", "output_throughput")
    assert cell.counts == {"completed": 4.0}
    assert [cell.starts(name) for name in cell.metrics] == [3, 1]


def test_a_cell_that_no_night_has_is_none(sound: Baseline) -> None:
    assert sound.keys == (("1p3d", "random-512-256-n4"),)
    assert sound.cell(("dp", "random-512-256-n4")) is None
    assert sound.cell(("1p3d", "random-512-512-n4")) is None


def test_a_night_is_of_one_start_unless_it_says_otherwise(sound: Baseline) -> None:
    nights = sound.cells["1p3d"]["random-512-256-n4"].nights
    assert [night.starts for night in nights] == [3, 1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "vLLM 0.15.1, NIXL 0.10.1, accepted by Ada on 2026-08-15"),
        ({"approver": None, "accepted_on": None}, "vLLM 0.15.1, NIXL 0.10.1"),
        ({"sessions": (), "cells": {}}, "accepted by Ada on 2026-08-15"),
    ],
    ids=["accepted", "joined by themselves", "no session"],
)
def test_where_a_baseline_is_from_is_its_file_versions_and_approver(
    changes: dict[str, Any], said: str, sound: Baseline
) -> None:
    assert replace(sound, **changes).origin == f"{sound.source} ({said})"


def test_a_baseline_of_nothing_is_its_file() -> None:
    assert Baseline(system="s", suite="sweep", source="sweep.json").origin == "sweep.json"


def test_an_absent_file_is_no_baseline(tmp_path: Path, p5_efa: System) -> None:
    assert load_baseline(tmp_path / "sweep.json", system=p5_efa) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n "system": \n}', "is not valid JSON: Expecting value: line 3 column 1"),
        ('{"a": {"b": 1, "b": 2}}', "has the key 'b' twice in one object"),
        ('{"starts": NaN}', "holds NaN, expected a finite number"),
        ('{"starts": -Infinity}', "holds -Infinity, expected a finite number"),
        ('{"starts": 1e999}', "holds 1e999, expected a finite number"),
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
    said = refusal(path, p5_efa)
    assert said.startswith(str(path))
    assert message in said


def test_nesting_is_refused_at_any_depth(tmp_path: Path, p5_efa: System) -> None:
    """Reading, checking and telling have limits of their own: none may show as a traceback."""
    for depth in range(900, 1010):
        nested = '{"a": ' * depth + "1" + "}" * depth
        text = json.dumps(changed("/sessions/1/versions/vllm", "?")).replace('"?"', nested)
        assert refusal(written(tmp_path, text), p5_efa).startswith(str(tmp_path))


def test_a_folder_in_its_place_is_refused(tmp_path: Path, p5_efa: System) -> None:
    assert refusal(tmp_path, p5_efa) == f"{tmp_path} cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ({}, "fingerprint 0123456789ab, here 999999999999"),
        ({"cpu": "EPYC", "gpu": "H200"}, "cpu was Xeon, is EPYC; gpu was not set, is H200"),
    ],
    ids=["of unknown parts", "of known parts"],
)
def test_a_baseline_of_another_host_is_refused(
    host: dict[str, str], why: str, tmp_path: Path, p5_efa: System
) -> None:
    path = written(tmp_path, SOUND)
    assert refusal(path, p5_efa, fingerprint="999999999999", host=host) == (
        f"{path} was measured on another host or with another system file ({why}); move it away, "
        "and the next session records a new reference"
    )


@pytest.mark.parametrize(
    ("stored", "here"),
    [("0123456789ab", "0123456789ab"), ("0123456789ab", None), (None, "999999999999")],
    ids=["the same", "hardware that is not known yet", "values that hold on any"],
)
def test_a_baseline_of_hardware_that_is_no_other_is_read(
    stored: str | None, here: str | None, tmp_path: Path, p5_efa: System
) -> None:
    path = written(tmp_path, changed("/fingerprint", stored))
    assert load_baseline(path, system=p5_efa, fingerprint=here) is not None


MISTAKES: list[tuple[str, object, str]] = [
    *((f"/{key}", ..., f": /: {key!r} is a required property") for key in ("system", "suite")),
    (f"{CELL}/nights", ..., f": {CELL}: 'nights' is a required property"),
    (f"{NIGHT}/session", ..., f": {NIGHT}: 'session' is a required property"),
    (f"{NIGHT}/values", ..., f": {NIGHT}: 'values' is a required property"),
    *(
        (f"/{key}", [], f": /{key}: [] is not of type")
        for key in ("system", "host", "note", "cells")
    ),
    ("/schema_version", 4, ": /schema_version: 4, expected 1 or 2 or 3; use the pytest-pdserve"),
    ("/schema_version", "3", ": /schema_version: '3', expected 1 or 2 or 3"),
    ("/schema_version", True, ": /schema_version: True, expected 1 or 2 or 3"),
    ("/system", "", ": /system: '' should be non-empty"),
    ("/system", "h200", ": /system: 'h200', expected 'p5-efa'; move the file to where it belongs"),
    ("/suite", "latency", ": /suite: 'latency', expected 'sweep'; move the file to where it"),
    ("/approver", "", ": /approver: '' should be non-empty"),
    ("/accepted_on", "yesterday", ": /accepted_on: 'yesterday' does not match"),
    ("/note", "two\nlines", ": /note: 'two\\nlines' does not match"),
    ("/host/cpu", 7, ": /host/cpu: 7 is not of type 'string'"),
    ("/who", "me", "'who' was unexpected"),
    ("/sessions/0", FIRST, f": /sessions/0: {FIRST!r} is not of type 'object'"),
    ("/sessions/0/id", "", ": /sessions/0/id: '' should be non-empty"),
    ("/sessions/0/id", SECOND, f": /sessions: {SECOND!r} appears 2 times"),
    ("/sessions/0/started_at", "yesterday", ": /sessions/0/started_at: 'yesterday' is not a"),
    ("/sessions/0/started_at", "2026-02-30T22:00:00Z", ": /sessions/0/started_at: '2026-02-30T"),
    ("/sessions/0/simulated_night", "1", ": /sessions/0/simulated_night: '1' is not of type"),
    ("/sessions/0/versions/vllm", 0.15, ": /sessions/0/versions/vllm: 0.15 is not of type"),
    ("/sessions/1/nodes/0", "", ": /sessions/1/nodes/0: '' should be non-empty"),
    ("/cells/1p3d", 7, ": /cells/1p3d: 7 is not of type 'object'"),
    (CELL, {}, f": {CELL}: 'nights' is a required property"),
    (f"{CELL}/nights", [], f": {CELL}/nights: [] should be non-empty"),
    (f"{CELL}/counts/completed", -1, f": {CELL}/counts/completed: -1 is less than the minimum"),
    (f"{CELL}/counts/completed", True, f": {CELL}/counts/completed: True is not of type"),
    (
        f"{CELL}/counts/mean_itl_ms",
        1.0,
        f": {CELL}/counts/mean_itl_ms: mean_itl_ms is not a count; it belongs in the cell's values",
    ),
    (
        f"{CELL}/counts/done",
        4.0,
        f": {CELL}/counts/done: unknown metric 'done'; expected one of mean_ttft_ms, ",
    ),
    (f"{NIGHT}/starts", 0, f": {NIGHT}/starts: 0 is less than the minimum of 1"),
    (f"{NIGHT}/starts", 2.5, f": {NIGHT}/starts: 2.5 is not of type 'integer'"),
    (f"{NIGHT}/starts", True, f": {NIGHT}/starts: True is not of type 'integer'"),
    (f"{NIGHT}/slow", 1, "'slow' was unexpected"),
    (f"{NIGHT}/session", "other", f": {NIGHT}/session: 'other' is not one of /sessions"),
    (f"{NIGHT}/session", FIRST, f": {NIGHT}/session: {FIRST!r} appears twice in this cell"),
    (f"{NIGHT}/values", {}, f": {NIGHT}/values: {{}} should be non-empty"),
    (f"{NIGHT}/values/mean_ttft_ms", 0, f": {NIGHT}/values/mean_ttft_ms: 0 is less than or"),
    (f"{NIGHT}/values/mean_ttft_ms", -1.0, f": {NIGHT}/values/mean_ttft_ms: -1.0 is less than"),
    (f"{NIGHT}/values/mean_ttft_ms", "100", f": {NIGHT}/values/mean_ttft_ms: '100' is not of"),
    (f"{NIGHT}/values/mean_ttft_ms", None, f": {NIGHT}/values/mean_ttft_ms: None is not of type"),
    (f"{NIGHT}/values/mean_ttft_ms", True, f": {NIGHT}/values/mean_ttft_ms: True is not of type"),
    (f"{NIGHT}/values/mean_ttft_ms", 1e19, f": {NIGHT}/values/mean_ttft_ms: 1e+19 is greater"),
    (f"{NIGHT}/values/mean_ttft_ms", 10**400, f": {NIGHT}/values/mean_ttft_ms: 1000000"),
    (
        f"{NIGHT}/values/mean_tfft_ms",
        100.0,
        f": {NIGHT}/values/mean_tfft_ms: unknown metric 'mean_tfft_ms'; expected one of ",
    ),
    (
        f"{NIGHT}/values/failed",
        1.0,
        f": {NIGHT}/values/failed: failed is a count; it belongs in the cell's counts",
    ),
]


def told(pointer: str, value: object) -> str:
    tail = "/".join(pointer.split("/")[-2:])
    return f"{tail} {'dropped' if value is ... else repr(value)[:20]}"


@pytest.mark.parametrize(
    ("pointer", "value", "message"), MISTAKES, ids=[told(p, v) for p, v, _ in MISTAKES]
)
def test_a_mistake_is_named_with_its_file_and_place(
    tmp_path: Path, p5_efa: System, pointer: str, value: object, message: str
) -> None:
    path = written(tmp_path, changed(pointer, value))
    said = refusal(path, p5_efa)
    assert said.startswith(str(path))
    assert message in said
    assert len(said) < 1500


def test_what_is_read_is_what_was_written(tmp_path: Path, p5_efa: System) -> None:
    path = tmp_path / "own" / "sweep.json"
    baseline = replace(typical_baseline(), source=str(path))
    write_baseline(path, baseline)
    assert load_baseline(path, system=p5_efa) == baseline


def test_a_file_that_is_read_and_written_says_the_same(sound: Baseline) -> None:
    write_baseline(Path(sound.source), sound)
    assert json.loads(Path(sound.source).read_text()) == SOUND


WRITTEN = """\
{
 "schema_version": 3,
 "system": "p5-efa",
 "suite": "sweep",
 "fingerprint": "0123456789ab",
 "sessions": [
  {"id": "20261001T220000-p5-efa", "started_at": "2026-10-01T22:00:00.000Z", "versions": \
{"vllm": "0.15.1", "nixl": "0.10.1"}, "nodes": ["node0", "node1"]}
 ],
 "cells": {
  "1p3d": {
   "random-512-256-n4": {
    "counts": {
     "completed": 4.0,
     "failed": 0.0
    },
    "nights": [
     {"session": "20261001T220000-p5-efa", "starts": 3, "values": {"mean_ttft_ms": 100.0, \
"p99_ttft_ms": 180.0, "mean_itl_ms": 10.0, "output_throughput": 500.0}}
    ]
   }
  }
 }
}
"""


def test_a_file_has_one_line_for_each_night(tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    write_baseline(path, typical_baseline(1, cells=("1p3d",)))
    assert path.read_text() == WRITTEN


def test_cells_are_sorted_so_that_a_night_changes_few_lines(tmp_path: Path) -> None:
    cells = typical_baseline(cells=("route2", "dp", "1p3d"))
    path = tmp_path / "sweep.json"
    write_baseline(path, cells)
    assert list(json.loads(path.read_text())["cells"]) == ["1p3d", "dp", "route2"]


@pytest.mark.parametrize("note", ["@line 0@", "\\u00000", "0", '"0"'])
def test_no_note_is_taken_for_a_line(note: str, sound: Baseline, p5_efa: System) -> None:
    path = Path(sound.source)
    write_baseline(path, replace(sound, note=note))
    assert load_baseline(path, system=p5_efa) == replace(sound, note=note)


def test_what_no_file_can_hold_is_not_written(sound: Baseline) -> None:
    path = Path(sound.source)
    before = path.read_text()
    with pytest.raises(ConfigError, match=r"/note: 'two\\nlines' does not match"):
        write_baseline(path, replace(sound, note="two\nlines"))
    assert path.read_text() == before
