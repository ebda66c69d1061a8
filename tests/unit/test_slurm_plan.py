"""What is said to Slurm, and what its answers mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pytest_pdserve.backends.slurm.holder import NODES
from pytest_pdserve.backends.slurm.holder import read_reports
from pytest_pdserve.backends.slurm.job_state import JobState
from pytest_pdserve.backends.slurm.options import NodeFacts
from pytest_pdserve.backends.slurm.options import Preflight
from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.backends.slurm.options import node_losses
from pytest_pdserve.backends.slurm.options import node_troubles
from pytest_pdserve.backends.slurm.planning import cancel_argv
from pytest_pdserve.backends.slurm.planning import cancel_by_name_argv
from pytest_pdserve.backends.slurm.planning import check_reusable
from pytest_pdserve.backends.slurm.planning import clean_environment
from pytest_pdserve.backends.slurm.planning import expand_argv
from pytest_pdserve.backends.slurm.planning import is_ambiguous
from pytest_pdserve.backends.slurm.planning import job_environment
from pytest_pdserve.backends.slurm.planning import job_name
from pytest_pdserve.backends.slurm.planning import job_parameters
from pytest_pdserve.backends.slurm.planning import on_cluster
from pytest_pdserve.backends.slurm.planning import parse_queue
from pytest_pdserve.backends.slurm.planning import queue_argv
from pytest_pdserve.backends.slurm.planning import step_argv
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.secrets import Redactor

FULL = SlurmSpec(
    partition="p5",
    account="infra",
    qos="high",
    constraint="efa",
    reservation="night",
    exclude="p5-[01,07]",
    gres="gpu:8",
    time_limit_min=60,
    parameters={"switches": 1, "overcommit": True},
)
FACTS = NodeFacts(
    node="p5-03",
    address="10.0.0.3",
    interface="eth0",
    interfaces=("lo", "eth0"),
    gpus=8,
    devices=("/dev/infiniband/uverbs0", "/dev/infiniband/uverbs1"),
    memory_available_gib=900.0,
    host={"cpu": "Xeon"},
    versions={"kernel": "6.1"},
)

FACTS_TEXT = msgspec.json.encode(FACTS)
"""As the holder of a node writes it."""


def test_a_job_asks_for_whole_nodes_and_is_never_requeued() -> None:
    assert job_parameters(SlurmSpec(), name="n", nodes=4) == {
        "job_name": "n",
        "nodes": 4,
        "ntasks_per_node": 1,
        "time": 240,
        "exclusive": True,
        "mem": "0",
        "srun_args": [
            *("--job-name=pdserve-holder", "--overlap", "--kill-on-bad-exit=0"),
            *("--mpi=none", "--wait=0"),
        ],
        "additional_parameters": {"no-requeue": True, "signal": "CONT@1"},
    }


def test_all_that_the_system_file_says_reaches_the_job() -> None:
    asked = job_parameters(FULL, name="n", nodes=5, excluded=["p5-09"])
    expected = {"partition": "p5", "account": "infra", "qos": "high", "constraint": "efa"}
    assert {key: asked[key] for key in expected} == expected
    assert (asked["exclude"], asked["gres"], asked["time"]) == ("p5-[01,07],p5-09", "gpu:8", 60)
    more = {"reservation": "night", "switches": 1, "overcommit": True}
    assert asked["additional_parameters"].items() >= more.items()


def test_a_shared_node_keeps_slurms_own_memory() -> None:
    asked = job_parameters(replace(FULL, exclusive=False), name="n", nodes=1)
    assert not {"mem", "exclusive"} & set(asked)


def test_a_step_shares_its_nodes_with_those_that_run_there() -> None:
    assert step_argv("7", ["a", "b"], ["run", "x"], name="decode-0", args=["--extra"]) == [
        *("srun", "--jobid=7", "--overlap", "--job-name=decode-0"),
        *("--nodes=2", "--ntasks=2", "--ntasks-per-node=1"),
        *("--nodelist=a,b", "--kill-on-bad-exit=0", "--mpi=none"),
        *("--cpu-bind=none", "--mem=0", "--quiet", "--propagate=NONE", "--wait=0"),
        *("--extra", "run", "x"),
    ]


def test_questions_name_what_they_ask_for() -> None:
    assert "--partition=pd" in queue_argv("pd")
    assert expand_argv("pd[0-1]") == ["scontrol", "show", "hostnames", "pd[0-1]"]
    assert cancel_argv("7")[-1] == "7"
    assert cancel_by_name_argv("n", "me")[-2:] == ["--name=n", "--user=me"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("5\n7\n9\n", (2, 3)),
        ("5\n", None),
        ("", None),
        ("CLUSTER: c2\n889864_[0-7]\n7\n", (2, 2)),
    ],
)
def test_a_job_has_a_place_in_the_queue(text: str, place: tuple[int, int] | None) -> None:
    assert parse_queue(text, "7") == place


def test_commands_ask_the_jobs_own_cluster() -> None:
    assert on_cluster(["squeue", "--jobs=7"], "c2") == ["squeue", "--clusters=c2", "--jobs=7"]
    assert on_cluster(["squeue", "--jobs=7"], "") == ["squeue", "--jobs=7"]
    step = step_argv("7", ["a"], ["run"], name="n", cluster="c2")
    assert step[:3] == ["srun", "--clusters=c2", "--jobid=7"]
    assert cancel_by_name_argv("n", "me", "c1,c2")[:2] == ["scancel", "--clusters=c1,c2"]


@pytest.mark.parametrize(
    ("clusters", "ambiguous"), [("", False), ("c2", False), ("c1,c2", True), ("all", True)]
)
def test_a_number_tells_a_job_of_one_cluster_only(clusters: str, ambiguous: bool) -> None:
    assert is_ambiguous(clusters) is ambiguous


def test_a_jobs_name_says_whose_it_is() -> None:
    assert job_name("al ice", "login,1", "r-1") == "pdserve-al_ice@login_1-r-1"


def test_the_callers_shell_does_not_steer_slurm() -> None:
    shell = {
        "SLURM_CONF": "/etc/s",
        "SLURM_JOB_ID": "1",
        "SBATCH_PARTITION": "x",
        "SQUEUE_FORMAT": "%A",
        "XDG_RUNTIME_DIR": "/run/user/1",
        "https_proxy": "http://proxy",
        "HF_TOKEN": "secret",
        "PATH": "/bin",
    }
    assert clean_environment(shell) == {
        "SLURM_CONF": "/etc/s",
        "HF_TOKEN": "secret",
        "PATH": "/bin",
    }
    assert job_environment(shell, Redactor()) == {"SLURM_CONF": "/etc/s", "PATH": "/bin"}


RUNNING = JobState(state="RUNNING", user="me", nodes="pd[0-3]")


def test_a_job_that_runs_and_is_ours_can_be_used() -> None:
    check_reusable("7", RUNNING, user="me", nodes=4, needed=4)


@pytest.mark.parametrize(
    ("state", "nodes", "said"),
    [
        (JobState(state="GONE"), 0, "Slurm has no such job"),
        (JobState(state="PENDING", user="me"), 0, "the job is PENDING, it must be RUNNING"),
        (replace(RUNNING, user="bob"), 4, "the job is bob's, not me's"),
        (RUNNING, 3, "the job has 3 nodes, the system needs 4"),
    ],
)
def test_any_other_job_is_refused(state: JobState, nodes: int, said: str) -> None:
    with pytest.raises(AllocationError) as refused:
        check_reusable("7", state, user="me", nodes=nodes, needed=4)
    assert str(refused.value) == f"--pdserve-job-id 7: {said}"


def test_a_fit_node_has_no_troubles() -> None:
    asked = Preflight(gpus=8, devices={"/dev/infiniband/uverbs*": 2}, memory_gib=100)
    assert node_troubles(FACTS, asked) == ()


@pytest.mark.parametrize(
    ("facts", "asked", "interface", "said"),
    [
        (replace(FACTS, gpus=7), Preflight(gpus=8), "", "shows 7 GPUs, needs 8"),
        (replace(FACTS, gpus=None), Preflight(gpus=8), "", "shows nvidia-smi fails, needs 8"),
        (FACTS, Preflight(devices={"/dev/gdrdrv": 1}), "", "has 0 /dev/gdrdrv, needs 1"),
        (FACTS, Preflight(memory_gib=1000), "", "has 900.0 GiB of memory available, needs 1000"),
        (replace(FACTS, address=None), Preflight(), "ib0", "address on an interface 'ib0'; it has"),
        (
            replace(FACTS, address=None, interfaces=()),
            Preflight(),
            "",
            "default route; it has none",
        ),
    ],
)
def test_an_unfit_node_says_both_numbers(
    facts: NodeFacts, asked: Preflight, interface: str, said: str
) -> None:
    (trouble,) = node_troubles(facts, asked, interface)
    assert said in trouble


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (replace(FACTS, gpus=7), "lost GPUs: 7 GPUs left of 8"),
        (replace(FACTS, gpus=None), "lost GPUs: nvidia-smi fails of 8"),
        (replace(FACTS, devices=FACTS.devices[:1]), "lost devices: /dev/infiniband/uverbs1"),
        (replace(FACTS, address=None), "changed its address from 10.0.0.3 to None"),
    ],
)
def test_what_a_node_lost_is_named(after: NodeFacts, said: str) -> None:
    assert node_losses(FACTS, after) == (said,)
    assert node_losses(FACTS, FACTS) == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (FACTS_TEXT, {"p5-03": FACTS}),
        (FACTS_TEXT[:-1], {}),
        (FACTS_TEXT.replace(b'"gpus":8,', b""), {}),
        (FACTS_TEXT.replace(b'"gpus":8,', b'"gpus":"8",'), {}),
        (b"\xff", {}),
        (FACTS_TEXT.replace(b"8", b'"\xfe"'), {}),
        (b'{"x":' + b"[" * 100_000, {}),
    ],
    ids=["whole", "torn", "a field is missing", "text for a number", "no text", "a byte", "deep"],
)
def test_what_a_node_says_survives_its_file_or_is_not_said_yet(
    text: bytes, found: dict[str, NodeFacts], tmp_path: Path
) -> None:
    (tmp_path / NODES).mkdir()
    (tmp_path / NODES / "p5-03.json").write_bytes(text)
    assert read_reports(tmp_path, ["p5-03", "p5-04"]) == found
