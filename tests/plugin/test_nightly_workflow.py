"""The steps of nightly.yml, run as a runner runs them, on a simulated cluster and a GitHub here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.github import REPOSITORY
from tests.support.github import TOKEN
from tests.support.github import StandIn
from tests.support.github import github_stand_in
from tests.support.house import WITHOUT_UNUSED
from tests.support.simulated import SimulatedProject
from tests.support.workflows import Job
from tests.support.workflows import Ran
from tests.support.workflows import runner_environment


@pytest.fixture
def github() -> Iterator[StandIn]:
    with github_stand_in() as server:
        yield server


class Nights:
    """Nights of the simulated project, each by the steps of the workflow."""

    def __init__(self, project: SimulatedProject, github: StandIn) -> None:
        self.project = project
        self.github = github
        self.summary = project.path / "summary.md"
        addopts = f"addopts = {' '.join(WITHOUT_UNUSED)}"
        (project.path / "tox.ini").write_text(f"[pytest]\n{addopts}\npdserve_topology = dp\n")

    def run(self, night: int, *, slower: float = 0.0, api: str | None = None) -> list[Ran]:
        """Do the night of a number.

        :param slower: fraction by which everything is slower than in the baseline.
        :param api: where GitHub is looked for, in place of the stand-in.
        """
        self.project.system(night=night, drift_per_night=(1 + slower) ** (1 / night) - 1)
        self.summary.write_text("")
        job = Job(
            workflow="nightly",
            job="nightly",
            folder=self.project.path,
            known={"vars.PDSERVE_SYSTEM": "sim", "github.token": TOKEN},
            environment=runner_environment(
                GITHUB_API_URL=api or self.github.url,
                GITHUB_REPOSITORY=REPOSITORY,
                GITHUB_STEP_SUMMARY=str(self.summary),
                GITHUB_SERVER_URL="https://github.example",
                GITHUB_RUN_ID=str(night),
            ),
        )
        return job.run()


def written(folder: Path) -> str:
    """Return all text below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "".join(path.read_text(errors="replace") for path in files)


@pytest.mark.slow
def test_the_steps_of_a_night_open_keep_and_close_an_issue(
    known: SimulatedProject, github: StandIn
) -> None:
    nights = Nights(known, github)
    clean = nights.run(1)
    assert [ran.code for ran in clean] == [0, 0, 0], clean
    assert github.asked == []
    assert "No regression is new, still there or gone" in nights.summary.read_text()

    slow = nights.run(2, slower=0.06)
    assert [ran.code for ran in slow] == [1, 0, 0], slow
    (issue,) = github.open_issues()
    assert issue["title"] == "dp as a whole is slower on sim"
    assert "first seen: night of 2000-01-03" in issue["body"]
    assert "https://github.example/team/serving/actions/runs/2" in issue["body"]
    assert "was worse on each of 3 fresh starts" in issue["body"]
    assert "**New**: dp as a whole is slower on sim" in nights.summary.read_text()

    again = nights.run(3, slower=0.06)
    assert [ran.code for ran in again] == [1, 0, 0], again
    assert len(github.issues) == 1
    assert github.comments == {}
    assert "last seen: night of 2000-01-04" in github.issues[0]["body"]

    assert [ran.code for ran in nights.run(4)] == [0, 0, 0]
    assert len(github.open_issues()) == 1
    assert [ran.code for ran in nights.run(5)] == [0, 0, 0]
    assert github.open_issues() == []
    (gone,) = github.comments[1]
    assert "2 nights in a row measured it without finding it" in gone["body"]
    told = "".join(ran.output for ran in [*clean, *slow, *again])
    assert TOKEN not in told + written(known.path)


@pytest.mark.slow
def test_an_issue_that_github_did_not_take_is_opened_the_next_night(
    known: SimulatedProject, github: StandIn
) -> None:
    nights = Nights(known, github)
    nights.run(1)
    missed = nights.run(2, slower=0.06, api="http://127.0.0.1:9")
    assert missed[0].code == 1
    assert "cannot be reached" in missed[1].output
    assert github.asked == []
    nights.run(3, slower=0.06)
    (issue,) = github.open_issues()
    assert "first seen: night of 2000-01-03" in issue["body"]
