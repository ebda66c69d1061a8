"""Rows of ``pdserve doctor`` on a login node, by what Slurm's commands print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pytest_pdserve.backends.slurm import examining
from pytest_pdserve.backends.slurm.options import Preflight
from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.values.container import ContainerKind
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.system import System

SINFO = "pd*|up|0/8/0/8\ndown|down|0/8/0/8\nsmall|up|1/1/1/3\n"


def short(row: Prerequisite) -> tuple[str, str, str, str]:
    return row.status, row.found, row.needed, row.advice


def of(system: System, **fields: object) -> System:
    spec = SlurmSpec(**fields)  # type: ignore[arg-type]
    return replace(system, source="far/system.toml", tables={"slurm": spec})


@pytest.mark.parametrize(
    ("fields", "said", "row"),
    [
        ({}, SINFO, ("ok", "pd is up, 8 nodes", "the default one, 4 nodes", "")),
        ({"partition": "pd"}, SINFO, ("ok", "pd is up, 8 nodes", "pd, 4 nodes", "")),
        (
            {"partition": "small,pd", "client_node": True},
            SINFO,
            ("ok", "small is up, 3 nodes, pd is up, 8 nodes", "small,pd, 5 nodes", ""),
        ),
        (
            {"partition": "gpu"},
            SINFO,
            (
                "missing",
                "known are pd, down, small",
                "gpu, 4 nodes",
                "Name one of these: set [slurm] partition in far/system.toml.",
            ),
        ),
        (
            {},
            "small|up|0/3/0/3\n",
            (
                "missing",
                "known are small",
                "the default one, 4 nodes",
                "Name one of these: set [slurm] partition in far/system.toml.",
            ),
        ),
        (
            {"partition": "down"},
            SINFO,
            (
                "missing",
                "down is down, 8 nodes",
                "down, 4 nodes",
                "Wait until it is up, or set [slurm] partition in far/system.toml.",
            ),
        ),
        (
            {"partition": "small"},
            SINFO,
            (
                "missing",
                "small is up, 3 nodes",
                "small, 4 nodes",
                "Choose a partition of 4 nodes: set [slurm] partition in far/system.toml.",
            ),
        ),
        (
            {"partition": "pd"},
            None,
            (
                "missing",
                "Slurm does not answer",
                "pd, 4 nodes",
                "Start slurmctld, or set SLURM_CONF: `sinfo` must answer.",
            ),
        ),
    ],
    ids=["default", "named", "two", "unknown", "no default", "down", "too small", "silent"],
)
def test_the_partition_is_one_that_can_run_the_job(
    fields: dict[str, object], said: str | None, row: tuple[str, ...], p5_efa: System
) -> None:
    assert short(examining.partition_row(of(p5_efa, **fields), said)) == row


def test_lines_of_other_things_are_no_partitions() -> None:
    assert examining.parse_partitions("CLUSTER: one\n\nsinfo: error\npd|up|n/a\n") == {}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("slurm-wlm 22.05.8\n", "22.05.8"),
        ("slurm 24.11.3\n", "24.11.3"),
        ("", None),
        ("not found\n", None),
        ("sinfo: error: no configuration\n", None),
    ],
)
def test_the_version_is_the_second_word(text: str, version: str | None) -> None:
    assert examining.parse_version(text) == version


def test_missing_commands_are_named_and_nothing_is_asked(p5_efa: System) -> None:
    row = examining.commands_row(["sbatch", "srun"])
    assert short(row) == (
        "missing",
        "no sbatch, srun on PATH",
        "6 commands",
        "Run on a login node, or choose a local system by --system.",
    )
    rows = examining.slurm_rows(p5_efa, None)
    assert [(each.what, each.status, each.found) for each in rows] == [
        ("Slurm", "not checked", "Slurm commands are missing"),
        ("Slurm partition", "not checked", "Slurm commands are missing"),
    ]


def test_slurms_version_is_held_against_the_table(p5_efa: System) -> None:
    def rows(version: str) -> list[str]:
        return [each.status for each in examining.slurm_rows(p5_efa, told(version))]

    def told(version: str) -> examining.Ask:
        return lambda argv: f"slurm {version}\n" if "--version" in argv else SINFO

    assert rows("22.05.8") == ["ok", "ok"]
    assert rows("24.11.3") == ["untested", "ok"]


def test_what_nodes_are_asked_for_is_not_looked_for_on_the_login_node(p5_efa: System) -> None:
    assert [(row.what, *short(row)[:3]) for row in examining.node_rows(p5_efa)] == [
        ("GPUs and driver", "not checked", "checked on the nodes of the job", "8 per node"),
        (
            *("fabric (EFA)", "not checked", "checked on the nodes of the job"),
            "32 /dev/infiniband/uverbs*",
        ),
        ("free memory", "not needed", "nodes are not checked", "not needed"),
    ]


def test_a_system_on_efa_should_ask_nodes_for_its_devices(p5_efa: System) -> None:
    without = replace(p5_efa, tables={"preflight": Preflight()})
    assert short(examining.node_rows(without)[1]) == (
        "not checked",
        "nodes are not checked",
        "yes",
        "Set [preflight.devices] so that a node without EFA is replaced.",
    )


@pytest.mark.parametrize(
    ("kind", "help_text", "status", "found"),
    [
        ("none", "", "not needed", "nodes are not checked"),
        ("docker", "", "not checked", "checked on the nodes of the job"),
        ("pyxis", "  --container-image=[USER@]…\n", "ok", "srun has --container-image"),
        ("pyxis", "  --nodes=N\n", "missing", "srun has no --container-image"),
    ],
)
def test_the_container_engine_is_a_nodes_but_pyxis(
    kind: ContainerKind, help_text: str, status: str, found: str, p5_efa: System
) -> None:
    def ask(argv: Sequence[str]) -> str:
        assert list(argv) == ["srun", "--help"]
        return help_text

    row = examining.engine_row(replace(p5_efa, container=ContainerSpec(kind=kind)), ask)
    assert (row.status, row.found) == (status, found)
