"""What a system file of kind slurm may not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System

FILE = """
schema_version = 1
description = "a cluster"
[cluster]
kind = "slurm"
nodes = 4
gpus_per_node = 8
{cluster}
[model]
path = "m"
[kv_transfer]
backend = "UCX"
{more}
"""


def load(tmp_path: Path, *, cluster: str = "", more: str = "") -> System:
    path = tmp_path / "far" / "system.toml"
    path.parent.mkdir()
    path.write_text(FILE.format(cluster=cluster, more=more))
    return load_system("far", [tmp_path])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.1", "localhost", "::1", "[::1]"])
def test_an_address_that_no_other_node_reaches_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, cluster=f'bind_host = "{host}"')
    assert str(refused.value) == (
        f"{tmp_path}/far/system.toml: /cluster/bind_host: is {host!r}, which other nodes cannot "
        "reach; remove it: the default is the address of the chosen interface"
    )


@pytest.mark.parametrize(
    "cluster",
    [
        *("", 'bind_host = "0.0.0.0"', 'bind_host = "10.0.0.7"', 'bind_host = "node.example"'),
        'bind_host = "127.0.0.1"\nshared_host = true',
    ],
)
def test_an_address_that_nodes_reach_is_taken(tmp_path: Path, cluster: str) -> None:
    assert load(tmp_path, cluster=cluster).cluster.nodes == 4


@pytest.mark.parametrize("gpus", [9, 16, 1000])
def test_more_gpus_than_a_node_has_are_refused(tmp_path: Path, gpus: int) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, more=f"[preflight]\ngpus = {gpus}")
    assert str(refused.value) == (
        f"{tmp_path}/far/system.toml: /preflight/gpus: is {gpus}, but a node has 8 GPUs "
        "(cluster.gpus_per_node): no node could pass; correct one of the two"
    )


def test_nodes_of_one_host_show_the_gpus_of_all(tmp_path: Path) -> None:
    load(tmp_path, cluster="shared_host = true", more="[preflight]\ngpus = 32")
    (tmp_path / "far" / "system.toml").unlink()
    (tmp_path / "far").rmdir()
    with pytest.raises(ConfigError, match=r"a node has 32 GPUs \(nodes x cluster.gpus_per_node\)"):
        load(tmp_path, cluster="shared_host = true", more="[preflight]\ngpus = 33")


@pytest.mark.parametrize("gpus", [0, 1, 8])
def test_as_many_gpus_as_a_node_has_are_taken(tmp_path: Path, gpus: int) -> None:
    assert load(tmp_path, more=f"[preflight]\ngpus = {gpus}").cluster.gpus_per_node == 8


@pytest.mark.parametrize(
    ("more", "clusters"),
    [
        ("", ""),
        ('[slurm]\nparameters = { clusters = "c2" }', "c2"),
        ('[slurm]\nparameters = { clusters = "c1,c2", switches = 1 }', "c1,c2"),
        ("[slurm]\nparameters = { clusters = 2 }", "2"),
    ],
)
def test_clusters_are_what_sbatch_is_given(tmp_path: Path, more: str, clusters: str) -> None:
    assert load(tmp_path, more=more).table("slurm", SlurmSpec).clusters == clusters
