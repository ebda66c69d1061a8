"""What is said to Slurm and what its answers mean. Nothing here needs Slurm's accounting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.values.errors import AllocationError

HOPELESS = frozenset(
    {
        *("AccountNotAllowed", "BadConstraints", "InvalidAccount", "InvalidQOS", "JobHeldAdmin"),
        *("JobHeldUser", "PartitionDown", "PartitionInactive", "PartitionNodeLimit"),
        *("PartitionTimeLimit", "QOSNotAllowed", "ReservationDeleted"),
    }
)
"""Reasons for which a pending job starts only after somebody changed something."""
HOPELESS_S = 10.0
"""How long such a reason may stand before it is believed, seconds."""

_ENDINGS = {
    "TIMEOUT": "reached its time limit of {limit} min (slurm.time_limit_min)",
    "CANCELLED": "was cancelled from outside",
    "PREEMPTED": "was preempted by another job",
    "NODE_FAIL": "lost a node",
    "SUSPENDED": "was suspended",
    "FAILED": "failed: a process that held a node ended",
    "COMPLETED": "ended on its own",
    "OUT_OF_MEMORY": "ran out of its memory",
    "BOOT_FAIL": "could not boot its nodes",
    "DEADLINE": "reached its deadline",
    "PENDING": "was requeued and waits again",
    "REQUEUED": "was requeued",
    "COMPLETING": "is being ended by Slurm",
    "GONE": "is no longer known to Slurm",
}
_FINAL = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "GONE", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    }
)
_BAD_NODE = re.compile(
    r"(down|drain|fail|error|no_respond|power(ing|ed)_down|reboot|maint|.*\*$)", re.I
)
_OF_THE_LOGIN = frozenset(
    {
        *("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST"),
        *("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
    }
)
"""What names things of the login node, or proxies, through which nodes would reach each other."""
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_FOREIGN = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SCANCEL_", "SINFO_", "SLURMD_")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What ``squeue`` says of a job."""

    state: str
    """Long name, e.g. ``RUNNING``; ``GONE`` if Slurm has forgotten it."""
    reason: str = ""
    """Why it waits or ended, e.g. ``Resources``."""
    nodes: str = ""
    """Host list; empty while it waits."""
    user: str = ""
    """Whose it is."""
    partition: str = ""
    """Where it runs or waits."""

    @property
    def pending(self) -> bool:
        """Whether it still waits for its nodes."""
        return self.state in {"PENDING", "CONFIGURING"}

    @property
    def hopeless(self) -> bool:
        """Whether it waits for what does not come by itself."""
        return self.pending and self.reason in HOPELESS

    @property
    def over(self) -> bool:
        """Whether nothing of it is left on its nodes."""
        return self.state in _FINAL

    def trouble(self, job: str, limit_min: int) -> str | None:
        """Why a job that should run does not; None if it does."""
        if self.state == "RUNNING":
            return None
        ending = _ENDINGS.get(self.state, f"is {self.state}").format(limit=limit_min)
        why = f" ({self.reason})" if self.reason not in ("", "None") else ""
        return f"Slurm job {job} {ending}{why}"

    @property
    def ending(self) -> bool:
        """Whether Slurm ends it just now, and will soon say why."""
        return self.state == "COMPLETING"


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """*environment* without what steers Slurm's commands; ``SLURM_CONF`` only says which."""
    return {
        name: value
        for name, value in environment.items()
        if name == "SLURM_CONF" or not (name.startswith(_FOREIGN) or name in _OF_THE_LOGIN)
    }


def job_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The clean environment without what looks like a secret: Slurm writes a job's to its disk."""
    clean = clean_environment(environment)
    return {name: value for name, value in clean.items() if not _SECRET.search(name)}


def job_name(user: str, host: str, run_id: str) -> str:
    """Name of the session's job: whose it is, where it was started, and which run."""
    text = f"pdserve-{user}@{host}-{run_id}"
    return re.sub(r"[^\w.@+-]", "_", text)


def job_parameters(
    spec: SlurmSpec, *, name: str, nodes: int, excluded: Sequence[str] = ()
) -> dict[str, Any]:
    """Parameters of submitit's ``SlurmExecutor`` for a job that holds *nodes*.

    :param excluded: nodes that failed the preflight, besides ``slurm.exclude``.
    """
    named = {
        "partition": spec.partition,
        "account": spec.account,
        "qos": spec.qos,
        "constraint": spec.constraint,
        "exclude": ",".join(filter(None, [spec.exclude, *excluded])),
        "gres": spec.gres,
        "mem": "0" if spec.exclusive else "",  # all of it, not the partition's default
    }
    more = {"reservation": spec.reservation, **spec.parameters}
    return {
        "job_name": name,
        "nodes": nodes,
        "ntasks_per_node": 1,
        "time": spec.time_limit_min,
        **({"exclusive": True} if spec.exclusive else {}),
        **{key: value for key, value in named.items() if value},
        "srun_args": [
            "--job-name=pdserve-holder",
            "--overlap",
            "--kill-on-bad-exit=0",
            "--mpi=none",
            "--wait=0",
        ],
        "additional_parameters": {
            "no-requeue": True,
            # submitit asks for USR2 before the time limit, which would end servers in every step.
            "signal": "CONT@1",
            **{key: value for key, value in more.items() if value},
        },
    }


def step_argv(
    job: str,
    nodes: Sequence[str],
    argv: Sequence[str],
    *,
    name: str,
    args: Sequence[str] = (),
) -> list[str]:
    """A step with one task on each of *nodes*, beside the steps that run there already.

    It shares all that the job has there, cores and memory included: Slurm would bind one task to
    one core.
    """
    return [
        *("srun", f"--jobid={job}", "--overlap", f"--job-name={name}"),
        *(f"--nodes={len(nodes)}", f"--ntasks={len(nodes)}", "--ntasks-per-node=1"),
        *(f"--nodelist={','.join(nodes)}", "--kill-on-bad-exit=0", "--mpi=none"),
        *("--cpu-bind=none", "--mem=0", "--quiet"),
        *("--propagate=NONE", "--wait=0"),
        *args,
        *argv,
    ]


def state_argv(job: str) -> list[str]:
    """Asks for the state of one job, ended ones included."""
    return ["squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%T|%r|%N|%u|%P"]


def parse_state(text: str) -> JobState:
    """Read what :func:`state_argv` printed."""
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) == 5:
            return JobState(
                state=fields[0],
                reason=fields[1],
                nodes=fields[2],
                user=fields[3],
                partition=fields[4],
            )
    return JobState(state="GONE")


def queue_argv(partition: str) -> list[str]:
    """Asks for the waiting jobs of a partition, the next one first."""
    return [
        *("squeue", "--noheader", "--states=PENDING", f"--partition={partition}"),
        *("--sort=-p,i", "--format=%i"),
    ]


def parse_queue(text: str, job: str) -> tuple[int, int] | None:
    """Position of *job*, from 1, among how many that wait; None if it does not wait."""
    waiting = text.split()
    return (waiting.index(job) + 1, len(waiting)) if job in waiting else None


def pending_text(job: str, state: JobState, place: tuple[int, int] | None, waited_s: float) -> str:
    """One progress line of a job that waits."""
    where = f", {place[0]} of {place[1]} in {state.partition}" if place else ""
    return f"Slurm job {job} waits{where}: {state.reason or state.state} ({waited_s:.0f} s)"


def waiting_trouble(
    job: str,
    state: JobState | None,
    *,
    waited_s: float,
    hopeless_s: float,
    limit_s: float,
    source: str,
) -> str | None:
    """Why a job that still waits is given up; None while it may wait on.

    :param state: None if the controller does not answer.
    :param hopeless_s: how long its reason has been a hopeless one.
    :param limit_s: longest wait, ``slurm.queue_s``.
    :param source: the system file.
    """
    reason = (state.reason or state.state) if state is not None else "the controller is silent"
    if hopeless_s >= HOPELESS_S:
        return f"Slurm job {job} cannot start: {reason}; see [slurm] in {source}"
    if waited_s > limit_s:
        return f"Slurm job {job} did not start within {limit_s:g} s (slurm.queue_s): {reason}"
    return None


def nodes_argv(nodes: Sequence[str]) -> list[str]:
    """Asks for the states of nodes."""
    return ["sinfo", "--noheader", "--Node", f"--nodes={','.join(nodes)}", "--format=%N|%T|%E"]


def parse_bad_nodes(text: str) -> dict[str, str]:
    """Nodes that are down, drained or silent, with their state and Slurm's reason."""
    bad = {}
    for line in text.splitlines():
        name, state, reason = [*line.strip().split("|", 2), "", ""][:3]
        if _BAD_NODE.match(state):
            said = state.lower().replace("*", ", does not respond")
            bad[name] = said + (f": {reason}" if reason not in ("", "none") else "")
    return bad


def bad_nodes_text(bad: Mapping[str, str]) -> str:
    """Bad nodes as one clause: ``pd2 (down, does not respond: power cut)``."""
    return ", ".join(f"{node} ({state})" for node, state in sorted(bad.items()))


def expand_argv(host_list: str) -> list[str]:
    """Asks for the single names of a host list such as ``p5-[03-06]``."""
    return ["scontrol", "show", "hostnames", host_list]


def cancel_argv(job: str) -> list[str]:
    """Ends a job."""
    return ["scancel", "--quiet", job]


def cancel_by_name_argv(name: str, user: str) -> list[str]:
    """Ends a job whose id nobody learned."""
    return ["scancel", "--quiet", f"--name={name}", f"--user={user}"]


def check_reusable(job: str, state: JobState, *, user: str, nodes: int, needed: int) -> None:
    """Make sure that a job which somebody else started can be used.

    :param nodes: how many it has.
    :raises AllocationError: if it does not run, is not ours, or is too small.
    """
    option = f"--pdserve-job-id {job}"
    if state.state == "GONE":
        raise AllocationError(f"{option}: Slurm knows no such job")
    if state.state != "RUNNING":
        raise AllocationError(f"{option}: the job is {state.state}, it must be RUNNING")
    if state.user != user:
        raise AllocationError(f"{option}: the job is {state.user}'s, not {user}'s")
    if nodes < needed:
        raise AllocationError(f"{option}: the job has {nodes} nodes, the system needs {needed}")
