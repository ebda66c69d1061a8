"""What squeue says of a job and sinfo of nodes, and what that means."""

from __future__ import annotations

import re

import pytest

from pytest_pdserve.backends.slurm.job_log import cause_in_log
from pytest_pdserve.backends.slurm.job_state import STATES
from pytest_pdserve.backends.slurm.job_state import JobState
from pytest_pdserve.backends.slurm.job_state import parse_state
from pytest_pdserve.backends.slurm.job_state import state_argv
from pytest_pdserve.backends.slurm.job_state import state_name
from pytest_pdserve.backends.slurm.node_states import MARKS
from pytest_pdserve.backends.slurm.node_states import nodes_argv
from pytest_pdserve.backends.slurm.node_states import nodes_text
from pytest_pdserve.backends.slurm.node_states import parse_nodes
from pytest_pdserve.backends.slurm.reasons import Outlook
from tests.support import slurm_data

FINAL = slurm_data.table("job_states_final")


def test_questions_name_what_they_ask_for() -> None:
    assert state_argv("7")[2:4] == ["--jobs=7", "--states=all"]
    assert "--nodes=a,b" in nodes_argv(["a", "b"])
    assert "--partition=gpu" in nodes_argv([], "gpu")


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", "GONE"),
        ("slurm_load_jobs error: Invalid job id specified\n", "GONE"),
        (slurm_data.text("scontrol_job_gone"), "GONE"),
        ("RUNNING|None|pd[0-3]|root|pd\n", "RUNNING"),
        ("CLUSTER: c2\nRUNNING|None|pd[0-3]|root|pd|N/A|4:00:00|3:59:32|x\n", "RUNNING"),
        ("PENDING|Resources||root|gpu|N/A|4:00:00|4:00:00|pdserve-me@login\n", "PENDING"),
    ],
    ids=["nothing", "unknown job", "scontrol's words", "five fields", "a cluster", "all fields"],
)
def test_a_jobs_state_is_read_or_it_is_gone(text: str, state: str) -> None:
    assert parse_state(text).state == state


def test_a_running_job_has_nodes_a_user_and_a_partition() -> None:
    state = parse_state("RUNNING|None|pd[0-3]|alice|p5\n")
    assert (state.nodes, state.user, state.partition) == ("pd[0-3]", "alice", "p5")
    assert state.trouble("7") is None
    assert not state.pending
    assert not state.over
    assert not state.ending


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ("2026-11-27T23:34:26|4:00:00|3:59:32|a|b", ("2026-11-27T23:34:26", "4:00:00", "3:59:32")),
        ("N/A|UNLIMITED|UNLIMITED|a", ("", "UNLIMITED", "UNLIMITED")),
        ("N/A|1-00:00:00|NOT_SET|a", ("", "1-00:00:00", "")),
        ("N/A|INVALID|INVALID", ("", "", "")),
        ("", ("", "", "")),
    ],
)
def test_times_of_a_job_are_read_where_slurm_knows_them(
    fields: str, read: tuple[str, str, str]
) -> None:
    state = parse_state(f"PENDING|Priority||me|gpu|{fields}\n")
    assert (state.start, state.time_limit, state.time_left) == read


@pytest.mark.parametrize("row", FINAL, ids=lambda row: row["state"])
def test_every_state_is_final_or_not_as_slurms_manual_has_it(row: dict[str, str]) -> None:
    assert JobState(state=row["state"]).over is (row["final"] == "yes")


def test_every_short_name_of_a_state_is_known() -> None:
    assert dict(STATES) == {row["short"]: row["state"] for row in FINAL}


@pytest.mark.parametrize("row", FINAL, ids=lambda row: row["state"])
def test_a_session_knows_words_for_every_state(row: dict[str, str]) -> None:
    trouble = JobState(state=row["state"]).trouble("7")
    fine = row["state"] in {"RUNNING", "RESIZING", "SIGNALING"}
    assert (trouble is None) is fine
    assert fine or row["state"] not in str(trouble)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("OUT_OF_M", "OUT_OF_MEMORY"),
        ("CANCELLED+", "CANCELLED"),
        ("CANCELLED by 1000", "CANCELLED"),
        ("NODE_FAIL", "NODE_FAIL"),
        ("NODE_FA+", "NODE_FAIL"),
        ("PD", "PENDING"),
        ("OUT_OF_ME+", "OUT_OF_MEMORY"),
        ("REQUEUE_", "REQUEUE_"),
        ("NEW_STATE", "NEW_STATE"),
        ("", ""),
    ],
)
def test_a_state_is_known_however_a_column_shows_it(text: str, name: str) -> None:
    assert state_name(text) == name


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("sacct_cancelled_column_cut", {"CANCELLED"}),
        ("sacct_node_fail", {"NODE_FAIL"}),
        ("squeue_configuring_for_28_minutes", {"CONFIGURING"}),
        ("squeue_launch_failed_requeued_held", {"PENDING"}),
        ("squeue_qos_max_gres_per_user_array", {"PENDING"}),
        ("squeue_qos_max_jobs_and_node_not_available", {"PENDING", "RUNNING"}),
    ],
)
def test_states_of_real_listings_are_known(name: str, states: set[str]) -> None:
    words = {
        state_name(word) for word in re.findall(r"\s([A-Z_]{1,9}\+?)\s", slurm_data.text(name))
    }
    assert words & set(STATES.values()) == states


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (JobState(state="TIMEOUT"), "job 7 reached its time limit of 4:00:00 (the job's own)"),
        (JobState(state="CANCELLED"), "job 7 was cancelled from outside"),
        (JobState(state="NODE_FAIL", reason="NodeDown"), "job 7 lost a node (NodeDown)"),
        (JobState(state="PREEMPTED", reason="None"), "job 7 was preempted by another job"),
        (JobState(state="BOOT_FAIL", reason="None"), "job 7 could not boot its nodes"),
        (JobState(state="PENDING"), "job 7 was requeued and waits again"),
        (JobState(state="COMPLETING"), "job 7 is being ended by Slurm"),
        (JobState(state="SUSPENDED"), "job 7 was suspended"),
        (JobState(state="NEW_STATE"), "job 7 is NEW_STATE"),
        (JobState(state="GONE"), "job 7 is no longer known to Slurm"),
    ],
    ids=lambda value: value.state if isinstance(value, JobState) else "",
)
def test_a_job_that_does_not_run_says_why(state: JobState, said: str) -> None:
    assert state.trouble("7", "4:00:00 (the job's own)") == f"Slurm {said}"


def test_a_time_limit_that_nobody_knows_is_not_made_up() -> None:
    assert JobState(state="TIMEOUT").trouble("7") == "Slurm job 7 reached its time limit"


@pytest.mark.parametrize("state", ["REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"])
def test_a_job_that_slurm_holds_waits_for_a_person(state: str) -> None:
    held = JobState(state=state, reason="None")
    assert held.pending
    assert held.why.outlook is Outlook.NEEDS_CHANGE


@pytest.mark.parametrize(
    "state",
    ["idle", "allocated", "mixed", "completing", "unknown", "allocated#", "idle~", "mixed@"],
)
def test_nodes_that_serve_are_not_bad(state: str) -> None:
    (node,) = parse_nodes(f"pd0|{state}|none\n")
    assert not node.bad


@pytest.mark.parametrize(
    "state",
    [
        *("down", "drained", "draining", "fail", "maint", "idle*", "down~", "down#", "inval"),
        *("drng@", "fail*", "drain", "allocated%", "powering_down"),
    ],
)
def test_nodes_in_trouble_are(state: str) -> None:
    nodes = parse_nodes(f"pd0|idle|none\npd1|{state}|none\n")
    assert [node.name for node in nodes if node.bad] == ["pd1"]


@pytest.mark.parametrize(
    ("state", "ready"),
    [
        ("allocated", True),
        ("mixed", True),
        ("allocated$", True),
        ("allocated#", False),
        ("idle~", False),
        ("boot^", False),
        ("powering_up", False),
        ("unk", False),
        ("down", False),
    ],
)
def test_a_node_is_ready_or_still_starts(state: str, ready: bool) -> None:
    (node,) = parse_nodes(f"pd0|{state}|none\n")
    assert node.ready is ready


@pytest.mark.parametrize("row", slurm_data.table("node_state_marks"), ids=lambda row: row["mark"])
def test_every_mark_behind_a_state_has_words(row: dict[str, str]) -> None:
    (node,) = parse_nodes(f"pd0|idle{row['mark']}|none\n")
    assert (node.state, node.marks) == ("idle", row["mark"])
    assert node.words == f"idle, {MARKS[row['mark']]}"


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("sinfo_drain_fail_maint", ["drng@", "fail*", "drng@", "maint", "fail*"]),
        ("sinfo_powering_up", []),
        ("sinfo_several_clusters", []),
        ("sinfo_unknown_state", []),
    ],
)
def test_states_of_real_nodes_are_bad_or_not(name: str, bad: list[str]) -> None:
    rows = [line.split() for line in slurm_data.text(name).splitlines()]
    states = [row[4] for row in rows if len(row) == 6 and row[0] != "PARTITION"]
    nodes = parse_nodes("".join(f"n{n}|{state}|none\n" for n, state in enumerate(states)))
    assert len(nodes) == len(states)
    assert [states[n] for n, node in enumerate(nodes) if node.bad] == bad


def test_bad_nodes_come_with_slurms_reason_those_of_one_kind_together() -> None:
    nodes = parse_nodes(
        "CLUSTER: c2\npd2|down*|power|supply\npd1|drained|\npd3|down*|power|supply\npd1|drained|\n"
    )
    assert nodes_text(nodes) == "pd1 (drained), pd2, pd3 (down, does not respond: power|supply)"


def test_nodes_that_failed_to_come_up_say_why_as_sinfo_does() -> None:
    lines = slurm_data.text("sinfo_R_nodes_failed_to_come_up").splitlines()[1:]
    rows = [line.split() for line in lines]
    nodes = parse_nodes("".join(f"{row[3]}|down#|{row[0]}\n" for row in rows))
    assert nodes_text(nodes) == (
        "node-viz-1, node-viz-2, node-viz-3 (down, powering up: cloud_node_fail)"
    )


def test_many_nodes_of_one_kind_are_counted() -> None:
    nodes = parse_nodes("".join(f"n{n:02d}|idle~|none\n" for n in range(20)))
    names = ", ".join(f"n{n:02d}" for n in range(8))
    assert nodes_text(nodes) == f"{names} and 12 more (idle, powered down)"


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        *zip(
            slurm_data.text("job_log_killed_lines").splitlines(),
            [
                "node node-37 failed",
                "",
                "a node failed",
                "it reached its time limit",
                "another job preempted it",
                "it was requeued",
                "it was cancelled",
                "it ran out of memory",
            ],
            strict=True,
        ),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", "it ran out of memory"),
        ("slurmstepd: error: *** STEP 7.1 ON n CANCELLED AT 2026-01-01T00:00:00 ***",
         "it was cancelled"),
        ("INFO: cancelled by the user", ""),
    ],
)  # fmt: skip
def test_the_log_of_a_job_that_slurm_ended_says_why(line: str, cause: str) -> None:
    assert cause_in_log(f"submitit INFO: running\n{line}\n") == cause


def test_the_node_that_failed_is_named_before_its_consequences() -> None:
    assert cause_in_log(slurm_data.text("job_log_killed_lines")) == "node node-37 failed"
