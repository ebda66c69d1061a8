"""Sessions on Slurms of many kinds, by commands that answer from files; nothing ever runs."""

from __future__ import annotations

import getpass
import os
import re

import pytest

from tests.support import slurm_data
from tests.support.fake_slurm import JOB
from tests.support.fake_slurm import PROGRAMS
from tests.support.fake_slurm import FakeSlurm
from tests.support.house import House
from tests.support.onehost import TABLES

HOPELESS = "PENDING|DependencyNeverSatisfied||me|gpu"
"""A state that ends a session at once."""
ENDS = (
    f"Slurm job {JOB} cannot start: a job that it depends on ended in a way that rules it out "
    "(DependencyNeverSatisfied); see [slurm] in baselines/stub/system.toml"
)


@pytest.fixture
def fake(house: House, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Slurm's commands as scripts, and a system of four nodes that asks them for nodes."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("COLUMNS", "1000")  # progress lines stay whole
    house.tables = TABLES
    (house.path / "suites").mkdir()
    (house.path / "suites" / "test_hold.py").write_text("def test_hold(pdserve_cluster): pass\n")
    system(house)
    return FakeSlurm.install(house.path / "fake", monkeypatch)


def system(house: House, *, queue_s: float = 2.5, more: str = "") -> None:
    path = house.system(cluster={"nodes": 4}, slurm={"queue_s": queue_s})
    path.write_text(path.read_text() + more)


def lines_of(house: House, *arguments: str) -> list[str]:
    """What pytest prints, with neutral spans of time and paths."""
    result = house.run(*arguments)
    text = "\n".join([*result.outlines, *result.errlines]).replace(f"{house.path}/", "")
    return re.sub(r"for \d s", "for N s", text).splitlines()


def sentence(lines: list[str]) -> str:
    """The message of the only error."""
    (start,) = [n for n, line in enumerate(lines) if "ERROR at setup of " in line]
    assert lines[start + 2].startswith("====")
    return lines[start + 1]


CASES = {
    "configuring_for_ever": (
        [
            f"pdserve stub: Slurm job {JOB} waits (CONFIGURING for N s): its nodes power up or "
            "boot: p5-dy-gpu-[1-4]"
        ],
        f"Slurm job {JOB} did not start within 2.5 s (slurm.queue_s): CONFIGURING for N s, its "
        "nodes power up or boot: p5-dy-gpu-[1-4]",
    ),
    "number_only": (
        [
            f"pdserve stub: Slurm job {JOB} waits (PENDING for N s): the nodes it asks for are not "
            "free yet (Resources)"
        ],
        f"Slurm job {JOB} did not start within 2.5 s (slurm.queue_s): PENDING for N s, the nodes "
        "it asks for are not free yet (Resources)",
    ),
    "pcluster_capacity": (
        [
            f"pdserve stub: Slurm job {JOB} waits (CONFIGURING for N s): its nodes are not ready: "
            "p5-dy-gpu-1, p5-dy-gpu-2 (down, powering up: (Code:LimitedInstanceCapacity)Failure "
            "when resuming nodes), p5-dy-gpu-3, p5-dy-gpu-4 (idle, powered down)"
        ],
        f"Slurm job {JOB} lost a node (NodeDown); its nodes had been starting for N s: "
        "p5-dy-gpu-1, p5-dy-gpu-2 (down, powering up: (Code:LimitedInstanceCapacity)Failure when "
        "resuming nodes)",
    ),
    "qos_limit": (
        [],
        f"Slurm job {JOB} cannot start: it asks for more nodes than its QOS allows a job "
        "(QOSMaxNodePerJobLimit); see [slurm] in baselines/stub/system.toml",
    ),
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("case", CASES)
def test_a_wait_says_what_is_waited_for_and_why_it_ended(
    fake: FakeSlurm, house: House, case: str
) -> None:
    fake.story(*slurm_data.case(case))
    fake.sinfo(*slurm_data.case(case, "sinfo"))
    if case == "number_only":
        fake.sbatch(JOB)
    if case == "pcluster_capacity":
        system(house, queue_s=60.0)  # ends when the node is lost
    lines = lines_of(house)
    said, error = CASES[case]
    assert [line for line in lines if line.startswith("pdserve stub:")] == said
    assert sentence(lines) == error
    cancelled = [] if case == "pcluster_capacity" else [f"--quiet {JOB}"]
    assert fake.asked("scancel") == cancelled


def test_a_requeued_job_says_which_nodes_it_lost(fake: FakeSlurm, house: House) -> None:
    system(house, queue_s=1.0)
    fake.story("CONFIGURING|None|node-17|me|gpu", "PENDING|BeginTime||me|gpu")
    fake.sinfo("node-17|down~|ResumeTimeout reached")
    (line,) = [line for line in lines_of(house) if line.startswith("pdserve stub:")]
    assert line == (
        f"pdserve stub: Slurm job {JOB} lost its nodes and waits again; they had been starting for "
        "N s: node-17 (down, powered down: ResumeTimeout reached)"
    )


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("answer", "cluster"),
    [
        (JOB, ""),
        (slurm_data.text("sbatch_wrapper_text_around").replace("1131510", JOB), ""),
        (f"job id: {JOB}", ""),
        (f"Submitted batch job {JOB} on cluster c2", "--clusters=c2 "),
        (f"{JOB};cluster2", "--clusters=cluster2 "),
    ],
    ids=["number alone", "text around it", "a wrapper's own words", "on a cluster", "parsable"],
)
def test_any_answer_of_sbatch_that_names_a_job_is_followed(
    fake: FakeSlurm, house: House, answer: str, cluster: str
) -> None:
    fake.sbatch(answer)
    fake.story(HOPELESS)
    assert sentence(lines_of(house)) == ENDS
    assert {line.split("--noheader")[0] for line in fake.asked("squeue")} == {cluster}
    assert fake.asked("scancel") == [f"{cluster}--quiet {JOB}"]


def test_clusters_of_the_system_file_are_asked_by_every_command(
    fake: FakeSlurm, house: House
) -> None:
    system(house, more='[slurm.parameters]\nclusters = "c2"\n')
    fake.sbatch(JOB)
    fake.story("CONFIGURING|None|n[1-4]|me|gpu", "NODE_FAIL|NodeDown|n[1-4]|me|gpu")
    sentence(lines_of(house))
    for name in ("squeue", "sinfo"):
        assert {line.split()[0] for line in fake.asked(name)} == {"--clusters=c2"}
    (script,) = house.runs.glob("*/slurm/submitit/*_submission.sh")
    assert "#SBATCH --clusters=c2\n" in script.read_text()


@pytest.mark.slow
def test_a_job_of_several_clusters_without_its_own_is_not_guessed(
    fake: FakeSlurm, house: House
) -> None:
    system(house, more='[slurm.parameters]\nclusters = "c1,c2"\n')
    fake.sbatch(JOB)
    assert sentence(lines_of(house)) == (
        f"sbatch does not report on which of the clusters 'c1,c2' job {JOB} is; name one in "
        "[slurm] parameters.clusters in baselines/stub/system.toml"
    )
    by_name = r"--clusters=c1,c2 --quiet --name=pdserve-\S+ --user=\S+"
    assert all(re.fullmatch(by_name, line) for line in fake.asked("scancel"))


@pytest.mark.slow
def test_an_answer_without_a_job_is_told_and_its_job_cancelled_by_name(
    fake: FakeSlurm, house: House
) -> None:
    fake.sbatch("thank you")
    assert sentence(lines_of(house)) == (
        "sbatch printed no clear job ID: 'thank you', expected 'Submitted batch job N' or N alone; "
        "the job is cancelled by its name; correct the site's wrapper of sbatch"
    )
    assert fake.asked("squeue") == []
    (first, *_) = fake.asked("scancel")
    assert re.fullmatch(r"--quiet --name=pdserve-\S+ --user=\S+", first)


@pytest.mark.slow
def test_a_number_that_is_another_job_is_left_alone(fake: FakeSlurm, house: House) -> None:
    fake.sbatch("you have 4711 GB left")
    fake.story("RUNNING|None|n1|me|gpu|N/A|4:00:00|3:00:00|other")
    assert sentence(lines_of(house)) == (
        "sbatch's answer 'you have 4711 GB left' was read as job 4711, but that is 'other'; "
        "make the site's wrapper of sbatch print 'Submitted batch job N'"
    )
    assert not [line for line in fake.asked("scancel") if JOB in line.split()]


REFUSED = slurm_data.text("sbatch_refused").splitlines()


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("errors", "error"),
    [
        (
            "\n".join(REFUSED[:2]),
            "invalid partition specified: gpu-v100-32GB; Batch job submission failed: Invalid "
            "partition name specified; see [slurm] partition",
        ),
        *(
            (REFUSED[n], f"{REFUSED[n].removeprefix('sbatch: error: ')}; see [slurm] {key}")
            for n, key in ((2, "account"), (3, "qos"), (4, "time_limit_min"))
        ),
    ],
    ids=["partition", "account", "qos", "time limit"],
)
def test_a_refused_sbatch_is_one_error_and_asked_once(
    fake: FakeSlurm, house: House, errors: str, error: str
) -> None:
    fake.sbatch("", errors=errors, code=1)
    lines = lines_of(house)
    assert sentence(lines) == f"sbatch took no job: {error} in baselines/stub/system.toml"
    assert not [line for line in lines if "Captured" in line or "Traceback" in line]
    assert len(fake.asked("sbatch")) == 1
    assert "scancel" not in (fake.folder / "asked").read_text()


@pytest.mark.parametrize(
    ("missing", "are"), [(["sbatch"], "is"), (["squeue", "sinfo"], "are"), (list(PROGRAMS), "are")]
)
def test_a_machine_without_slurms_commands_is_bad_input(
    fake: FakeSlurm, house: House, monkeypatch: pytest.MonkeyPatch, missing: list[str], are: str
) -> None:
    for name in missing:
        (fake.folder / "bin" / name).unlink()
    suite = house.path / "suites" / "test_hold.py"
    suite.write_text("def test_hold(pdserve_deployment): pass\n")
    monkeypatch.setenv("PATH", str(fake.folder / "bin"))
    result = house.run("--topology", "dp")
    said = [line for line in result.errlines if line]
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said == [
        f"ERROR: system 'stub' needs Slurm's commands, but {', '.join(missing)} {are} not on PATH; "
        "run on a login node, or choose a local system by --system"
    ]
    assert not house.runs.exists()


def test_a_runs_folder_that_cannot_be_written_is_bad_input(fake: FakeSlurm, house: House) -> None:
    suite = house.path / "suites" / "test_hold.py"
    suite.write_text("def test_hold(pdserve_deployment): pass\n")
    (house.path / "taken").write_text("")
    result = house.run("--topology", "dp", "--pdserve-runs", "taken/runs")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.errlines if line] == [
        f"ERROR: runs folder {house.path}/taken/runs cannot be used: {house.path}/taken is a file"
    ]
    assert not (fake.folder / "asked").exists()


def test_collecting_needs_no_slurm(
    fake: FakeSlurm, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = house.path / "suites" / "test_hold.py"
    suite.write_text("def test_hold(pdserve_deployment): pass\n")
    monkeypatch.setenv("PATH", os.devnull)
    assert house.run("--topology", "dp", "--collect-only").ret == pytest.ExitCode.OK


LENT = {
    "PENDING|Priority||{me}|gpu": "the job is PENDING, it must be RUNNING",
    "CONFIGURING|None|n[1-4]|{me}|gpu": "the job is CONFIGURING, it must be RUNNING",
    "TIMEOUT|TimeLimit|n[1-4]|{me}|gpu": "the job is TIMEOUT, it must be RUNNING",
    "RUNNING|None|n[1-4]|bob|gpu": "the job is bob's, not {me}'s",
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("line", LENT, ids=lambda line: line.split("|")[0])
def test_a_job_that_cannot_be_lent_says_why(fake: FakeSlurm, house: House, line: str) -> None:
    me = getpass.getuser()
    fake.story(line.format(me=me))
    fake.replace("scontrol", "printf 'n1\\nn2\\nn3\\nn4\\n'")
    error = LENT[line].format(me=me)
    assert sentence(lines_of(house, "--pdserve-job-id", "99")) == f"--pdserve-job-id 99: {error}"
    assert "scancel" not in (fake.folder / "asked").read_text()


def test_a_lent_job_of_several_clusters_is_not_guessed(fake: FakeSlurm, house: House) -> None:
    system(house, more='[slurm.parameters]\nclusters = "all"\n')
    assert sentence(lines_of(house, "--pdserve-job-id", "99")) == (
        "--pdserve-job-id 99: [slurm] parameters.clusters in baselines/stub/system.toml is 'all', "
        "and each cluster numbers its own jobs; set it to the cluster of the job"
    )


@pytest.mark.slow
def test_a_controller_that_does_not_answer_is_told_in_its_own_words(
    fake: FakeSlurm, house: House
) -> None:
    said = slurm_data.text("controller_not_reachable").splitlines()[-1]
    fake.replace("squeue", f"[ -e cancelled ] || {{ echo '{said}' >&2; exit 1; }}")
    lines = lines_of(house)
    assert [line for line in lines if line.startswith("pdserve stub:")][:1] == [
        f"pdserve stub: Slurm job {JOB}: Slurm's controller has not answered for N s: {said}"
    ]
    assert sentence(lines) == (
        f"Slurm job {JOB} did not start within 2.5 s (slurm.queue_s): Slurm's controller has not "
        f"answered for N s: {said}"
    )
