"""Secrets on the nodes of a Slurm job: passed to processes, and in no file of anyone."""

from __future__ import annotations

import pytest

from tests.support.house import House
from tests.support.onehost import OneHost
from tests.support.planted import SECRETS
from tests.support.planted import leaks
from tests.support.planted import logs
from tests.support.planted import pass_through
from tests.support.planted import sampled

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm-a")]


def test_secrets_reach_the_servers_and_no_file_or_argument(
    slurm: OneHost, slurm_house: House
) -> None:
    for name, value in SECRETS.items():
        slurm_house.monkeypatch.setenv(name, value)
    pass_through(slurm_house)
    slurm_house.faults(every={"tell_environment": True})
    junit = slurm_house.path / "junit.xml"
    process = slurm_house.start("--topology", "1p1d", f"--junitxml={junit}", "-rA", "-s")
    arguments = set(sampled(process))
    assert "1 passed" in (slurm_house.path / "pytest.log").read_text()
    printed = logs(slurm_house)
    assert printed.count("<MY_LOGIN>") >= 5
    assert "'VLLM_API_KEY': '<redacted>'" in printed
    assert leaks([slurm_house.path, slurm.conf.parent], arguments) == []
