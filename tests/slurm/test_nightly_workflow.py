"""The steps of nightly.yml on a real Slurm with stub engines, and a GitHub on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from datetime import date
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.github import REPOSITORY
from tests.support.github import TOKEN
from tests.support.github import StandIn
from tests.support.github import github_stand_in
from tests.support.house import House
from tests.support.onehost import NODES
from tests.support.onehost import OneHost
from tests.support.onehost import wait_bench
from tests.support.onehost import wait_until
from tests.support.workflows import Job
from tests.support.workflows import runner_environment

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.xdist_group("slurm-b")]

SLOWER = {"every": {"token_ms": 60.0}}
"""Twenty times as slow from token to token."""


class Nights:
    """Nights of the stub system, each by the steps of the workflow."""

    def __init__(self, house: House, github: StandIn) -> None:
        self.house = house
        self.github = github
        self.summary = house.path / "summary.md"

    @property
    def state(self) -> Path:
        return self.house.path / "nightly" / "stub" / "nightly-state.json"

    def job(self) -> Job:
        return Job(
            workflow="nightly",
            job="nightly",
            folder=self.house.path,
            known={"vars.PDSERVE_SYSTEM": "stub", "github.token": TOKEN},
            environment=runner_environment(
                GITHUB_API_URL=self.github.url,
                GITHUB_REPOSITORY=REPOSITORY,
                GITHUB_STEP_SUMMARY=str(self.summary),
            ),
        )

    def run(self, *, ends_with: int = 0) -> None:
        """Do a night whose first step, which measures, has this exit code."""
        self.summary.write_text("")
        first, notified, shown = self.job().run()
        assert first.code == ends_with, first.output
        assert (notified.code, shown.code) == (0, 0), notified.output + shown.output
        assert TOKEN not in first.output + notified.output + shown.output
        self.a_day_passes()

    def a_day_passes(self) -> None:
        """Make all that is kept of nights a day older."""
        self.state.write_text(json.dumps(_older(json.loads(self.state.read_text()))))

    def cut_off(self) -> None:
        """Begin a night, and kill all of it while it measures."""
        self.house.faults(bench={"hang": True})
        process = self.job().start(self.house.path / "pytest.log")
        wait_bench(self.house, process)
        for each in self.house.processes():
            with contextlib.suppress(ProcessLookupError):
                if "pytest_pdserve" in " ".join(each.cmdline()) or each.pid == process.pid:
                    os.kill(each.pid, signal.SIGKILL)
        process.wait(30)
        self.house.monkeypatch.delenv("PDSTUB_FAULTS")


def _older(value: object) -> object:
    """Return data with every day in it, a text such as 2026-11-20, one day earlier."""
    if isinstance(value, dict):
        return {key: _older(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_older(each) for each in value]
    if isinstance(value, str) and len(value) == len("2026-11-20"):
        with contextlib.suppress(ValueError):
            return (date.fromisoformat(value) - timedelta(days=1)).isoformat()
    return value


@pytest.fixture
def nights(slurm_house: House) -> Iterator[Nights]:
    slurm_house.system(
        cluster={"nodes": 2},
        judgement_floors={"mean_itl_ms": 1.0, "mean_tpot_ms": 1.0},
        slurm={"queue_s": 20},
    )
    slurm_house.ini("pdserve_topology = 1p1d")
    with github_stand_in() as github:
        yield Nights(slurm_house, github)


def test_nights_on_slurm_from_the_first_to_the_closed_issue(nights: Nights) -> None:
    nights.run()
    nights.run()
    assert nights.github.issues == []
    nights.house.faults(**SLOWER)
    nights.run(ends_with=1)
    (issue,) = nights.github.open_issues()
    assert r"mean\_itl\_ms" in issue["body"]
    nights.run(ends_with=1)
    assert len(nights.github.issues) == 1
    nights.house.monkeypatch.delenv("PDSTUB_FAULTS")
    nights.run()
    assert len(nights.github.open_issues()) == 1
    nights.run()
    assert nights.github.open_issues() == []


def test_a_night_that_was_cut_off_is_replaced(nights: Nights, slurm: OneHost) -> None:
    nights.cut_off()
    wait_until(lambda: not slurm.jobs(), 90)
    nights.run()
    assert "Night of" in nights.summary.read_text()
    assert nights.github.open_issues() == []


def test_a_night_without_nodes_opens_the_issue_of_the_cluster(
    nights: Nights, slurm: OneHost
) -> None:
    nights.run()
    nodes = f"nodename=pd[0-{NODES - 1}]"
    drain = ("scontrol", "update", nodes, "state=drain", "reason=maintenance")
    assert slurm.run(*drain).returncode == 0
    try:
        nights.run(ends_with=7)
    finally:
        slurm.run("scontrol", "update", nodes, "state=resume")
    (issue,) = nights.github.open_issues()
    assert issue["title"] == "The night on stub could not be measured in full"
    assert issue["labels"] == [{"name": "pdserve-cluster"}]
    nights.run()
    assert nights.github.open_issues() == []
