"""RDMA interfaces in a session: a folder stands for ``/sys``, a program for ``fi_info``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_pdserve.backends.hosts import efa
from tests.support.house import House

FI_INFO = """\
provider: efa
    fabric: efa
    domain: rdmap0s6-rdm
    version: 122.0
    type: FI_EP_RDM
"""
LINE = "efa efa rdmap0s6-rdm 122.0 FI_EP_RDM"


@pytest.fixture
def fi_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in program, first on PATH, that lists one endpoint of the provider ``efa``."""
    program = tmp_path / "bin" / "fi_info"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n[ \"$*\" = '-p efa' ] || exit 61\ncat <<'END'\n{FI_INFO}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return program


def test_endpoints_are_what_fi_info_lists_of_the_provider(fi_info: Path) -> None:
    assert efa.list_endpoints("efa") == [LINE]
    assert efa.list_endpoints("tcp") == []
    fi_info.unlink()
    assert efa.list_endpoints("efa") == []


def test_the_script_of_a_node_runs_by_itself() -> None:
    said = subprocess.run(
        [sys.executable, "-I", "-S", str(efa.__file__)], capture_output=True, text=True, check=True
    )
    assert set(json.loads(said.stdout.splitlines()[-1])) == {"counters", "endpoints"}


def test_packets_dropped_during_a_cell_are_a_note_and_in_its_record(
    house: House, fi_info: Path
) -> None:
    counters = house.path / "sys/class/infiniband/rdmap0s6/ports/1/hw_counters"
    counters.mkdir(parents=True)
    for name in ("rx_drops", "retrans_pkts", "rx_bytes"):
        (counters / name).write_text("5\n")
    client = Path(house.programs["vllm"])
    first, rest = client.read_text().split("\n", 1)
    rise = f'echo 12 > "{counters}/rx_drops"; echo 1005 > "{counters}/rx_bytes"'
    client.write_text(f'{first}\ncase "$1" in bench) {rise};; esac\n{rest}')
    house.monkeypatch.setattr(efa, "SYS", str(house.path / "sys"))
    house.suites("sweep")
    result = house.run("--topology", "dp")
    result.assert_outcomes(passed=1, skipped=1)
    (record,) = house.records()
    (node,) = record["fabric"]
    assert {**node, "node": ""} == {
        "node": "",
        "interfaces": 1,
        "provider": "efa",
        "fi_info": [LINE],
        "counted": {"rx_drops": 7, "rx_bytes": 1000},
        "troubles": {"rdmap0s6/1/rx_drops": 7},
    }
    said = "lost packets or sent them again during the load: rdmap0s6/1/rx_drops +7"
    assert said in result.stdout.str()
