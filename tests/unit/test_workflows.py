"""The workflows: what they may do, what they call, and that each call is one that there is."""

from __future__ import annotations

import re
import shlex

import pytest

from pytest_pdserve.commands.main import subcommands
from tests.support.workflows import NAMES
from tests.support.workflows import ROOT
from tests.support.workflows import steps
from tests.support.workflows import workflow

PINNED = {
    "actions/checkout": "3d3c42e5aac5ba805825da76410c181273ba90b1",
    "actions/download-artifact": "3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c",
    "actions/setup-python": "5fda3b95a4ea91299a34e894583c3862153e4b97",
    "actions/upload-artifact": "bbbca2ddaa5d8feaa63e36b76fdaad77386f024f",
    "peter-evans/create-pull-request": "5f6978faf089d4d20b00c7766989d076bb2fc7f1",
}
"""Commit of each action, verified in a copy of its repository."""
RUNS = [(name, job, step["run"]) for name in NAMES for job, step in steps(name) if "run" in step]


@pytest.mark.parametrize("name", NAMES)
def test_actions_are_pinned_to_verified_commits(name: str) -> None:
    used = [step["uses"].split("@") for _, step in steps(name) if "uses" in step]
    assert used
    assert [commit for action, commit in used] == [PINNED[action] for action, commit in used]


@pytest.mark.parametrize(("name", "job", "run"), RUNS)
def test_a_step_is_one_make_target_or_one_command_of_pdserve(name: str, job: str, run: str) -> None:
    assert "\n" not in run.strip()
    words = [word for word in shlex.split(run) if word != "sudo"]
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1:] == [words[1]]
        assert words[1] in targets
    else:
        assert words[0] in ("pdserve", ".venv/bin/pdserve")
        assert words[1] in subcommands()


@pytest.mark.parametrize(("name", "job", "run"), RUNS)
def test_no_text_is_put_into_a_command_before_the_shell_reads_it(
    name: str, job: str, run: str
) -> None:
    assert "${{" not in run


@pytest.mark.parametrize("name", NAMES)
def test_the_token_is_in_the_one_step_that_needs_it(name: str) -> None:
    data = workflow(name)
    wide = [data.get("env", {}), *(job.get("env", {}) for job in data["jobs"].values())]
    assert not any("token" in str(values).lower() for values in wide)
    holders = [step.get("run", "") for _, step in steps(name) if "token" in str(step).lower()]
    assert all(
        "--only notify" in run or "--opened" in run or "--pull" in run
        for run in holders
        if run  # checkout's persist-credentials has no token
    )
    checkouts = [s for _, s in steps(name) if s.get("uses", "").startswith("actions/checkout@")]
    assert all(each["with"]["persist-credentials"] is False for each in checkouts)


def test_permissions_are_the_least_that_each_job_needs() -> None:
    found = {
        (name, job): data.get("permissions", workflow(name)["permissions"])
        for name in NAMES
        for job, data in workflow(name)["jobs"].items()
    }
    assert found == {
        ("ci", "unit"): {"contents": "read"},
        ("ci", "everything"): {"contents": "read"},
        ("ci", "docs"): {"contents": "read"},
        ("nightly", "nightly"): {"contents": "read", "issues": "write"},
        ("upgrade", "releases"): {"contents": "read", "pull-requests": "read"},
        ("upgrade", "pull-request"): {"contents": "write", "pull-requests": "write"},
        ("upgrade", "gate"): {"contents": "read"},
        ("upgrade", "verdict"): {"contents": "read", "pull-requests": "write"},
    }


def test_two_runs_never_share_the_nodes_of_a_system() -> None:
    expected = {"group": "pdserve-nodes-${{ vars.PDSERVE_SYSTEM }}", "cancel-in-progress": False}
    assert workflow("nightly")["concurrency"] == expected
    assert workflow("upgrade")["jobs"]["gate"]["concurrency"] == expected
    own = [
        (name, job)
        for name in NAMES
        for job, data in workflow(name)["jobs"].items()
        if "self-hosted" in data["runs-on"]
    ]
    assert own == [("nightly", "nightly"), ("upgrade", "gate")]


def test_code_of_a_pull_request_never_runs_on_a_runner_of_our_own() -> None:
    for name in ("nightly", "upgrade"):
        assert set(workflow(name)[True]) == {"schedule", "workflow_dispatch"}


def test_nothing_is_merged() -> None:
    assert "merge" not in " ".join(run for _, _, run in RUNS)
