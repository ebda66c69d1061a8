"""What makes numbers comparable: the fingerprint of hardware and of what was asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.values.system import System

HOST = {"cpu": "EPYC", "gpu": "8 x H200"}


@pytest.fixture
def mark(p5_efa: System) -> str:
    return fingerprint(HOST, p5_efa)


def test_a_new_image_is_what_an_upgrade_brings_and_no_other_host(mark: str, p5_efa: System) -> None:
    newer = replace(p5_efa, container=replace(p5_efa.container, image="nixl:next", tag="next"))
    assert fingerprint(HOST, newer) == mark


def test_how_nodes_are_had_does_not_matter(mark: str, p5_efa: System) -> None:
    other = replace(
        p5_efa,
        slurm=replace(p5_efa.slurm, time_limit_min=7, partition="other"),
        preflight=replace(p5_efa.preflight, devices={}),
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
