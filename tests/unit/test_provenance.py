"""What makes numbers comparable: the fingerprint of hardware and of what was asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pdserve.backends.slurm.options import Preflight
from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.serving.provenance import measured_on
from pytest_pdserve.values.sources import changes
from pytest_pdserve.values.system import RoleServing
from pytest_pdserve.values.system import RoleTransfer
from pytest_pdserve.values.system import System

HOST = {"cpu": "EPYC", "gpu": "8 x H200"}


@pytest.fixture
def mark(p5_efa: System) -> str:
    return fingerprint(HOST, p5_efa)


def test_a_new_image_is_what_an_upgrade_brings_and_no_other_host(mark: str, p5_efa: System) -> None:
    newer = replace(p5_efa, container=replace(p5_efa.container, image="nixl:next", tag="next"))
    assert fingerprint(HOST, newer) == mark


def test_what_a_machine_costs_does_not_matter(mark: str, p5_efa: System) -> None:
    priced = replace(p5_efa.cluster, price_per_gpu_hour=2.5, currency="EUR")
    assert fingerprint(HOST, replace(p5_efa, cluster=priced)) == mark


def test_how_nodes_are_had_does_not_matter(mark: str, p5_efa: System) -> None:
    slurm = p5_efa.table("slurm", SlurmSpec)
    preflight = p5_efa.table("preflight", Preflight)
    assert preflight.devices
    other = replace(
        p5_efa,
        tables={
            "slurm": replace(slurm, time_limit_min=7, partition="other"),
            "preflight": replace(preflight, devices={}),
        },
        sweep=replace(p5_efa.sweep, repeats=3),
    )
    assert fingerprint(HOST, other) == mark


def test_other_hardware_or_another_question_does(mark: str, p5_efa: System) -> None:
    args = replace(p5_efa.model, serve_args=("--max-num-seqs", "1"))
    privileged = replace(p5_efa.container, privileged=not p5_efa.container.privileged)
    marks = {
        mark,
        fingerprint({**HOST, "gpu": "8 x H100"}, p5_efa),
        fingerprint(HOST, replace(p5_efa, model=args)),
        fingerprint(HOST, replace(p5_efa, container=privileged)),
        fingerprint(HOST, replace(p5_efa, env={**p5_efa.env, "UCX_TLS": "tcp"})),
    }
    assert len(marks) == 5


def test_what_it_was_made_of_is_said_by_key(p5_efa: System) -> None:
    made_of = measured_on(HOST, p5_efa)
    assert made_of["gpu"] == "8 x H200"
    assert made_of["model.serve_args"] == '["--gpu-memory-utilization", "0.9"]'
    assert made_of["kv_transfer.backend"] == "LIBFABRIC"
    assert not [key for key in made_of if key.startswith(("slurm", "preflight", "limits"))]


def test_arguments_of_a_role_are_what_differs(p5_efa: System) -> None:
    decode = RoleServing(serve_args=("--max-num-seqs", "512"))
    other = replace(p5_efa, model=replace(p5_efa.model, roles={"decode": decode}))
    lease = RoleTransfer(extra_config={"kv_lease_duration": 120})
    longer = replace(other, kv_transfer=replace(p5_efa.kv_transfer, roles={"prefill": lease}))
    now = measured_on(HOST, p5_efa)
    assert changes(now, measured_on(HOST, longer)) == [
        'model.decode.serve_args was not set, is ["--max-num-seqs", "512"]',
        "kv_transfer.prefill.extra_config.kv_lease_duration was not set, is 120",
    ]
    assert changes(measured_on(HOST, other), now) == [
        'model.decode.serve_args was ["--max-num-seqs", "512"], is not set'
    ]
    assert changes({}, now) == changes(now, now) == []
    assert len({fingerprint(HOST, each) for each in (p5_efa, other, longer)}) == 3
