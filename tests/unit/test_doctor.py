"""Rows of ``pdserve doctor``: what was found, held against what a system needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.backends.backend import Backend
from pytest_pdserve.backends.examining import machine
from pytest_pdserve.backends.examining import software
from pytest_pdserve.backends.examining.writing import writable_row
from pytest_pdserve.backends.local.examining import gpus_needed
from pytest_pdserve.report.prerequisites import prerequisites_json
from pytest_pdserve.report.prerequisites import prerequisites_table
from pytest_pdserve.report.prerequisites import summary_line
from pytest_pdserve.results.compatibility import known_packages
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.system import System

VLLM = known_packages()["vLLM"]
Short = tuple[str, str, str]


def short(row: Prerequisite) -> Short:
    return row.status, row.found, row.advice


@pytest.mark.parametrize(
    ("version", "row"),
    [
        ("0.32.0+cpu", ("ok", "0.32.0+cpu", "")),
        ("0.31.0", ("ok", "0.31.0 (source read)", "")),
        (
            "0.34.1",
            (
                "untested",
                "0.34.1",
                "Run suites/smoke first: tested were 0.26.0, 0.32.0+cpu (docs/compatibility.md).",
            ),
        ),
        ("0.14.1", ("missing", "0.14.1", "Install vLLM 0.15 or newer.")),
        (None, ("missing", "none", "Install it.")),
    ],
    ids=["run here", "source read", "nobody looked", "too old", "none"],
)
def test_a_package_is_held_against_the_table_of_versions(version: str | None, row: Short) -> None:
    found = software.package_row(VLLM, version, advice="Install it.")
    assert (found.what, found.needed) == ("vLLM", "0.15 or newer")
    assert short(found) == row


def test_a_program_that_is_nowhere_is_missing() -> None:
    row = software.program_row("router", "no-such-router", key="router")
    assert short(row) == (
        "missing",
        "no no-such-router on PATH",
        "Install pytest-pdserve[serve], or run `make setup` in a checkout; or name the program "
        "in [programs] router.",
    )


def test_a_program_of_another_environment_has_no_known_version(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.touch(mode=0o755)
    row = software.program_row("vLLM", str(program), key="vllm")
    assert short(row) == ("ok", str(program), "")


@pytest.fixture
def plugins(tmp_path: Path, local_cpu: System) -> System:
    """A system whose NIXL finds its plugins in a folder."""
    for name in software.PLUGINS:
        (tmp_path / f"libplugin_{name}.so").touch()
    return replace(local_cpu, env={"NIXL_PLUGIN_DIR": str(tmp_path), "LD_LIBRARY_PATH": "/efa/lib"})


def loader(said: str | None) -> software.Run:
    def run(argv: Sequence[str]) -> str | None:
        assert "LD_LIBRARY_PATH=/efa/lib" in argv
        return said

    return run


LACKS = "libfabric.so.1: cannot open shared object file: No such file or directory\n"


@pytest.mark.parametrize(
    ("said", "row"),
    [
        ("", ("ok", "loads", "")),
        (
            LACKS,
            (
                "missing",
                "lacks libfabric.so.1",
                "Install libfabric.so.1, or name its folder in LD_LIBRARY_PATH of [env].",
            ),
        ),
        (
            "libfabric.so.1: version `FABRIC_1.10' not found\n",
            (
                "missing",
                "does not load",
                "Make it load; the loader says: libfabric.so.1: version `FABRIC_1.10' not found.",
            ),
        ),
        (
            None,
            (
                "missing",
                "does not load",
                "Make it load; the loader says: the process that loaded it crashed or hung.",
            ),
        ),
    ],
    ids=["loads", "lacks a library", "lacks a version", "hangs"],
)
def test_a_plugin_is_there_if_it_loads(said: str | None, row: Short, plugins: System) -> None:
    rows = software.plugin_rows(plugins, needed="LIBFABRIC", here=True, run=loader(said))
    assert [each.what for each in rows] == ["NIXL plugin UCX", "NIXL plugin LIBFABRIC"]
    assert short(rows[1]) == row
    assert rows[0].status == "not needed"


def test_a_plugin_of_nodes_is_not_loaded_on_the_login_node(plugins: System) -> None:
    loaded: list[str] = []

    def run(argv: Sequence[str]) -> str:
        loaded.append(Path(argv[-1]).name)
        return ""

    rows = software.plugin_rows(plugins, needed="UCX", here=False, run=run)
    assert short(rows[0]) == ("not checked", "is installed; its libraries are a node's", "")
    assert loaded == ["libplugin_LIBFABRIC.so"]


def test_a_plugin_without_a_file_is_missing(tmp_path: Path, plugins: System) -> None:
    (tmp_path / "libplugin_UCX.so").unlink()
    rows = software.plugin_rows(plugins, needed="UCX", here=True, run=loader(""))
    assert short(rows[0]) == ("missing", "none", software.INSTALL_SERVE)


def test_what_serves_in_containers_is_not_looked_for_here(plugins: System) -> None:
    contained = replace(plugins, container=ContainerSpec(kind="docker", image="nixl"))
    rows = [
        *software.serving_software(contained),
        *software.plugin_rows(contained, needed="UCX", here=True, run=loader("")),
    ]
    assert [(row.what, row.status) for row in rows] == [
        ("vLLM", "not checked"),
        ("router", "not checked"),
        ("NIXL", "not checked"),
        ("NIXL plugin UCX", "not checked"),
        ("NIXL plugin LIBFABRIC", "not needed"),
    ]


def test_what_vllm_imports_is_in_vllms_own_environment(tmp_path: Path, plugins: System) -> None:
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.touch(mode=0o755)
    system = replace(plugins, programs=replace(plugins.programs, vllm=str(program)))
    elsewhere = ("not checked", f"in the environment of {program}", "")
    assert short(software.serving_software(system)[-1]) == elsewhere
    plugin = software.plugin_rows(system, needed="UCX", here=True, run=loader(""))[0]
    assert short(plugin) == elsewhere


def test_another_connector_needs_no_nixl(local_cpu: System) -> None:
    transfer = replace(local_cpu.kv_transfer, connector="LMCacheConnectorV1")
    other = replace(local_cpu, kv_transfer=transfer)
    assert software.nixl_plugin(other) is None
    assert "NIXL" not in [row.what for row in software.serving_software(other)]
    assert software.nixl_plugin(local_cpu) == "UCX"


H200 = ("NVIDIA H200, 580.82.07",) * 4


@pytest.mark.parametrize(
    ("needed", "gpus", "status", "found"),
    [
        (4, H200, "ok", "4 x NVIDIA H200, driver 580.82.07"),
        (8, H200, "missing", "4 x NVIDIA H200, driver 580.82.07"),
        (8, None, "missing", "none that nvidia-smi shows"),
        (0, None, "not needed", "none that nvidia-smi shows"),
    ],
)
def test_gpus_are_counted(
    needed: int, gpus: tuple[str, ...] | None, status: str, found: str
) -> None:
    row = machine.gpus_row(needed, gpus)
    assert (row.status, row.found) == (status, found)


@pytest.mark.parametrize(
    ("buffer_device", "vllm", "contained", "gpus"),
    [
        ("cpu", "0.32.0+cpu", False, 0),
        ("cpu", "0.32.0", False, 0),
        (None, "0.32.0+cpu", False, 0),
        (None, "0.32.0+cpu", True, 4),
        (None, "0.32.0", False, 4),
        (None, None, False, 4),
    ],
)
def test_servers_on_the_cpu_need_no_gpu(
    buffer_device: str | None, vllm: str | None, contained: bool, gpus: int, local_cpu: System
) -> None:
    system = replace(
        local_cpu,
        kv_transfer=replace(local_cpu.kv_transfer, buffer_device=buffer_device),
        container=ContainerSpec(kind="docker", image="nixl") if contained else ContainerSpec(),
    )
    assert gpus_needed(system, vllm) == gpus


def test_efa_is_needed_where_the_system_names_it(p5_efa: System, local_cpu: System) -> None:
    assert machine.names_efa(p5_efa)
    assert not machine.names_efa(replace(p5_efa, env={"FI_PROVIDER": "tcp"}))
    assert not machine.names_efa(replace(local_cpu, env={"FI_PROVIDER": "efa"}))


@pytest.mark.parametrize(
    ("devices", "efa", "status", "found"),
    [
        (("rdmap0", "rdmap1"), True, "ok", "2 RDMA devices, fi_info shows efa"),
        (("rdmap0", "rdmap1"), None, "ok", "2 RDMA devices, no fi_info"),
        (("mlx5_0", "mlx5_1"), False, "missing", "2 RDMA devices, fi_info shows no efa"),
        ((), None, "missing", "no RDMA device, no fi_info"),
    ],
)
def test_the_fabric_is_what_kernel_and_libfabric_show(
    devices: tuple[str, ...], efa: bool | None, status: str, found: str
) -> None:
    row = machine.fabric_row(True, devices, efa)
    assert (row.status, row.found) == (status, found)
    assert machine.fabric_row(False, devices, efa).status == "not needed"


@pytest.mark.parametrize(("free", "status"), [(8.0, "ok"), (7.9, "missing")])
def test_memory_is_that_of_one_instance_per_node(
    free: float, status: str, local_cpu: System
) -> None:
    row = machine.memory_row(local_cpu, free)
    assert (row.status, row.found, row.needed) == (status, f"{free} GiB", "8 GiB (4 x 2)")


def test_memory_that_the_system_does_not_state_is_not_needed(p5_efa: System) -> None:
    assert machine.memory_row(p5_efa, 1.0).status == "not needed"


def test_a_folder_that_can_be_made_is_writable(tmp_path: Path) -> None:
    row = writable_row("runs folder", tmp_path / "a" / "b", needed=True, advice="Move.")
    assert short(row) == ("ok", "can be made", "")
    row = writable_row("runs folder", tmp_path, needed=False, advice="Move.")
    assert short(row) == ("not needed", "can be written", "")


def test_a_folder_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    row = writable_row("runs folder", tmp_path / "a" / "b", needed=True, advice="Move.")
    assert short(row) == ("missing", f"{tmp_path}/a is not a folder", "Move.")


class CloudBackend(Backend):
    """A backend of another package, which looks at nothing of its own."""

    name = "cloud"


class RefusingBackend(CloudBackend):
    """The same, where its own program is missing."""

    def check(self, system: System) -> None:
        raise ConfigError("system 'far' needs cloudctl, which is not installed")


def test_a_backend_that_examines_nothing_has_the_row_of_its_check(local_cpu: System) -> None:
    (row,) = CloudBackend().examine(local_cpu)
    assert (row.what, *short(row)) == ("backend cloud", "ok", "installed", "")
    (row,) = RefusingBackend().examine(local_cpu)
    assert (row.what, *short(row)) == (
        "backend cloud",
        "missing",
        "refuses",
        "Fix this: system 'far' needs cloudctl, which is not installed.",
    )


ROWS = (
    Prerequisite(what="Python", found="3.11.7", needed="3.11 or newer", status="ok"),
    Prerequisite(
        what="Slurm partition",
        found="pd is up, 2 nodes",
        needed="the default one, 4 nodes",
        status="missing",
        advice="Choose a partition of 4 nodes: set [slurm] partition in "
        "/home/ada/project/baselines/far/system.toml.",
    ),
    Prerequisite(what="GPUs and driver", found="none", needed="not needed", status="not needed"),
)


def test_the_table_fits_into_80_columns() -> None:
    assert prerequisites_table(ROWS, 80) == [
        "status       what                   found                       needed",
        "─" * 80,
        "ok           Python                 3.11.7                      3.11 or newer",
        "missing      Slurm partition        pd is up, 2 nodes           the default one,",
        "                                                                4 nodes",
        "             Choose a partition of 4 nodes: set [slurm] partition in",
        "             /home/ada/project/baselines/far/system.toml.",
        "             GPUs and driver        none                        not needed",
    ]


def test_json_says_what_is_missing() -> None:
    found = json.loads(prerequisites_json("far", ROWS))
    assert (found["system"], found["missing"]) == ("far", ["Slurm partition"])
    assert found["rows"][0] == {
        "what": "Python",
        "found": "3.11.7",
        "needed": "3.11 or newer",
        "status": "ok",
        "advice": "",
    }


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS, "1 missing for system far: Slurm partition"),
        (ROWS[:1], "Nothing is missing for system far."),
    ],
    ids=["one", "none"],
)
def test_the_summary_names_what_is_missing(rows: tuple[Prerequisite, ...], said: str) -> None:
    assert summary_line("far", rows) == said
