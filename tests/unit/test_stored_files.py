"""Stored files: schemas follow from the values, and every version that was ever written is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.commands.schemas import schemas
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import write_baseline
from pytest_pdserve.results.history import session_of
from pytest_pdserve.results.history import starts_of
from pytest_pdserve.results.kinds import BASELINE
from pytest_pdserve.results.kinds import KINDS
from pytest_pdserve.results.kinds import RECORD
from pytest_pdserve.results.kinds import SYSTEM
from pytest_pdserve.results.kinds import Kind
from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import UNKNOWN

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "pytest_pdserve" / "results" / "schema"
VERSIONS = Path(__file__).parent / "data" / "versions"
MakeRecord = Callable[..., Record]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_schema_in_the_repository_is_the_generated_one(kind: Kind[Any]) -> None:
    stored = json.loads((SCHEMAS / f"{kind.name}.schema.json").read_text())
    assert stored == schemas()[kind.name], "run `make schemas`"


@pytest.mark.parametrize("table", ["slurm", "preflight", "simulation", "attached"])
def test_the_schema_of_system_files_has_the_tables_of_the_packages_backends(table: str) -> None:
    schema = schemas()["system"]
    assert schema["properties"][table]["$ref"].removeprefix("#/$defs/") in schema["$defs"]
    assert table not in SYSTEM.schema()["properties"]


def test_there_is_no_schema_that_no_kind_has() -> None:
    found = {path.name for path in SCHEMAS.glob("*.json")}
    assert found == {f"{kind.name}.schema.json" for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_one_file_of_every_version_is_kept(kind: Kind[Any]) -> None:
    kept = {path.name for path in VERSIONS.glob(f"{kind.name}-*.json")}
    for version in kind.migrations:
        assert any(name.startswith(f"{kind.name}-{version}") for name in kept)


def test_a_simulated_record_of_version_1_is_read() -> None:
    record = load_record(VERSIONS / "record-1-simulated.json")
    old = json.loads((VERSIONS / "record-1-simulated.json").read_text())
    assert record.session.id == "20261127T091715-simulated"
    assert record.session.started_at == "2026-11-27T09:17:15.000Z"
    assert record.session.simulated_night == 0
    assert record.start is None
    assert record.workload.id == "random-512-512-n1024"
    assert {n: v for n, v in record.metrics.items() if not n.startswith("p50")} == {
        name: value
        for name, value in old["metrics"].items()
        if not name.startswith(("median", "p50"))
    }
    assert record.metrics["p50_ttft_ms"] == old["metrics"]["median_ttft_ms"]
    assert not any(name.startswith("median") for name in record.metrics)


def test_a_measured_record_of_version_1_is_read() -> None:
    record = load_record(VERSIONS / "record-1-measured.json")
    assert record.system == "local-cpu"
    assert record.workload.id == "random-32-16-n16-c4"
    assert record.start == 0
    assert record.processes[0].env["OMP_NUM_THREADS"] == "1"
    assert record.served[0].role == "prefill"
    assert record.value("kv_transfers") == 16


@pytest.mark.parametrize(
    ("log", "start"),
    [("1p3d/logs/a.log", 0), ("1p3d/logs-2/a.log", 1), ("1p3d/logs-12/a.log", 11)],
)
def test_the_log_folder_of_version_1_tells_the_start(log: str, start: int) -> None:
    old = json.loads((VERSIONS / "record-1-measured.json").read_text())
    old["processes"][0]["log"] = log
    assert RECORD.parse(old, "r.json").start == start


def test_an_imported_record_of_version_1_has_unknown_options() -> None:
    old = json.loads((VERSIONS / "record-1-measured.json").read_text())
    old["host"] = {"imported_from": "x.json"}
    workload = RECORD.parse(old, "r.json").workload
    assert (workload.options, workload.burstiness) == (UNKNOWN, UNKNOWN)
    assert workload.id == "random-32-16-n16-burst-unknown-c4+unknown"


def test_an_insane_finding_of_version_1_is_invalid() -> None:
    old = json.loads((VERSIONS / "record-1-measured.json").read_text())
    old["findings"] = [{"check": "tokens", "severity": "insane", "message": "m", "voids": []}]
    assert [f.severity for f in RECORD.parse(old, "r.json").findings] == ["invalid"]


def test_a_run_folder_of_version_1_is_told_by_its_first_record(tmp_path: Path) -> None:
    old = json.loads((VERSIONS / "record-1-measured.json").read_text())
    folder = tmp_path / old["run_id"]
    (folder / "1p3d").mkdir(parents=True)
    (folder / "1p3d" / "random-32-16.0.json").write_text(json.dumps(old))
    (folder / "1p3d" / "random-32-16.0.bench.json").write_text("{}")
    found = session_of(folder)
    assert found is not None
    assert (found.system, found.session.id) == ("local-cpu", old["run_id"])


def test_a_baseline_of_version_1_is_read(tmp_path: Path, local_cpu: System) -> None:
    old = json.loads((VERSIONS / "baseline-1.json").read_text())
    cell = old["topologies"]["1p3d"]["random-128-16"]
    cell["median_ttft_ms"] = {"ref": 90.0, "rtol": 0.1, "better": "lower", "unit": "ms", "runs": 1}
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(old))
    baseline = load_baseline(path, system=local_cpu)
    assert baseline is not None
    night = Night(session="20261123T135218-local-cpu", values={"p50_ttft_ms": 90.0})
    counts = {name: each["ref"] for name, each in cell.items() if each["better"] == "equal"}
    assert baseline.cells == {
        "1p3d": {"random-128-16-n16-c4": CellBaseline(counts=counts, nights=(night,))}
    }
    assert [each.started_at for each in baseline.sessions] == ["2026-11-23T13:52:18.000Z"]


def test_a_baseline_of_version_1_that_has_counts_alone_has_no_cell(local_cpu: System) -> None:
    baseline = load_baseline(VERSIONS / "baseline-1.json", system=local_cpu)
    assert baseline is not None
    assert baseline.keys == ()


@pytest.fixture
def of_version_2(p5_efa: System) -> Baseline:
    """Two cells: ``dp`` was measured in three nights, ``1p3d`` in the first two of them."""
    baseline = load_baseline(VERSIONS / "baseline-2.json", system=p5_efa)
    assert baseline is not None
    return baseline


WORKLOAD = "random-512-256-n4"


def test_a_baseline_of_version_2_keeps_the_values_of_its_nights(of_version_2: Baseline) -> None:
    old = json.loads((VERSIONS / "baseline-2.json").read_text())
    for topology in ("1p3d", "dp"):
        cell = of_version_2.cells[topology][WORKLOAD]
        for name in ("mean_itl_ms", "mean_ttft_ms", "output_throughput"):
            values = old["cells"][topology][WORKLOAD][name]["values"]
            assert cell.values(name) == tuple(value for value in values if value is not None)
        assert cell.counts == {"completed": 4.0, "failed": 0.0}


def test_a_limit_of_version_2_without_values_is_a_night_of_the_last_session(
    of_version_2: Baseline,
) -> None:
    last = of_version_2.cells["1p3d"][WORKLOAD].nights[-1]
    assert last == Night(
        session="20261103T220000-p5-efa", values={"p99_ttft_ms": 179.97977091842466}
    )


def test_a_baseline_of_version_2_keeps_who_accepted_it_and_where_it_is_from(
    of_version_2: Baseline,
) -> None:
    assert (of_version_2.approver, of_version_2.accepted_on) == ("Ada", "2026-11-27")
    assert of_version_2.note == "first nights on 0.15.1"
    assert (of_version_2.fingerprint, of_version_2.host) == ("0123456789ab", {"cpu": "Xeon"})
    assert of_version_2.newest == Source(
        id="20261103T220000-p5-efa",
        started_at="2026-11-03T22:00:00.000Z",
        versions={"vllm": "0.15.1", "nixl": "0.10.1"},
        nodes=("node0", "node1"),
    )


def test_a_baseline_of_version_2_that_nobody_accepted_has_no_day_of_acceptance(
    p5_efa: System, tmp_path: Path
) -> None:
    old = json.loads((VERSIONS / "baseline-2.json").read_text())
    del old["provenance"]["approver"]
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(old))
    baseline = load_baseline(path, system=p5_efa)
    assert baseline is not None
    assert (baseline.approver, baseline.accepted_on) == (None, None)


def test_a_baseline_of_an_older_version_is_written_in_todays(
    of_version_2: Baseline, p5_efa: System, tmp_path: Path
) -> None:
    written = tmp_path / "sweep.json"
    write_baseline(written, of_version_2)
    assert json.loads(written.read_text())["schema_version"] == 3
    again = load_baseline(written, system=p5_efa)
    assert again == replace(of_version_2, source=str(written))


@pytest.mark.parametrize(
    "torn",
    ["provenance", "provenance/runs", "cells", f"cells/dp/{WORKLOAD}/mean_itl_ms/better"],
)
def test_what_is_no_baseline_of_version_2_is_one_sentence(torn: str, p5_efa: System) -> None:
    data = json.loads((VERSIONS / "baseline-2.json").read_text())
    place = data
    *above, last = torn.split("/")
    for part in above:
        place = place[part]
    del place[last]
    with pytest.raises(ConfigError) as caught:
        BASELINE.parse(data, "sweep.json", given=p5_efa, source="sweep.json")
    assert str(caught.value) == (
        "sweep.json: does not have the form of a baseline of schema version 2; use the "
        "pytest-pdserve that wrote it, or move it away: the next session records a new reference"
    )


def test_a_value_of_version_2_that_is_wrong_is_named_as_todays_version_reads_it(
    p5_efa: System,
) -> None:
    data = json.loads((VERSIONS / "baseline-2.json").read_text())
    data["cells"]["dp"][WORKLOAD]["mean_itl_ms"]["values"][1] = -1.0
    with pytest.raises(ConfigError) as caught:
        BASELINE.parse(data, "sweep.json", given=p5_efa, source="sweep.json")
    assert str(caught.value) == (
        f"sweep.json: /cells/dp/{WORKLOAD}/nights/1/values/mean_itl_ms: -1.0 is less than or "
        "equal to the minimum of 0 (as read from schema version 2)"
    )


def test_a_cell_of_version_1_that_the_sweep_does_not_have_is_refused(
    tmp_path: Path, local_cpu: System
) -> None:
    old = json.loads((VERSIONS / "baseline-1.json").read_text())
    old["topologies"]["1p3d"]["random-99-16"] = old["topologies"]["1p3d"]["random-128-16"]
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(old))
    with pytest.raises(ConfigError) as caught:
        load_baseline(path, system=local_cpu)
    assert str(caught.value) == (
        f"{path}: /topologies/1p3d/random-99-16: schema version 1 does not say how many prompts "
        "it had, and the sweep of the system file has no cell of this name; remove it from the "
        "file, or put it back into [sweep]"
    )


@pytest.mark.parametrize("torn", ["processes", "host", "workload", "run_id"])
def test_what_is_no_record_of_version_1_is_one_sentence(torn: str) -> None:
    old = json.loads((VERSIONS / "record-1-measured.json").read_text())
    del old[torn]
    with pytest.raises(ConfigError) as caught:
        RECORD.parse(old, "r.json")
    form = "r.json: does not have the form of a run record of schema version 1"
    assert str(caught.value).startswith(form)


@pytest.mark.parametrize("version", [0, 3, "2", True, [], 2.0])
def test_a_version_that_nobody_wrote_is_refused(make_record: MakeRecord, version: object) -> None:
    data = {**RECORD.dump(make_record(), "r.json"), "schema_version": version}
    with pytest.raises(ConfigError) as caught:
        RECORD.parse(data, "r.json")
    assert str(caught.value) == (
        f"r.json: /schema_version: {version!r}, expected 1 or 2; use the pytest-pdserve that "
        "wrote it"
    )


def test_a_record_is_what_was_written(make_record: MakeRecord) -> None:
    record = make_record()
    assert RECORD.parse(RECORD.dump(record, "r.json"), "r.json") == record


def test_a_value_that_no_file_can_hold_is_one_sentence(make_record: MakeRecord) -> None:
    with pytest.raises(ConfigError, match=r"^r.json: "):
        RECORD.dump(make_record({"mean_ttft_ms": float("inf")}), "r.json")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"cluster": {"nodes": 0}}, "/cluster/nodes: 0 is less than the minimum of 1"),
        ({"cluster": {"nodes": "4"}}, "/cluster/nodes: '4' is not of type 'integer'"),
        ({"cluster": {"kind": ""}}, "/cluster/kind: '' should be non-empty"),
        ({"sweep": {"input_lens": []}}, "/sweep/input_lens: [] should be non-empty"),
        ({"sweep": {"input_lens": [0]}}, "/sweep/input_lens/0: 0 is less than the minimum of 1"),
        ({"sweep": {"num_prompts": 1.5}}, "/sweep/num_prompts: 1.5 is not of type 'integer'"),
        ({"tensor_parallel": 0}, "/tensor_parallel: 0 is less than the minimum of 1"),
        ({"nonsense": 1}, "/: Additional properties are not allowed ('nonsense' was unexpected)"),
    ],
)
def test_a_mistake_in_a_system_file_is_named_by_its_place(table: Any, said: str) -> None:
    data: dict[str, Any] = {
        "schema_version": 1,
        "description": "d",
        "cluster": {"kind": "local", "nodes": 4, "gpus_per_node": 1},
        "model": {"path": "m"},
    }
    for key, value in table.items():
        own = data.get(key, {})
        data[key] = {**own, **value} if isinstance(value, dict) else value
    with pytest.raises(ConfigError) as caught:
        SYSTEM.parse(data, "system.toml", name="s", source="system.toml")
    assert str(caught.value).startswith(f"system.toml: {said}")


def test_runs_whose_start_nobody_knows_are_a_start_each(make_record: MakeRecord) -> None:
    runs = [make_record(start=start) for start in (0, 0, 1, None, None)]
    assert [len(each) for each in starts_of(runs)] == [2, 1, 1, 1]
