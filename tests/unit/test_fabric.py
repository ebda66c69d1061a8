"""The system ``local-fabric``: LIBFABRIC from a folder of its own, planned, checked and told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.backends.fabric.checking import check_libraries
from pytest_pdserve.backends.fabric.checking import library_rows
from pytest_pdserve.backends.fabric.folder import MANIFEST
from pytest_pdserve.backends.fabric.folder import default_folder
from pytest_pdserve.backends.fabric.folder import find_installed
from pytest_pdserve.backends.fabric.folder import library_env
from pytest_pdserve.backends.fabric.probe import AgentProbe
from pytest_pdserve.backends.fabric.probe import read_probe
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.placement import place
from pytest_pdserve.plan.ports import assign_ports
from pytest_pdserve.plan.ports import in_memory_claim
from pytest_pdserve.plan.vllm import instance_commands
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from tests.support.fabric import fabric_folder
from tests.support.fabric import using
from tests.support.wheelhouse import program

PATHS = {"LD_LIBRARY_PATH", "PYTHONPATH", "FI_PROVIDER_PATH", "NIXL_PLUGIN_DIR"}


@pytest.fixture
def local_fabric() -> System:
    """The shipped system."""
    return load_system("local-fabric", SHIPPED)


def planned(system: System, topology: str) -> dict[str, Command]:
    """The instances' commands by name, outside of containers."""
    hosts = {host.name: host for host in backend_of(system).hosts(system)}
    each = system.cluster.gpus_per_node
    placement = place(Topology.parse(topology), tuple(hosts), each, default_tp=None)
    ports = assign_ports(placement, system.ports, in_memory_claim(one_machine=False))
    commands = instance_commands(placement, system, hosts=hosts, ports=ports)
    return {command.name: command for command in commands}


def kv_arguments(command: Command) -> list[str]:
    """All words of a command from its first on KV transfer."""
    words = list(command.argv)
    return words[words.index("--kv-transfer-config.kv_connector") :]


@pytest.mark.parametrize("instance", ["prefill[0]", "decode[0]", "decode[2]"])
def test_it_is_planned_as_the_articles_cluster_but_for_provider_and_paths(
    instance: str, p5_efa: System, local_fabric: System
) -> None:
    there, here = planned(p5_efa, "1p3d")[instance], planned(local_fabric, "1p3d")[instance]
    on_cpu = ["--kv-transfer-config.kv_buffer_device", "cpu"]
    assert kv_arguments(here) == [*kv_arguments(there), *on_cpu]
    of_provider = {"FI_EFA_FORK_SAFE", "FI_EFA_USE_DEVICE_RDMA"}
    fabric = {name: value for name, value in there.env if name.startswith("FI_")}
    ours = {name: value for name, value in here.env if name.startswith("FI_")}
    assert ours.keys() - {"FI_PROVIDER_PATH"} == fabric.keys() - of_provider
    assert (fabric.pop("FI_PROVIDER"), ours.pop("FI_PROVIDER")) == ("efa", "tcp")
    assert {name: ours[name] for name in fabric.keys() - of_provider} == {"FI_LOG_LEVEL": "warn"}
    shared = {name for name, _ in there.env if name.startswith(("VLLM_NIXL", "NCCL", "GLOO"))}
    assert shared <= dict(here.env).keys()


def test_only_instances_that_move_kv_caches_see_the_folder(
    local_fabric: System, local_cpu: System
) -> None:
    folder = str(default_folder())
    for command in planned(local_fabric, "1p1d").values():
        seen = dict(command.env)
        assert seen.keys() >= PATHS
        assert all(seen[name].startswith(folder) for name in PATHS)
    others = [*planned(local_fabric, "dp").values(), *planned(local_cpu, "1p1d").values()]
    assert [name for command in others for name in dict(command.env).keys() & PATHS] == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "/f/lib"),
        ({"LD_LIBRARY_PATH": ""}, "/f/lib"),
        ({"LD_LIBRARY_PATH": "/a:/b"}, "/f/lib:/a:/b"),
    ],
    ids=["none", "empty", "two"],
)
def test_the_folder_comes_before_the_paths_that_are_there(
    before: dict[str, str], after: str
) -> None:
    assert library_env(Path("/f"), before)["LD_LIBRARY_PATH"] == after
    assert library_env(Path("/f"), {"PYTHONPATH": "/own"})["PYTHONPATH"] == "/f/python:/own"


@pytest.mark.parametrize(
    "manifest",
    [None, "", "{", "[]", '{"digest": 1}', '{"digest": "other", "versions": {}}'],
    ids=["none", "empty", "half", "list", "number", "of another pdserve"],
)
def test_a_folder_without_a_sound_manifest_is_not_there(
    manifest: str | None, tmp_path: Path
) -> None:
    if manifest is not None:
        (tmp_path / MANIFEST).write_text(manifest)
    assert find_installed(tmp_path) is None


def test_a_missing_folder_is_told_with_the_command(tmp_path: Path, local_fabric: System) -> None:
    folder = fabric_folder(tmp_path / "fabric", digest="other")
    system = using(local_fabric, folder)
    with pytest.raises(ConfigError) as caught:
        check_libraries(system)
    assert str(caught.value) == (
        f"the libraries are missing: system 'local-fabric' needs those of {folder} "
        f"(kv_transfer.libraries = '{folder}' in {system.source}), which are not installed, or "
        "were installed by another version of pdserve; run "
        f"`pdserve fabric install --folder {folder}`"
    )
    rows = {row.what: (row.status, row.found, row.advice) for row in library_rows(system)}
    advice = f"Run `pdserve fabric install --folder {folder}`."
    assert rows["fabric folder"] == ("missing", "not installed", advice)
    assert rows["libfabric provider"] == ("missing", "no tcp", advice)


def test_a_vllm_of_another_environment_is_refused(local_fabric: System, tmp_path: Path) -> None:
    vllm = program(tmp_path / "vllm", "#!/bin/sh\n")
    system = using(local_fabric, fabric_folder(tmp_path / "fabric"))
    system = replace(system, programs=replace(system.programs, vllm=str(vllm)))
    with pytest.raises(ConfigError, match=rf"but vLLM is in the environment of {vllm}; remove"):
        check_libraries(system)


@pytest.mark.parametrize(
    ("text", "code", "probe"),
    [
        (
            "I1128 07:31:39.42 1 m.cpp:359] Created rail 0 (device=eth0, provider=tcp)\n"
            "I1128 07:31:39.43 1 m.cpp:359] Created rail 1 (device=eth1, provider=tcp)\n",
            0,
            AgentProbe(provider="tcp", interfaces=("eth0", "eth1")),
        ),
        ("", 0, AgentProbe(trouble="NIXL names no provider that it uses")),
        (
            "E1128 07:29:08.850548   23132 rail.cpp:565] fi_enable failed for rail 0: Bad file\n"
            "E1128 07:29:08.850678   23132 manager.cpp:364] Failed to create rails\n"
            "nixlBackendError: NIXL_ERR_BACKEND\n",
            1,
            AgentProbe(trouble="fi_enable failed for rail 0: Bad file"),
        ),
        (
            "Traceback (most recent call last):\nModuleNotFoundError: No module named 'nixl'\n",
            1,
            AgentProbe(trouble="ModuleNotFoundError: No module named 'nixl'"),
        ),
        ("", -11, AgentProbe(trouble="exit code -11")),
    ],
    ids=["two interfaces", "silent", "native error", "exception", "crash"],
)
def test_an_agent_tells_what_it_uses_or_why_not(text: str, code: int, probe: AgentProbe) -> None:
    assert read_probe(text, code) == probe


@pytest.mark.parametrize(
    "changes",
    [
        "kind = 'slurm'\n",
        "kind = 'local'\n[container]\nkind = 'docker'\nimage = 'nixl:latest'\n",
    ],
    ids=["slurm", "container"],
)
def test_libraries_of_this_machine_are_refused_for_servers_elsewhere(
    changes: str, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "system.toml").write_text(
        "schema_version = 1\ndescription = 'x'\n[model]\npath = 'tiny'\n"
        "[kv_transfer]\nlibraries = 'fabric'\n"
        f"[cluster]\nnodes = 2\ngpus_per_node = 1\n{changes}"
    )
    with pytest.raises(ConfigError, match=r"system\.toml: /kv_transfer/libraries: is only for"):
        load_system("mine", [tmp_path])
