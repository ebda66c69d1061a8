"""A job that waits: what is said of it, and when it is given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from itertools import pairwise

import pytest

from pytest_pdserve.backends.slurm.job_state import parse_state
from pytest_pdserve.backends.slurm.node_states import parse_nodes
from pytest_pdserve.backends.slurm.waiting import REPORT_S
from pytest_pdserve.backends.slurm.waiting import QueueWait
from pytest_pdserve.backends.slurm.waiting import Reporter
from tests.support import slurm_data

LIMIT = "240 min (slurm.time_limit_min)"
CONFIGURING = "CONFIGURING|None|p5-dy-gpu-[1-4]|me|gpu"
POWERING_UP = "p5-dy-gpu-1|allocated#|none\np5-dy-gpu-2|allocated|none\n"
NO_CAPACITY = "\n".join(slurm_data.case("pcluster_capacity", "sinfo"))
FAILED_NODES = (
    "p5-dy-gpu-1, p5-dy-gpu-2 (down, powering up: (Code:LimitedInstanceCapacity)Failure when "
    "resuming nodes)"
)


def waiting(partition: str = "") -> QueueWait:
    return QueueWait(
        "7", partition=partition, limit_s=3600.0, source="far/system.toml", now_s=100.0
    )


def after(*story: str, every_s: float = 1.0, partition: str = "") -> tuple[QueueWait, float]:
    """A wait in which squeue answered these lines, and the time of the last."""
    wait, now_s = waiting(partition), 100.0
    for line in story:
        wait.update(parse_state(line), now_s)
        now_s += every_s
    return wait, now_s - every_s


LINES = {
    "a reason in plain words": (
        ["PENDING|Priority||me|gpu"],
        "Slurm job 7 waits (PENDING for 45 s): jobs of higher priority go first (Priority)",
    ),
    "no reason": (
        ["PENDING|None||me|gpu"],
        "Slurm job 7 waits (PENDING for 45 s): Slurm gives no reason",
    ),
    "an expected start": (
        ["PENDING|Resources||me|gpu|2026-11-28T09:30:00|4:00:00|4:00:00|n"],
        "Slurm job 7 waits (PENDING for 45 s): the nodes it asks for are not free yet (Resources); "
        "expected start 2026-11-28T09:30:00",
    ),
    "a begin time": (
        ["PENDING|BeginTime||me|gpu|2019-08-29T23:30:00|7-00:00:00|7-00:00:00|t.sub"],
        "Slurm job 7 waits (PENDING for 45 s): its begin time has not come yet (BeginTime); "
        "expected start 2019-08-29T23:30:00",
    ),
    "nodes that power up, without a word on them": (
        [CONFIGURING],
        "Slurm job 7 waits (CONFIGURING for 45 s): its nodes power up or boot: p5-dy-gpu-[1-4]",
    ),
    "one node that boots, after the queue": (
        ["PENDING|Resources||me|gpu", "CONFIGURING|None|node2042|me|testing"],
        "Slurm job 7 waits (CONFIGURING for 45 s): its nodes power up or boot: node2042",
    ),
    "a node that boots, with the start of the job": (
        ["CONFIGURING|None|node-hb1-2|me|hb1|2026-11-28T09:30:00|1-00:00:00|23:31:46|job2"],
        "Slurm job 7 waits (CONFIGURING for 45 s): its nodes power up or boot: node-hb1-2",
    ),
    "configuring without nodes": (
        ["CONFIGURING|Resources||me|gpu"],
        "Slurm job 7 waits (CONFIGURING for 45 s): its nodes power up or boot",
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_says_state_since_when_and_why(name: str) -> None:
    story, line = LINES[name]
    wait, now_s = after(*story)
    for waited_s in (15.0, 30.0, 45.0):
        wait.update(parse_state(story[-1]), now_s + waited_s)
    assert wait.line(now_s + 45.0) == line


def test_a_line_says_the_place_in_the_queue() -> None:
    wait, now_s = after("PENDING|Priority||me|p5")
    wait.place = (2, 3)
    assert wait.line(now_s) == (
        "Slurm job 7 waits (PENDING for 0 s, 2 of 3 in p5): jobs of higher priority go first "
        "(Priority)"
    )


@pytest.mark.parametrize(
    ("sinfo", "why"),
    [
        (POWERING_UP, "its nodes are not ready: p5-dy-gpu-1 (allocated, powering up)"),
        (
            NO_CAPACITY,
            f"its nodes are not ready: {FAILED_NODES}, p5-dy-gpu-3, p5-dy-gpu-4 "
            "(idle, powered down)",
        ),
        (
            "node-viz-1|down*|cloud_node_fail\n",
            "its nodes are not ready: node-viz-1 (down, does not respond: cloud_node_fail)",
        ),
        ("n1|allocated|none\n", "its nodes are up and run the prolog: p5-dy-gpu-[1-4]"),
        ("n1|unk|none\n", "its nodes are not ready: n1 (unk)"),
        ("", "its nodes power up or boot: p5-dy-gpu-[1-4]"),
    ],
)
def test_a_line_says_what_sinfo_says_of_nodes_that_are_not_ready(sinfo: str, why: str) -> None:
    wait, now_s = after(CONFIGURING)
    wait.update_nodes(parse_nodes(sinfo))
    assert wait.line(now_s) == f"Slurm job 7 waits (CONFIGURING for 0 s): {why}"


def test_half_an_hour_of_powering_up_is_told_in_minutes() -> None:
    wait, now_s = after(*[CONFIGURING] * 28, every_s=60.0)
    assert wait.line(now_s).startswith("Slurm job 7 waits (CONFIGURING for 27 min): its nodes ")


def test_nodes_that_are_down_are_named_where_the_reason_does_not() -> None:
    wait, now_s = after("PENDING|Nodes required for job are DOWN, DRAINED or reserved||me|cloud")
    wait.update_nodes(parse_nodes("cl0|down~|ResumeTimeout reached\ncl1|idle|none\n"))
    assert wait.line(now_s) == (
        "Slurm job 7 waits (PENDING for 0 s): nodes it needs are down, drained or reserved for "
        "jobs of higher priority (Resources): cl0 (down, powered down: ResumeTimeout reached)"
    )


@pytest.mark.parametrize("said", slurm_data.text("controller_not_reachable").splitlines())
def test_a_silent_controller_is_no_silent_wait(said: str) -> None:
    wait, now_s = after("PENDING|Priority||me|gpu")
    wait.update(None, now_s + 30.0, said)
    assert wait.line(now_s + 30.0) == (
        f"Slurm job 7: Slurm's controller has not answered for 30 s: {said}"
    )


AT_ONCE = {
    "QOSMaxNodePerJobLimit": "it asks for more nodes than its QOS allows a job",
    "AssocMaxNodePerJobLimit": "it asks for more nodes than its association allows a job",
    "AssocMaxWallDurationPerJobLimit": "its time limit is longer than its association allows a job",
    "PartitionConfig": "its partition is not configured for what it asks for",
    "PartitionTimeLimit": "its time limit is longer than its partition allows",
    "DependencyNeverSatisfied": "a job that it depends on ended in a way that rules it out",
}


@pytest.mark.parametrize("code", AT_ONCE)
def test_a_limit_that_can_never_be_met_ends_the_wait_at_once(code: str) -> None:
    wait, now_s = after(f"PENDING|{code}||me|gpu")
    assert wait.trouble(now_s) == (
        f"Slurm job 7 cannot start: {AT_ONCE[code]} ({code}); see [slurm] in far/system.toml"
    )


@pytest.mark.parametrize(
    "reason",
    [
        *("Resources", "Priority", "None", "QOSGrpCpuLimit", "QOSMaxGRESPerUser"),
        *("AssocMaxJobsLimit", "QOSMaxJobsPerUserLimit", "ReqNodeNotAvail, UnavailableNodes:n026"),
        *("AssocGrpGRES", "BeginTime", "SomethingNew"),
    ],
)
def test_a_reason_that_may_clear_is_waited_for(reason: str) -> None:
    wait, now_s = after(*[f"PENDING|{reason}||me|gpu"] * 60, every_s=60.0)
    assert wait.trouble(now_s) is None


@pytest.mark.parametrize(
    "line",
    [
        *("PENDING|PartitionDown||me|gpu", "PENDING|JobHeldUser||me|gpu"),
        *("PENDING|launch failed requeued held||me|cpu", "REQUEUE_HOLD|None||me|gpu"),
        "PENDING|BadConstraints||me|gpu",
    ],
)
def test_a_reason_that_a_person_must_change_is_believed_after_ten_seconds(line: str) -> None:
    wait, now_s = after(*[line] * 10)
    assert wait.trouble(now_s) is None
    wait.update(parse_state(line), now_s + 1.0)
    assert str(wait.trouble(now_s + 1.0)).startswith("Slurm job 7 cannot start: ")


def test_a_reason_that_a_person_changed_in_time_is_forgotten() -> None:
    held, fine = ["PENDING|JobHeldUser||me|gpu"] * 9, ["PENDING|Resources||me|gpu"]
    wait, now_s = after(*held, *fine, *held)
    assert wait.trouble(now_s) is None


TOO_LONG = {
    "in the queue": (
        "PENDING|Resources||me|gpu",
        "PENDING for 60 min, the nodes it asks for are not free yet (Resources)",
    ),
    "powering up": (
        CONFIGURING,
        "CONFIGURING for 60 min, its nodes power up or boot: p5-dy-gpu-[1-4]",
    ),
    "no reason": ("PENDING|None||me|gpu", "PENDING for 60 min, Slurm gives no reason"),
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_waiting_has_an_end_that_says_what_was_waited_for(name: str) -> None:
    line, known = TOO_LONG[name]
    wait, now_s = after(*[line] * 3601)
    assert wait.trouble(now_s) is None
    wait.update(parse_state(line), now_s + 1.0)
    assert wait.trouble(now_s + 1.0) == (
        f"Slurm job 7 did not start within 3600 s (slurm.queue_s): {known}"
    )


def test_waiting_for_a_controller_that_never_answered_has_an_end() -> None:
    wait = waiting()
    wait.update(None, 3701.0, "squeue: error: Unable to contact slurm controller")
    assert wait.trouble(3701.0) == (
        "Slurm job 7 did not start within 3600 s (slurm.queue_s): Slurm's controller has not "
        "answered for 60 min: squeue: error: Unable to contact slurm controller"
    )


def test_a_partition_that_nobody_asked_for_ends_the_wait() -> None:
    """A site's rule moves jobs that name a wrong partition to its default one."""
    wait, now_s = after("PENDING|Priority||me|htc", partition="gpu,gpu-long")
    assert wait.trouble(now_s) == (
        "Slurm put job 7 into partition 'htc', expected 'gpu,gpu-long'; set [slurm] partition in "
        "far/system.toml to the one that it shall run in"
    )


@pytest.mark.parametrize("there", ["gpu", "gpu-long", "gpu,gpu-long", ""])
def test_a_partition_that_was_asked_for_does_not(there: str) -> None:
    wait, now_s = after(f"PENDING|Priority||me|{there}", partition="gpu,gpu-long")
    assert wait.trouble(now_s) is None


ENDED = {
    "a boot failure that sinfo still knows": (
        [*[CONFIGURING] * 13, "NODE_FAIL|NodeDown|p5-dy-gpu-[1-4]|me|gpu"],
        ["", NO_CAPACITY],
        f"Slurm job 7 lost a node (NodeDown); its nodes had been starting for 13 s: {FAILED_NODES}",
    ),
    "a boot failure that sinfo knew only before": (
        [*[CONFIGURING] * 13, "BOOT_FAIL|None||me|gpu"],
        [NO_CAPACITY, "p5-dy-gpu-1|idle~|none\np5-dy-gpu-2|idle~|none\n"],
        f"Slurm job 7 could not boot its nodes; its nodes had been starting for 13 s: "
        f"{FAILED_NODES}",
    ),
    "a node that did not resume in time": (
        [*[CONFIGURING] * 601, "NODE_FAIL|NodeDown|node-17|me|gpu"],
        ["node-17|down~|ResumeTimeout reached\n"],
        "Slurm job 7 lost a node (NodeDown); its nodes had been starting for 10 min: node-17 "
        "(down, powered down: ResumeTimeout reached)",
    ),
    "powered-down nodes that sinfo hides": (
        [CONFIGURING, CONFIGURING, "NODE_FAIL|NodeDown|p5-dy-gpu-[1-4]|me|gpu"],
        [""],
        "Slurm job 7 lost a node (NodeDown); its nodes had been starting for 2 s: its nodes "
        "were p5-dy-gpu-[1-4], and sinfo gives no reason for any",
    ),
    "cancelled in the queue": (
        ["PENDING|Priority||me|gpu", "CANCELLED|None||me|gpu"],
        [],
        "Slurm job 7 was cancelled from outside",
    ),
    "cancelled while fine nodes boot": (
        [CONFIGURING, "CANCELLED|None|p5-dy-gpu-[1-4]|me|gpu"],
        ["p5-dy-gpu-1|allocated#|none\n"],
        "Slurm job 7 was cancelled from outside",
    ),
    "forgotten": (
        ["PENDING|Priority||me|gpu", ""],
        [],
        "Slurm job 7 is no longer known to Slurm",
    ),
    "running": ([CONFIGURING, "RUNNING|None|p5-dy-gpu-[1-4]|me|gpu"], [NO_CAPACITY], None),
}


@pytest.mark.parametrize("name", ENDED)
def test_a_job_that_ended_before_it_ran_names_the_nodes_to_blame(name: str) -> None:
    story, looks, ended = ENDED[name]
    wait, now_s = after(*story)
    for look in looks:
        wait.update_nodes(parse_nodes(look))
    assert wait.over(now_s)
    assert wait.end_reason(LIMIT) == ended


def test_a_job_that_loses_its_nodes_and_waits_again_says_so() -> None:
    wait, now_s = after(*[CONFIGURING] * 30)
    assert wait.update(parse_state("PENDING|BeginTime||me|gpu"), now_s + 1.0)
    wait.update_nodes(parse_nodes(NO_CAPACITY))
    assert wait.requeued_text == (
        "Slurm job 7 lost its nodes and waits again; they had been starting for 30 s: "
        f"{FAILED_NODES}"
    )
    assert not wait.update(parse_state("PENDING|BeginTime||me|gpu"), now_s + 2.0)


def test_nodes_of_an_earlier_try_are_not_blamed_for_a_later_one() -> None:
    wait, now_s = after(CONFIGURING, "PENDING|BeginTime||me|gpu")
    wait.update_nodes(parse_nodes(NO_CAPACITY))
    for line in ("CONFIGURING|None|n[5-8]|me|gpu", "NODE_FAIL|NodeDown|n[5-8]|me|gpu"):
        now_s += 1.0
        wait.update(parse_state(line), now_s)
    assert wait.end_reason(LIMIT) == (
        "Slurm job 7 lost a node (NodeDown); its nodes had been starting for 1 s: its nodes "
        "were n[5-8], and sinfo gives no reason for any"
    )


@pytest.mark.parametrize(
    ("story", "wanted"),
    [
        (["PENDING|Priority||me|gpu"], False),
        ([CONFIGURING], True),
        ([CONFIGURING, "PENDING|BeginTime||me|gpu"], False),
        ([CONFIGURING, "BOOT_FAIL|None||me|gpu"], True),
        ([CONFIGURING, "RUNNING|None|p5-dy-gpu-[1-4]|me|gpu"], False),
    ],
)
def test_sinfo_is_asked_where_it_can_say_more(story: Sequence[str], wanted: bool) -> None:
    wait, _ = after(*story)
    assert wait.wants_nodes is wanted


def test_a_job_that_slurm_ends_gets_time_to_say_why() -> None:
    wait, now_s = after(CONFIGURING, "COMPLETING|NodeDown|p5-dy-gpu-[1-4]|me|gpu")
    assert not wait.over(now_s + 5.0)
    assert wait.over(now_s + 10.1)


@dataclass
class Clock:
    now_s: float = 0.0
    said: list[tuple[float, str]] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append((self.now_s, text))


@pytest.mark.parametrize("step_s", [0.2, 1.0, 2.9])
def test_no_silence_is_longer_than_fifteen_seconds(step_s: float) -> None:
    clock = Clock()
    reporter = Reporter(clock.say, first_s=2.0, clock=lambda: clock.now_s)
    while clock.now_s < 120.0:
        clock.now_s += step_s
        reporter.tick(lambda: "waiting")
    times = [0.0, *(at_s for at_s, _ in clock.said)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) <= REPORT_S
    assert len(clock.said) <= 10
