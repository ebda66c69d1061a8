"""``pdserve doctor``: whole commands, which start and submit nothing."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from tests.support.house import House

SLURM = ("sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol")
SINFO = """\
case "$*" in
  --version) echo slurm-wlm 22.05.8;;
  --noheader*) echo 'pd*|up|0/2/0/2';;
esac
"""


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """The project that ``pdserve init`` writes: nothing of it needs a machine."""
    main(["init", str(tmp_path / "mine")])
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    return tmp_path / "mine"


@pytest.fixture
def stub(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """The house, whose programs lie outside of this Python's environment."""
    monkeypatch.setenv("COLUMNS", "80")
    return house


def examined(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, tuple[str, str]]:
    """Status and finding of each row, by its name."""
    capsys.readouterr()
    main(["doctor", "--format", "json", *arguments])
    rows = json.loads(capsys.readouterr().out)["rows"]
    return {row["what"]: (row["status"], row["found"]) for row in rows}


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_simulated_system_needs_no_machine(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(project.parent)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Nothing is missing for system mine."
    assert max(map(len, lines)) <= 80
    assert files(project.parent) == before
    found = examined(capsys)
    assert [what for what, (status, _) in found.items() if status != "not needed"] == [
        "Python",
        "pytest",
        "simpy",
        "runs folder",
        "baselines folder",
    ]


def test_every_part_of_a_system_has_a_row(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(examined(capsys)) == [
        *("Python", "pytest", "simpy", "vLLM", "router", "NIXL"),
        *("NIXL plugin UCX", "NIXL plugin LIBFABRIC", "GPUs and driver", "fabric (EFA)"),
        *("container engine", "Slurm commands", "runs folder", "baselines folder", "state folder"),
    ]


def test_figures_need_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--system", "article"]) == 0
    assert capsys.readouterr().out.endswith("\nNothing is missing for system article.\n")


def test_a_machine_that_has_everything(stub: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--system", "stub"]) == 0
    assert capsys.readouterr().out.endswith("\nNothing is missing for system stub.\n")
    found = examined(capsys, "--system", "stub")
    assert found["router"] == ("ok", stub.programs["router"])
    assert found["NIXL"] == ("not checked", f"in the environment of {stub.programs['vllm']}")
    assert found["free ports"] == ("ok", "14 free")


def test_what_is_missing_is_named_with_what_to_do(
    stub: House, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.system(
        programs={"router": "no-such-router"},
        cluster={"memory_per_instance_gib": 100_000.0},
    )
    assert main(["doctor", "--system", "stub"]) == 4
    printed = capsys.readouterr().out
    assert printed.endswith("\n2 missing for system stub: router, free memory\n")
    assert (
        "missing      router                 no no-such-router on PATH   0.1 or newer\n"
        "             Install pytest-pdserve[serve], or run `make setup` in a checkout;\n"
        "             or name the program in [programs] router.\n"
    ) in printed


@pytest.mark.parametrize(
    ("path", "status"),
    [("{house}/model", "ok"), ("/no/such/model", "missing"), ("some/name", "ok")],
    ids=["a folder", "no folder", "a name of a hub"],
)
def test_a_model_must_be_there(
    path: str, status: str, stub: House, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.system(model={"path": path.replace("{house}", str(stub.path))})
    assert examined(capsys, "--system", "stub")["model"][0] == status


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else has."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        yield other.getsockname()[1]


def test_ports_that_are_taken_are_missing(
    stub: House, taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.system(
        cluster={"nodes": 1},
        ports={"http": taken, "span": 1},
    )
    assert main(["doctor", "--system", "stub"]) == 4
    printed = capsys.readouterr().out
    # Of the other kinds of ports, one may be somebody else's for the moment.
    assert "missing      free ports             http 0 of 3" in printed
    assert f"Free ports in {taken}-{taken}" in printed


@pytest.mark.parametrize(
    ("code", "code_of_doctor", "row"),
    [
        (0, 0, ("ok", "docker answers")),
        (1, 4, ("missing", "docker, which does not answer")),
    ],
    ids=["answers", "silent"],
)
def test_a_container_engine_must_answer(
    code: int,
    code_of_doctor: int,
    row: tuple[str, str],
    stub: House,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = stub.path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(f'#!/bin/sh\n[ "$*" = version ] && exit {code}\nexit 2\n')
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    stub.system(container={"kind": "docker", "image": "nixl:latest"})
    assert main(["doctor", "--system", "stub"]) == code_of_doctor
    found = examined(capsys, "--system", "stub")
    assert found["container engine"] == row
    assert found["vLLM"] == ("not checked", "in the container image")


def test_an_endpoint_needs_the_client_only(stub: House, capsys: pytest.CaptureFixture[str]) -> None:
    stub.tables = {key: stub.tables[key] for key in ("sweep", "judgement", "judgement.floors")}
    stub.system("far", cluster={"kind": "attached", "nodes": 1, "gpus_per_node": 1})
    found = examined(capsys, "--system", "far")
    assert main(["doctor", "--system", "far"]) == 0
    assert found["vLLM"] == ("ok", stub.programs["vllm"])
    assert found["endpoint"] == ("not checked", "none is named")
    assert found["router"][0] == "not needed"


@pytest.fixture
def slurm(stub: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A login node whose commands of Slurm are stubs; a job that is submitted leaves a file."""
    folder = stub.path / "bin"
    folder.mkdir()
    for name in SLURM:
        does = SINFO if name == "sinfo" else f'echo > "{stub.path}/started"\n'
        (folder / name).write_text(f"#!/bin/sh\n{does}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    stub.system(
        cluster={"kind": "slurm", "nodes": 2, "memory_per_instance_gib": 0.0},
    )
    return stub


def test_a_login_node_is_asked_and_gets_no_job(
    slurm: House, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    assert main(["doctor", "--system", "stub"]) == 0
    found = examined(capsys, "--system", "stub")
    assert found["Slurm commands"] == ("ok", "all on PATH")
    assert found["Slurm"] == ("ok", "22.05.8")
    assert found["Slurm partition"] == ("ok", "pd is up, 2 nodes")
    assert found["GPUs and driver"] == ("not needed", "nodes are not checked")
    assert not (slurm.path / "started").exists()


def test_a_partition_that_is_too_small_is_missing(
    slurm: House, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.system(cluster={"kind": "slurm", "nodes": 4})
    assert main(["doctor", "--system", "stub"]) == 4
    assert "Choose a partition of 4 nodes: set [slurm] partition in" in capsys.readouterr().out


def test_a_machine_without_slurm_is_no_login_node(
    slurm: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(slurm.path))
    assert main(["doctor", "--system", "stub"]) == 4
    found = examined(capsys, "--system", "stub")
    assert found["Slurm commands"] == ("missing", f"no {', '.join(SLURM)} on PATH")
    assert found["Slurm partition"] == ("not checked", "Slurm commands are missing")


def test_an_unknown_system_is_one_sentence(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--system", "moon"]) == 4
    assert capsys.readouterr().err.startswith("pdserve: system 'moon' is unknown; known are ")


def test_the_header_warns_of_a_version_that_nobody_looked_at(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = house.path / "site" / "vllm_router-0.99.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm-router\nVersion: 0.99.0\n"
    )
    monkeypatch.syspath_prepend(str(installed.parent))
    house.suites("smoke")
    lines = house.run("--topology", "dp", "--collect-only").outlines
    (warning,) = [line for line in lines if "untested" in line]
    assert warning.startswith("pdserve: untested with this version: ")
    assert "router 0.99.0 (tested: 0.1.17)" in warning
    assert warning.endswith("; docs/compatibility.md")
