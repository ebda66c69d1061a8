"""Folders in which commands of the documentation's pages run: stored sessions and small systems."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import SESSION
from pytest_pdserve.results.store import SESSION_FILE
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sessions import StoredRef
from pytest_pdserve.values.workload import Workload
from tests.support.stored_nights import MakeRecord
from tests.support.stored_nights import Shelf
from tests.support.stored_nights import write_record
from tests.support.wheel import ROOT

FORMATS = ROOT / "tests" / "data" / "formats"
ARTICLE_LOAD = Workload(input_len=512, output_len=256, num_prompts=1024)
NOT_STARTED = """\
schema_version = 1
description = "machines on which nothing is started here"
[cluster]
kind = "local"
nodes = 4
gpus_per_node = 8
[model]
path = "grok-1"
"""


def system_file(folder: Path, name: str, text: str = NOT_STARTED) -> None:
    """Write a system of a project; one of the same name that the package has is not read."""
    path = folder / "baselines" / name / "system.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def simulated_file(folder: Path, name: str) -> None:
    """Write a simulated system with a sweep of two short cells."""
    tables: Mapping[str, Mapping[str, object]] = {
        "cluster": {"kind": "simulated", "nodes": 4, "gpus_per_node": 8},
        "model": {"path": "deepseek-ai/DeepSeek-V2-Lite"},
        "sweep": {"input_lens": [512, 1024], "output_lens": [256], "num_prompts": 64},
        "judgement": {"claims": "report"},
    }
    lines = ["schema_version = 1", 'description = "a short sweep"']
    for title, table in tables.items():
        lines += [f"[{title}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    system_file(folder, name, "\n".join(lines) + "\n")


def shelf_of_nights(folder: Path, make_record: MakeRecord) -> Shelf:
    """Make a project with nights of ``p5-efa``, one of them slow, and what else pages name."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    shelf = Shelf(folder=folder, make_record=make_record)
    shelf.baseline()
    shelf.session(17, versions={"vllm": "0.15.2", "nixl": "0.10.1"})
    shelf.nights(8, first=18)
    shelf.session(26, slower=0.3)
    shelf.session(28, repeats=3)
    shutil.copytree(shelf.runs, folder / "elsewhere" / "runs")
    simulated_file(folder, "simulated")
    for name in ("mine", "mi300x"):
        system_file(folder, name)
    for clock, system in (("075604", "simulated"), ("075630", "simulated"), ("075904", "mine")):
        _session_of(shelf, f"20261128T{clock}-{system}", system)
    _foreign_files(folder)
    return shelf


def _session_of(shelf: Shelf, run_id: str, system: str) -> None:
    clock = run_id[9:15]
    began = f"2026-11-28T{clock[:2]}:{clock[2:4]}:{clock[4:]}.000Z"
    session = SessionRef(id=run_id, started_at=began)
    path = shelf.runs / run_id / SESSION_FILE
    write_json(path, SESSION.dump(StoredRef(session=session, system=system), path))
    for start in range(2):
        record = shelf.make_record(
            session=session,
            system=system,
            simulated=system == "simulated",
            workload=ARTICLE_LOAD,
            repeat=start,
            start=start,
            started_at=began,
            requests=None,
            metrics={"completed": 1024.0},
            versions={"vllm": "0.15.0"},
        )
        write_record(shelf.runs / run_id, record)


def _foreign_files(folder: Path) -> None:
    for name in ("old.json", "new.json"):
        shutil.copy(FORMATS / "vllm_bench_serve_2026-07_plain.json", folder / name)
    for source in FORMATS.glob("vllm_bench_serve_20*"):
        shutil.copy(source, folder)
    sweep = folder / "sweep-folder" / "SERVE-1"
    sweep.mkdir(parents=True)
    shutil.copy(FORMATS / "vllm_bench_serve_2026-07_plain.json", sweep / "run=0.json")
    shutil.copy(ROOT / "tests/data/cases/import/concurrency/conc4.json", folder / "result.json")


def nightlies(folder: Path) -> None:
    """Write a CSV table of 22 nights of one workload, the last one 20 % slower."""
    lines = ["night,cell,start,run,metric,value,version"]
    for night in range(1, 23):
        day = f"2025-{'11' if night < 15 else '12'}-{night + 16 if night < 15 else night - 6:02}"
        rate = 1700 if night == 22 else 2040 + night % 5
        lines.append(f"{day},grok1-rate4,0,0,out_tok_s,{rate},0.11.{night}")
    (folder / "nightlies").mkdir()
    (folder / "nightlies" / "table.csv").write_text("\n".join(lines) + "\n")
