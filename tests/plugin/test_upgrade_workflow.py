"""The steps of upgrade.yml, run as a runner runs them; package index and GitHub are on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.github import REPOSITORY
from tests.support.github import TOKEN
from tests.support.github import StandIn
from tests.support.github import github_stand_in
from tests.support.package_index import package_index
from tests.support.simulated import SimulatedProject
from tests.support.workflows import ROOT
from tests.support.workflows import Job
from tests.support.workflows import Ran
from tests.support.workflows import runner_environment
from tests.support.workflows import workflow


@pytest.fixture
def github() -> Iterator[StandIn]:
    with github_stand_in() as server:
        yield server


@pytest.fixture
def checkout(sim: SimulatedProject) -> Path:
    """A project with pins, and pdserve where `make setup` puts it."""
    sim.system()
    (sim.path / "tox.ini").write_text("[pytest]\npdserve_topology = dp\n")
    (sim.path / ".venv").symlink_to(ROOT / ".venv")
    (sim.path / "requirements").mkdir()
    (sim.path / "requirements" / "lock.in").write_text("vllm-router==0.1.16\n")
    return sim.path


def run(job: str, folder: Path, github: StandIn, index: str = "", **outputs: str) -> list[Ran]:
    """Run the steps of a job.

    :param outputs: of earlier jobs: ``candidate`` and ``number``.
    """
    known = {
        "vars.PDSERVE_SYSTEM": "sim",
        "github.token": TOKEN,
        "github.run_id": "7",
        "github.run_attempt": "1",
        "needs.releases.outputs.candidate": outputs.get("candidate", ""),
        "needs.pull-request.outputs.number": outputs.get("number", ""),
    }
    environment = runner_environment(
        GITHUB_API_URL=github.url,
        GITHUB_REPOSITORY=REPOSITORY,
        GITHUB_STEP_SUMMARY=str(folder / "summary.md"),
        GITHUB_OUTPUT=str(folder / "outputs"),
        UV_DEFAULT_INDEX=index,
        UV_NO_CONFIG="1",
        UV_CACHE_DIR=str(folder / "uv"),
    )
    return Job(
        workflow="upgrade", job=job, folder=folder, known=known, environment=environment
    ).run()


def test_new_releases_become_pins_and_outputs(checkout: Path, github: StandIn) -> None:
    with package_index() as index:
        index.add("vllm-router", "0.1.16", "0.1.17")
        (found,) = run("releases", checkout, github, index.url)
    assert found.code == 0, found.output
    assert (checkout / "requirements" / "lock.in").read_text() == "vllm-router==0.1.17\n"
    written = (checkout / "outputs").read_text().splitlines()
    assert written[:3] == ["new=true", "opened=false", "candidate=vllm-router==0.1.17"]
    named = {line.partition("=")[0] for line in written}
    used = str(workflow("upgrade")["jobs"]["releases"]["outputs"])
    assert all(f"steps.pins.outputs.{name}" in used for name in named)
    assert github.changes == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("candidate", "code", "verdict"),
    [("current", 0, "GO"), ("serve-args:--max-num-batched-tokens=1024", 1, "NO-GO")],
)
def test_the_verdict_of_a_gate_becomes_a_comment(
    checkout: Path, github: StandIn, candidate: str, code: int, verdict: str
) -> None:
    compared, shown = run("gate", checkout, github, candidate=candidate)
    assert compared.code == code, compared.output
    assert shown.code == 0, shown.output
    assert github.asked == []
    (folder,) = (checkout / "gates" / "7-1").iterdir()
    folder.rename(checkout / "gates" / folder.name)  # the artefact has no folder of its run
    (said,) = run("verdict", checkout, github, number="12")
    assert said.code == 0, said.output
    assert github.changes == [("POST", "issues/12/comments")]
    (comment,) = github.comments[12]
    assert comment["body"].splitlines()[1] == (checkout / "summary.md").read_text().splitlines()[0]
    assert verdict in comment["body"].splitlines()[1]


def test_a_gate_that_left_nothing_is_said_in_the_comment(checkout: Path, github: StandIn) -> None:
    (said,) = run("verdict", checkout, github, number="12")
    assert said.code == 0, said.output
    assert "the measurement did not complete" in github.comments[12][0]["body"]
