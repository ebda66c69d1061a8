"""Sessions side by side on one Slurm, and what others see of a session: few steps, no secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import House
from tests.support.house import wait_text
from tests.support.onehost import HOLD
from tests.support.onehost import OneHost
from tests.support.onehost import said

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm-b")]

LOOK = """
import json, subprocess, psutil
def test_look(pdserve_deployment):
    asked = ["squeue", "--noheader", "--steps", "--format=%j|%N"]
    said = subprocess.run(asked, capture_output=True, text=True).stdout
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    with open({path!r}, "w") as file:
        json.dump([pdserve_deployment.api_key, said.splitlines(), commands], file)
"""


WAIT = """
import time
from pathlib import Path
def test_wait(pdserve_deployment):
    until = time.monotonic() + 60
    while not Path({path!r}).exists() and time.monotonic() < until:
        time.sleep(0.05)
"""


def ports_of(record: dict[str, Any]) -> set[str]:
    words = [word for process in record["processes"] for word in process["argv"]]
    words += [value for process in record["processes"] for value in process["env"].values()]
    return {word for word in words if word.isdecimal() and 27000 <= int(word) < 30000}


@pytest.mark.slow
def test_two_sessions_run_and_a_third_waits(slurm_house: House, slurm: OneHost) -> None:
    go = slurm_house.path / "go"
    (slurm_house.path / "suites" / "test_wait.py").write_text(WAIT.format(path=str(go)))
    (slurm_house.path / "hold").mkdir()
    (slurm_house.path / "hold" / "test_hold.py").write_text(HOLD)

    def start(name: str, suite: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = slurm_house.path / f"{name}.log"
        command = [sys.executable, "-m", "pytest", suite, "--system=stub", "--topology=1p3d"]
        return slurm_house.spawn(command, log), log

    two = [start("first", "suites"), start("second", "suites")]
    for process, log in two:
        wait_text(process, log, "path proven")
    third, third_log = start("third", "hold")
    wait_text(third, third_log, ", 1 of 1 in pd): ")
    assert sorted(slurm.jobs("%T")) == ["PENDING", "RUNNING", "RUNNING"]
    go.touch()
    for process, log in [*two, (third, third_log)]:
        assert process.wait(60) == 0, log.read_text()
    records = slurm_house.records()
    assert len(list(slurm_house.runs.iterdir())) == 3
    first, second = records
    assert first["cluster"]["job_id"] != second["cluster"]["job_id"]
    assert set(first["nodes"]) & set(second["nodes"]) == set()
    assert ports_of(first)
    assert ports_of(first) & ports_of(second) == set()


@pytest.mark.slow
def test_others_see_few_steps_with_names_and_no_secret(slurm_house: House) -> None:
    path = slurm_house.path / "look.json"
    (slurm_house.path / "suites" / "test_look.py").write_text(LOOK.format(path=str(path)))
    text = said(slurm_house, "--topology", "1p3d")
    assert "2 passed" in text, text
    key, steps, commands = json.loads(path.read_text())
    path.unlink()

    named = dict(line.split("|") for line in steps)
    assert named.pop("prefill-0") == "pd[0-3]"
    assert named.pop("router") == "pd0"
    assert named == {"pdserve-holder": "pd[0-3]", "batch": "pd0"}

    assert len(key) >= 24
    assert any("--kv-transfer-config.kv_role" in command for command in commands)
    assert any(str(command[0]).endswith("srun") for command in commands if command)
    assert not any(key in word for command in commands for word in command)
    files = [path for path in slurm_house.path.rglob("*") if path.is_file()]
    assert any("submitit" in path.parts for path in files)
    assert [path for path in files if key.encode() in path.read_bytes()] == []
