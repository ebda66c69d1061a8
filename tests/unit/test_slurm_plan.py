"""What is said to Slurm, and what its answers mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pytest_pdserve.backends.slurm.holder import NODES
from pytest_pdserve.backends.slurm.holder import read_reports
from pytest_pdserve.backends.slurm.options import NodeFacts
from pytest_pdserve.backends.slurm.options import Preflight
from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.backends.slurm.options import node_losses
from pytest_pdserve.backends.slurm.options import node_troubles
from pytest_pdserve.backends.slurm.planning import HOPELESS
from pytest_pdserve.backends.slurm.planning import JobState
from pytest_pdserve.backends.slurm.planning import bad_nodes_text
from pytest_pdserve.backends.slurm.planning import cancel_argv
from pytest_pdserve.backends.slurm.planning import cancel_by_name_argv
from pytest_pdserve.backends.slurm.planning import check_reusable
from pytest_pdserve.backends.slurm.planning import clean_environment
from pytest_pdserve.backends.slurm.planning import expand_argv
from pytest_pdserve.backends.slurm.planning import job_environment
from pytest_pdserve.backends.slurm.planning import job_name
from pytest_pdserve.backends.slurm.planning import job_parameters
from pytest_pdserve.backends.slurm.planning import nodes_argv
from pytest_pdserve.backends.slurm.planning import parse_bad_nodes
from pytest_pdserve.backends.slurm.planning import parse_queue
from pytest_pdserve.backends.slurm.planning import parse_state
from pytest_pdserve.backends.slurm.planning import pending_text
from pytest_pdserve.backends.slurm.planning import queue_argv
from pytest_pdserve.backends.slurm.planning import state_argv
from pytest_pdserve.backends.slurm.planning import step_argv
from pytest_pdserve.backends.slurm.planning import waiting_trouble
from pytest_pdserve.values.errors import AllocationError

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
    assert state_argv("7")[2:4] == ["--jobs=7", "--states=all"]
    assert "--partition=pd" in queue_argv("pd")
    assert "--nodes=a,b" in nodes_argv(["a", "b"])
    assert expand_argv("pd[0-1]") == ["scontrol", "show", "hostnames", "pd[0-1]"]
    assert cancel_argv("7")[-1] == "7"
    assert cancel_by_name_argv("n", "me")[-2:] == ["--name=n", "--user=me"]


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", "GONE"),
        ("slurm_load_jobs error: Invalid job id specified\n", "GONE"),
        ("RUNNING|None|pd[0-3]|root|pd\n", "RUNNING"),
    ],
)
def test_a_jobs_state_is_read_or_it_is_gone(text: str, state: str) -> None:
    assert parse_state(text).state == state


def test_a_running_job_has_nodes_a_user_and_a_partition() -> None:
    state = parse_state("RUNNING|None|pd[0-3]|alice|p5\n")
    assert (state.nodes, state.user, state.partition) == ("pd[0-3]", "alice", "p5")
    assert state.trouble("7", 60) is None
    assert not state.pending
    assert not state.over
    assert not state.ending


@pytest.mark.parametrize(
    ("state", "said", "over"),
    [
        (JobState(state="TIMEOUT"), "job 7 reached its time limit of 60 min", True),
        (JobState(state="CANCELLED"), "job 7 was cancelled from outside", True),
        (JobState(state="NODE_FAIL", reason="NodeDown"), "lost a node (NodeDown)", True),
        (JobState(state="PREEMPTED", reason="None"), "was preempted by another job", True),
        (JobState(state="PENDING"), "was requeued and waits again", False),
        (JobState(state="COMPLETING"), "is being ended by Slurm", False),
        (JobState(state="SUSPENDED"), "was suspended", False),
        (JobState(state="STOPPED"), "is STOPPED", False),
        (JobState(state="GONE"), "is no longer known to Slurm", True),
    ],
)
def test_a_job_that_does_not_run_says_why(state: JobState, said: str, over: bool) -> None:
    trouble = state.trouble("7", 60)
    assert trouble is not None
    assert said in trouble
    assert state.over is over


def test_waiting_shows_place_and_reason() -> None:
    state = JobState(state="PENDING", reason="Priority", partition="p5")
    assert parse_queue("5\n7\n9\n", "7") == (2, 3)
    assert parse_queue("5\n", "7") is None
    assert pending_text("7", state, (2, 3), 44.6) == (
        "Slurm job 7 waits, 2 of 3 in p5: Priority (45 s)"
    )
    bare = JobState(state="PENDING")
    assert pending_text("7", bare, None, 1.0) == "Slurm job 7 waits: PENDING (1 s)"
    assert "Resources" not in HOPELESS


@pytest.mark.parametrize(
    ("state", "waited_s", "hopeless_s", "said"),
    [
        (JobState(state="PENDING", reason="Resources"), 60.0, 0.0, None),
        (JobState(state="PENDING", reason="PartitionDown"), 9.9, 9.9, None),
        (
            JobState(state="PENDING", reason="PartitionDown"),
            *(10.0, 10.0, "Slurm job 7 cannot start: PartitionDown; see [slurm] in system.toml"),
        ),
        (
            JobState(state="PENDING", reason="Priority"),
            60.1,
            0.0,
            "within 60 s (slurm.queue_s): ",
        ),
        (
            JobState(state="PENDING"),
            61.0,
            0.0,
            "start within 60 s (slurm.queue_s): PENDING",
        ),
        (None, 60.0, 0.0, None),
        (None, 61.0, 0.0, "did not start within 60 s (slurm.queue_s): the controller is silent"),
    ],
)
def test_waiting_has_an_end(
    state: JobState | None, waited_s: float, hopeless_s: float, said: str | None
) -> None:
    trouble = waiting_trouble(
        "7", state, waited_s=waited_s, hopeless_s=hopeless_s, limit_s=60.0, source="system.toml"
    )
    assert (trouble is None) == (said is None)
    assert said is None or said in str(trouble)


def test_a_reason_is_hopeless_only_while_it_waits() -> None:
    assert JobState(state="PENDING", reason="PartitionDown").hopeless
    assert not JobState(state="PENDING", reason="Resources").hopeless
    assert not JobState(state="RUNNING", reason="PartitionDown").hopeless


@pytest.mark.parametrize("state", ["idle", "allocated", "mixed", "completing", "unknown"])
def test_nodes_that_serve_are_not_bad(state: str) -> None:
    assert parse_bad_nodes(f"pd0|{state}|none\n") == {}


@pytest.mark.parametrize("state", ["down", "drained", "draining", "fail", "maint", "idle*"])
def test_nodes_in_trouble_are(state: str) -> None:
    assert set(parse_bad_nodes(f"pd0|idle|none\npd1|{state}|none\n")) == {"pd1"}


def test_bad_nodes_come_with_slurms_reason() -> None:
    bad = parse_bad_nodes("pd2|down*|power|supply\npd1|drained|\n")
    assert bad_nodes_text(bad) == "pd1 (drained), pd2 (down, does not respond: power|supply)"


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
    assert job_environment(shell) == {"SLURM_CONF": "/etc/s", "PATH": "/bin"}


RUNNING = JobState(state="RUNNING", user="me", nodes="pd[0-3]")


def test_a_job_that_runs_and_is_ours_can_be_used() -> None:
    check_reusable("7", RUNNING, user="me", nodes=4, needed=4)


@pytest.mark.parametrize(
    ("state", "nodes", "said"),
    [
        (JobState(state="GONE"), 0, "Slurm knows no such job"),
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
    ],
    ids=["whole", "torn", "a field is missing", "text for a number", "no text"],
)
def test_what_a_node_says_survives_its_file_or_is_not_said_yet(
    text: bytes, found: dict[str, NodeFacts], tmp_path: Path
) -> None:
    (tmp_path / NODES).mkdir()
    (tmp_path / NODES / "p5-03.json").write_bytes(text)
    assert read_reports(tmp_path, ["p5-03", "p5-04"]) == found
