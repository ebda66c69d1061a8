"""Baselines that are wrong: each is refused in a line, and none makes a bad run pass."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from pytest_pdserve.judge.stats import reference
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import record_envelopes
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.kinds import BASELINE
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.session.cell import Cell
from pytest_pdserve.session.session import Session
from pytest_pdserve.session.settings import Settings
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

MakeRecord = Callable[..., Record]
NIGHTS = 20
TOPOLOGIES = ("1p3d", "dp")
WORKLOADS = tuple(
    Workload(input_len=i, output_len=o, num_prompts=4)
    for i, o in ((512, 256), (512, 512), (1024, 256))
)
TYPICAL = {
    "mean_itl_ms": 10.0,
    "mean_ttft_ms": 100.0,
    "output_throughput": 500.0,
    "p99_ttft_ms": 180.0,
    "request_throughput": 2.0,
    "mean_tpot_ms": 11.0,
    "completed": 4.0,
    "failed": 0.0,
}
"""What a clean run shows; in this order the first three have values."""
KNOWN = "mean_tpot_ms"


def entry(name: str, scale: float, noise: Any) -> dict[str, Any]:
    metric = METRICS[name]
    ref = TYPICAL[name] * (1.0 if metric.better == "equal" else scale)
    made = {"ref": ref, "rtol": 0.0, "better": metric.better, "unit": metric.unit, "runs": NIGHTS}
    if name in tuple(TYPICAL)[:3]:
        values = [ref * math.exp(0.008 * float(step)) for step in noise]
        return {**made, "ref": reference(name, values), "rtol": metric.outer, "values": values}
    if name == KNOWN:
        return {**made, "ref": ref / 2, "rtol": 0.1, "known_issue": "vllm#1"}
    return made if metric.better == "equal" else {**made, "rtol": 0.1}


def sound() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    cells = itertools.product(TOPOLOGIES, WORKLOADS)
    of_topologies: dict[str, Any] = {topology: {} for topology in TOPOLOGIES}
    for number, (topology, workload) in enumerate(cells):
        noise = rng.standard_normal((len(TYPICAL), NIGHTS))
        scale = 1 + number / 4
        of_topologies[topology][workload.id] = {
            name: entry(name, scale, row) for name, row in zip(TYPICAL, noise, strict=True)
        }
    return {
        "schema_version": 2,
        "system": "p5-efa",
        "suite": "sweep",
        "provenance": {
            "date": "2026-08-14",
            "runs": [
                {
                    "id": f"202608{night + 1:02}T101500-p5-efa",
                    "started_at": f"2026-08-{night + 1:02}T10:15:00.000Z",
                }
                for night in range(NIGHTS)
            ],
            "fingerprint": None,
            "versions": {"vllm": "0.15.1", "nixl": "0.10.1"},
        },
        "cells": of_topologies,
    }


def of_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """The same file as version 1 had it."""
    old = {key: value for key, value in copy.deepcopy(data).items() if key != "cells"}
    old["provenance"]["runs"] = [run["id"] for run in old["provenance"]["runs"]]
    of_topologies = {
        topology: {workload.removesuffix("-n4"): cell for workload, cell in cells.items()}
        for topology, cells in data["cells"].items()
    }
    return {**old, "schema_version": 1, "topologies": of_topologies}


SOUND = sound()
OLD = of_version_1(SOUND)
CELL, OLD_CELL = "/cells/1p3d/random-512-256-n4", "/topologies/1p3d/random-512-256"
ITL, RATE, TAIL, FAILED = (
    f"{CELL}/{name}" for name in ("mean_itl_ms", "output_throughput", "p99_ttft_ms", "failed")
)
ISSUE = f"{CELL}/{KNOWN}"
RUNS = SOUND["provenance"]["runs"]


def at(data: Any, pointer: str) -> Any:
    for part in pointer.strip("/").split("/"):
        data = data[int(part) if isinstance(data, list) else part]
    return data


VALUES = at(SOUND, f"{ITL}/values")


def changed(*changes: tuple[str, Any], of: dict[str, Any] = SOUND) -> str:
    """The sound file with other values at some pointers; DROP (``...``) removes one."""
    data = copy.deepcopy(of)
    for pointer, value in changes:
        above, _, last = pointer.rpartition("/")
        place: Any = at(data, above) if above else data
        key: Any = int(last) if isinstance(place, list) else last
        if value is ...:
            del place[key]
        else:
            place[key] = value
    return json.dumps(data)


def literal(pointer: str, text: str) -> str:
    """The sound file with *text*, as it is, in place of a value."""
    return changed((pointer, "?here?")).replace('"?here?"', text)


TEXT = changed()
Wrong = dict[str, tuple[str | bytes, str]]
"""Name -> content of the file, and what is said of it."""


def renamed(pointer: str, name: str) -> str:
    above = pointer.rpartition("/")[0]
    return changed((f"{above}/{name}", at(SOUND, pointer)), (pointer, ...))


FILES: Wrong = {
    "empty": ("", "is no valid JSON"),
    "spaces": (" \n\n ", "is no valid JSON"),
    "truncated": (TEXT[: len(TEXT) // 2], "is no valid JSON"),
    "last brace lacks": (TEXT[:-1], "is no valid JSON"),
    "more behind": (f"{TEXT}{{}}", "Extra data"),
    "BOM": (b"\xef\xbb\xbf" + TEXT.encode(), "BOM"),
    "UTF-16": (TEXT.encode("utf-16"), "is not UTF-8 text: byte 0"),
    "binary": (bytes(range(256)), "is not UTF-8 text: byte 128"),
    "NUL bytes": (b"\0" * 99, "is no valid JSON"),
    "gzip": (b"\x1f\x8b\x08\0\0", "is not UTF-8 text"),
    "merge conflict": (f"<<<<<<< HEAD\n{TEXT}", "is no valid JSON"),
    "comment": (f"// by hand\n{TEXT}", "is no valid JSON"),
    "trailing comma": (f"{TEXT[:-1]},}}", "is no valid JSON"),
    "single quotes": (TEXT.replace('"', "'"), "is no valid JSON"),
    "deep list": ("[" * 99_999, "nested too deeply"),
    "deep object": ('{"a":' * 5000 + "1" + "}" * 5000, "nested too deeply"),
    "a list": (f"[{TEXT}]", ": /: "),
    "a string": ('"baseline"', ": /: 'baseline' is not of type 'object'"),
    "null": ("null", ": /: None is not of type 'object'"),
    "true": ("true", ": /: True is not of type 'object'"),
    "NaN ref": (literal(f"{ITL}/ref", "NaN"), "holds NaN"),
    "Infinity ref": (literal(f"{ITL}/ref", "Infinity"), "holds Infinity"),
    "-Infinity in values": (literal(f"{ITL}/values/3", "-Infinity"), "holds -Infinity"),
    "1e400 rtol": (literal(f"{TAIL}/rtol", "1e400"), "holds 1e400"),
    "-1e400 ref": (literal(f"{TAIL}/ref", "-1e400"), "holds -1e400"),
    "hexadecimal ref": (literal(f"{TAIL}/ref", "0x10"), "is no valid JSON"),
    "leading zero": (literal(f"{TAIL}/ref", "0180.0"), "is no valid JSON"),
    "5000 digits": (literal(f"{TAIL}/ref", "9" * 5000), "is no valid JSON"),
    "metric twice": (
        TEXT.replace('"mean_ttft_ms"', '"mean_itl_ms"', 1),
        "has the key 'mean_itl_ms' twice",
    ),
    "ref twice": (TEXT.replace('"ref"', '"ref": 1.0, "ref"', 1), "has the key 'ref' twice"),
    "system twice": ('{"system": "x",' + TEXT[1:], "has the key 'system' twice"),
    "topology twice": (TEXT.replace('"dp": {', '"1p3d": {'), "has the key '1p3d' twice"),
}
ELSEWHERE = "use the pytest-pdserve that wrote it, or move it away"
VERSIONS: Wrong = {
    **{
        f"schema_version {value!r}": (
            changed(("/schema_version", value)),
            f": /schema_version: {value!r}, expected 1 or 2; {ELSEWHERE}",
        )
        for value in (0, 3, -1, "1", "2", 1.5, None, True, [1], {"": 1}, 10**30)
    },
    "schema_version 1.0": (
        literal("/schema_version", "1.0"),
        f": 1.0, expected 1 or 2; {ELSEWHERE}",
    ),
    "schema_version 2.0": (
        literal("/schema_version", "2.0"),
        f": 2.0, expected 1 or 2; {ELSEWHERE}",
    ),
    "schema_version lacks": (
        changed(("/schema_version", ...)),
        ": /: 'schema_version' is a required property; expected 2",
    ),
    "schema_version 1 of what is not": (
        changed(("/schema_version", 1)),
        ": does not have the form of a baseline of schema version 1; ",
    ),
}
OF_ANY_TYPE: dict[str, tuple[Any, ...]] = {
    "/system": (None, 7, "", [], {}, True, "p5\n", "\ud800", "a\x1b[31m", "\u2028"),
    "/suite": (None, 7, "", [], True, "swe\tep"),
    "/provenance": (None, [], "", 1, {}),
    "/provenance/date": (
        *(None, 20260814, "", "14.08.2026", "2026-08-14\n", "2026-13-01"),
        "\uff12\uff10\uff12\uff16-08-14",
    ),
    "/provenance/runs": (None, [], {}, "run", [1], [None], ["run"], [*RUNS[:-1], RUNS[0]]),
    "/provenance/runs/0": (None, 7, "run", [], {}, {**RUNS[0], "id": RUNS[1]["id"]}),
    "/provenance/runs/0/id": (None, 7, "", [], "a\nb", "\ud800"),
    "/provenance/runs/0/started_at": (
        *(7, "", [], "yesterday", "2026-08-01", "2026-08-01T10:15:00", "2026-08-01T10:15:00+01:00"),
        *("2026-13-01T10:15:00Z", "2026-02-30T10:15:00Z", "2026-08-01T25:15:00Z"),
        *("2026-08-01T10:15:00Z\n", "\uff12\uff10\uff12\uff16-08-01T10:15:00Z"),
    ),
    "/provenance/runs/0/simulated_night": ("1", 1.5, True, [], 10**300),
    "/provenance/fingerprint": (7, [], True, "", "a\nb"),
    "/provenance/versions": (None, [], "0.15.1", {"vllm": 0.15}, {"a\nb": "1"}, {"vllm": "\udfff"}),
    "/cells": (None, [], "1p3d", 1, True),
    "/cells/1p3d": (None, [], 1, "x"),
    CELL: (None, [], 1, "x", {}),
    ITL: (None, [], 1.0, "x", {}),
    f"{TAIL}/ref": (None, "180", [180.0], {}, True, False, -1.0, 0, 0.0, -0.0, 1e19, 10**300),
    f"{TAIL}/rtol": (None, "0.1", True, -0.1, -1e-300, 10.1, 1e300, 10**300),
    f"{CELL}/request_throughput/rtol": (1, 1.0, 1.5, 10),
    f"{TAIL}/better": (None, True, 1, "", "Lower", "higher", "equal", "lower "),
    f"{TAIL}/unit": (None, 1, "", "s", "MS", "ms ", "tok/s"),
    f"{TAIL}/runs": (None, "20", True, 0, -1, 2.5, 10**300, []),
    f"{ISSUE}/known_issue": ("", 1, True, [], "a\nb", "\ud800"),
    f"{RATE}/better": ("lower",),
    f"{RATE}/rtol": (0.6, 1.0),
    f"{ITL}/rtol": (1.1, 9.0),
    f"{ITL}/ref": (9.0, 11.0, 1e-9, 1e17, True),
    f"{ITL}/runs": (1, 19, 21, True),
    f"{ITL}/known_issue": ("vllm#1",),
    f"{FAILED}/rtol": (0.1, 1e-12),
    f"{FAILED}/ref": (-1, None, False),
    f"{FAILED}/better": ("lower",),
    f"{FAILED}/values": ([1.0] * NIGHTS,),
}
LENGTHS: dict[str, Any] = {
    "empty": [],
    "a number": 10.0,
    "nulls alone": [None] * NIGHTS,
    "one short": VALUES[:-1],
    "one more": [*VALUES, VALUES[0]],
    "one null more": [*VALUES, None],
    "one null": [*VALUES[:-1], None],
    "true": [*VALUES[:-1], True],
    "a string": [*VALUES[:-1], "10"],
    "a list": [*VALUES[:-1], [10.0]],
    "zero": [*VALUES[:-1], 0],
    "negative": [*VALUES[:-1], -10.0],
    "huge": [*VALUES[:-1], 1e19],
    "huge integer": [*VALUES[:-1], 10**300],
    "of another unit": [value / 1000 for value in VALUES],
    "of another cell": at(SOUND, "/cells/dp/random-512-256-n4/mean_itl_ms/values"),
    "constant": [1.0] * NIGHTS,
    "tiny": [5e-324] * NIGHTS,
}
PLACES: Wrong = {
    **{
        f"{pointer} = {value!r:.30}": (changed((pointer, value)), f": {pointer}")
        for pointer, values in OF_ANY_TYPE.items()
        for value in values
    },
    **{
        f"values: {name}": (changed((f"{ITL}/values", values)), f": {ITL}/")
        for name, values in LENGTHS.items()
    },
    **{
        f"{pointer} lacks": (
            changed((pointer, ...)),
            f"{pointer.rpartition('/')[0] or '/'}: '{pointer.rpartition('/')[2]}' is a required",
        )
        for pointer in (
            *(f"/{key}" for key in SOUND if key != "schema_version"),
            *(f"/provenance/{key}" for key in SOUND["provenance"]),
            *(f"{ITL}/{key}" for key in at(SOUND, ITL) if key != "values"),
        )
    },
    **{
        f"{pointer}/{key} is one too many": (
            changed((f"{pointer}/{key}", 1)),
            f": {pointer or '/'}",
        )
        for pointer in ("", "/provenance", ITL)
        for key in ("", "atol", "Ref", "schema_version ", "\ud800", "a\nb")
    },
    **{
        f"metric {name!r}": (renamed(ITL, name), CELL)
        for name in (
            "mean_itl",
            "MEAN_ITL_MS",
            "mean_itl_ms ",
            "",
            "mean_itl_ms\n",
            "\uff4dean_itl_ms",
        )
    },
    **{
        f"metric is now {name}": (renamed(ITL, name), f": {CELL}/{name}/")
        for name in ("total_token_throughput", "kv_transfers")
    },
    "runs of provenance one short": (changed(("/provenance/runs", RUNS[:-1])), f": {ITL}/values"),
    "topology with a line end": (renamed("/cells/dp", "dp\n"), ": /cells: "),
    "topology of a surrogate": (renamed("/cells/dp", "\ud800"), ": /cells: "),
    "workload with a line end": (renamed(CELL, "random\n512"), ": /cells/1p3d: "),
    "empty topology name": (renamed("/cells/dp", ""), ": /cells: "),
    "two mistakes": (changed((f"{ITL}/ref", None), (f"{RATE}/unit", 3)), f": {CELL}/"),
}
WRONG = {**FILES, **VERSIONS, **PLACES}


def load(path: Path, system: System, suite: str = "sweep") -> Baseline | None:
    return load_baseline(path, system=system, suite=suite)


def refusal(path: Path, system: System, suite: str = "sweep") -> str:
    with pytest.raises(ConfigError) as refused:
        load(path, system, suite)
    return in_a_line(refused.value, path)


def in_a_line(error: ConfigError, path: Path) -> str:
    said = str(error)
    assert said.startswith(str(path))
    assert len(said.splitlines()) == 1
    assert len(said) < 1500
    said.encode()
    return said


@pytest.mark.parametrize(("content", "said"), WRONG.values(), ids=map(ascii, WRONG))
def test_a_corrupt_baseline_is_refused_in_a_line(
    content: str | bytes, said: str, tmp_path: Path, p5_efa: System
) -> None:
    path = tmp_path / "sweep.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert said in refusal(path, p5_efa)


def test_there_are_more_than_fifty_and_the_file_itself_is_sound(
    tmp_path: Path, p5_efa: System
) -> None:
    assert len(WRONG) > 150
    path = tmp_path / "sweep.json"
    path.write_text(TEXT)
    baseline = load(path, p5_efa)
    assert baseline is not None
    assert BASELINE.dump(baseline, path) == SOUND


def test_a_file_of_version_1_says_the_same_of_a_system_whose_sweep_it_was(
    tmp_path: Path, p5_efa: System
) -> None:
    small = replace(p5_efa, sweep=replace(p5_efa.sweep, num_prompts=4))
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(OLD))
    baseline = load(path, small)
    assert baseline is not None
    assert BASELINE.dump(baseline, path) == SOUND


@pytest.mark.parametrize(
    "pointer", [f"{ITL}/values", f"{ISSUE}/known_issue", "/provenance/note", "/provenance/approver"]
)
def test_null_says_the_same_as_a_key_that_lacks(
    pointer: str, tmp_path: Path, p5_efa: System
) -> None:
    path = tmp_path / "sweep.json"
    path.write_text(changed((pointer, None)))
    read = load(path, p5_efa)
    path.write_text(changed((pointer, None), (pointer, ...)))
    assert read == load(path, p5_efa)


def test_a_folder_in_its_place_is_refused(tmp_path: Path, p5_efa: System) -> None:
    (tmp_path / "sweep.json").mkdir()
    assert "Is a directory" in refusal(tmp_path / "sweep.json", p5_efa)


@pytest.mark.parametrize(
    ("system", "suite", "said"),
    [
        ("h200-ib", "sweep", "/system: is of 'p5-efa', but 'h200-ib' is judged by it"),
        ("p5-efa", "latency", "/suite: is of 'sweep', but 'latency' is judged by it"),
    ],
)
def test_a_baseline_of_another_system_or_suite_is_refused(
    system: str, suite: str, said: str, tmp_path: Path, p5_efa: System
) -> None:
    path = tmp_path / "sweep.json"
    path.write_text(TEXT)
    assert said in refusal(path, replace(p5_efa, name=system), suite)


def test_nothing_is_recorded_into_the_file_of_another_system(
    tmp_path: Path, p5_efa: System, make_record: MakeRecord
) -> None:
    path = tmp_path / "sweep.json"
    path.write_text(changed(("/system", "h200-ib")))
    with pytest.raises(ConfigError, match="/system: is of 'h200-ib', but 'p5-efa'"):
        record_envelopes([make_record()], p5_efa, path=path, suite="sweep", names=list(TYPICAL))


# A baseline that was changed at random never makes a bad run pass.

CellOf = Callable[[Path, float, float], Cell]


@pytest.fixture
def cell_of(make_record: MakeRecord) -> CellOf:
    """A factory of the cell 1p3d, random-512-256, so many times worse, with so many failures."""

    def make(folder: Path, worse: float, failed: float) -> Cell:
        factor = {"lower": worse, "higher": 1 / worse, "equal": 1.0}
        metrics = {
            name: value * (1.0 if name == KNOWN and worse == 1 else factor[METRICS[name].better])
            for name, value in TYPICAL.items()
        }
        record = make_record({**metrics, "failed": failed})
        return Cell(records=(record,), paths=(folder / "record.json",))

    return make


def judged(folder: Path, system: System, content: str, cell: Cell) -> Verdict:
    source = folder / "baselines" / "p5-efa" / "system.toml"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.with_name("sweep.json").write_text(content)
    judgement = replace(system.judgement, host_envelopes=False, rtol={})
    system = replace(system, source=str(source), judgement=judgement)
    session = Session(
        settings=Settings(
            topologies=(Topology.parse("1p3d"),),
            system=system,
            folders=(),
            runs=folder / "runs",
            repeats=1,
            record=False,
            strict=False,
            rootdir=folder,
        ),
        system=system,
        store=RunStore(folder=folder / "runs" / "tonight", session=SessionRef(id="tonight")),
        provenance=Provenance(versions={}, host={}, fingerprint="here"),
        state=folder / "state",
    )
    return session.judge(cell)


def metrics_in(verdict: Verdict) -> set[str]:
    return {miss.partition(" ")[0].rstrip(":") for miss in verdict.misses}


def test_the_sound_baseline_passes_good_runs_and_names_every_bad_metric(
    tmp_path: Path, p5_efa: System, cell_of: CellOf
) -> None:
    good = judged(tmp_path, p5_efa, TEXT, cell_of(tmp_path, 1.0, 0.0))
    assert (good.status, good.misses) == ("PASS", ())
    bad = judged(tmp_path, p5_efa, TEXT, cell_of(tmp_path, 10.0, 1.0))
    assert bad.status == "FAIL"
    assert metrics_in(bad) == set(TYPICAL) - {KNOWN, "completed"}


def pointers(data: Any, above: str = "") -> Iterator[str]:
    items: Any = ()
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list):
        items = enumerate(data)
    for key, value in items:
        yield f"{above}/{key}"
        yield from pointers(value, f"{above}/{key}")


NUMBERS = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.sampled_from([0, 1, 1e-300, 1e18, 10**30])
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
Changes = list[tuple[str, Any]]


def changes_of(data: dict[str, Any], cell: str) -> st.SearchStrategy[Changes]:
    everywhere = tuple(pointers(data))
    # Half of the changes in the cell that is judged, where they may do harm.
    there = tuple(pointer for pointer in everywhere if pointer.startswith(cell))
    above = tuple(pointer for pointer in everywhere if pointer.count("/") < 5)
    place = st.one_of(st.sampled_from(there), st.sampled_from(above), st.sampled_from(everywhere))
    return st.one_of(
        place.map(lambda place: [(place, ...)]),
        st.tuples(place, JSON).map(lambda change: [change]),
        st.tuples(place, st.sampled_from(everywhere)).map(
            lambda p: [(p[0], at(data, p[1]))],
        ),
        st.tuples(place, place)
        .filter(lambda p: not f"{p[0]}/".startswith(f"{p[1]}/"))
        .filter(lambda p: not f"{p[1]}/".startswith(f"{p[0]}/"))
        .map(lambda p: [(p[0], at(data, p[1])), (p[1], at(data, p[0]))]),
    )


TENFOLD = {"lower": 9.0, "higher": 0.9, "equal": 0.0}
"""Room that admits what is ten times worse; no count has any."""


def still_expected(content: str, cell: str) -> set[str]:
    """Metrics of the judged cell whose reference is there, with less room than the bad run needs.

    So a metric whose values alone were removed counts: its limit must find the run.
    """
    try:
        now = at(json.loads(content), cell)
    except (KeyError, TypeError):
        return set()
    return {
        name
        for name, said in at(SOUND, CELL).items()
        if name in now
        and now[name]["ref"] == said["ref"]
        and now[name]["rtol"] <= TENFOLD[said["better"]] * 0.99
        and now[name].get("known_issue") is None
    }


def times_named(content: str, cell: str) -> set[str]:
    """Times that the file has a reference for in the judged cell."""
    try:
        return set(at(json.loads(content), cell)).intersection(METRICS.times)
    except (KeyError, TypeError):
        return set()


def must_fail_a_bad_run(
    folder: Path, system: System, content: str, bad: Cell, *, expects: str
) -> None:
    """Check that the file is refused, or that the bad run misses every metric it still names.

    Where it names no time of the cell, the run is NEW.

    :param expects: where in the file the judged cell is.
    """
    try:
        verdict = judged(folder, system, content, bad)
    except ConfigError as error:
        in_a_line(error, folder / "baselines" / "p5-efa" / "sweep.json")
        return
    if verdict.status == "NEW":
        assert times_named(content, expects) == set()
        return
    assert verdict.status == "FAIL"
    assert still_expected(content, expects) - {"completed"} <= metrics_in(verdict)
    verdict.message.encode()


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes_of(SOUND, CELL))
def test_no_change_of_the_file_lets_a_bad_run_pass(
    tmp_path: Path, p5_efa: System, cell_of: CellOf, changes: Changes
) -> None:
    bad = cell_of(tmp_path, 10.0, 1.0)
    must_fail_a_bad_run(tmp_path, p5_efa, changed(*changes), bad, expects=CELL)


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes_of(OLD, OLD_CELL))
def test_no_change_of_a_file_of_version_1_lets_a_bad_run_pass(
    tmp_path: Path, p5_efa: System, cell_of: CellOf, changes: Changes
) -> None:
    small = replace(p5_efa, sweep=replace(p5_efa.sweep, num_prompts=4))
    bad = cell_of(tmp_path, 10.0, 1.0)
    must_fail_a_bad_run(tmp_path, small, changed(*changes, of=OLD), bad, expects=OLD_CELL)


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=30), st.integers(0, len(TEXT) - 1))
def test_bytes_written_over_the_file_are_refused_or_read(
    tmp_path: Path, p5_efa: System, junk: bytes, place: int
) -> None:
    path = tmp_path / "sweep.json"
    content = TEXT.encode()
    path.write_bytes(content[:place] + junk + content[place + len(junk) :])
    try:
        load(path, p5_efa)
    except ConfigError as error:
        in_a_line(error, path)
