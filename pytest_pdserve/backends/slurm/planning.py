"""What is said to Slurm. Nothing here needs Slurm's accounting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from pytest_pdserve.backends.slurm.job_state import GONE
from pytest_pdserve.backends.slurm.job_state import JobState
from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.secrets import Redactor

_OF_THE_LOGIN = frozenset(
    {
        *("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST"),
        *("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
    }
)
"""What names things of the login node, or proxies, through which nodes would reach each other."""
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_FOREIGN = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SCANCEL_", "SINFO_", "SLURMD_")


def on_cluster(argv: Sequence[str], cluster: str) -> list[str]:
    """Return a command of Slurm that asks the controller of *cluster*, or several; empty is ours.

    srun takes the option for a step of a job there too (tried with two clusters of Slurm 22.05).
    """
    return [argv[0], *([f"--clusters={cluster}"] if cluster else []), *argv[1:]]


def is_ambiguous(clusters: str) -> bool:
    """Whether a job of *clusters* is not told by its number alone: each counts for itself."""
    return "," in clusters or clusters == "all"


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """*environment* without what steers Slurm's commands; ``SLURM_CONF`` only says which."""
    return {
        name: value
        for name, value in environment.items()
        if name == "SLURM_CONF" or not (name.startswith(_FOREIGN) or name in _OF_THE_LOGIN)
    }


def job_environment(environment: Mapping[str, str], redactor: Redactor) -> dict[str, str]:
    """The clean environment without what looks like a secret: Slurm writes a job's to its disk.

    :param redactor: knows further secrets by their values.
    """
    return {
        name: value
        for name, value in clean_environment(environment).items()
        if not _SECRET.search(name) and redactor.text(value) == value
    }


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
    cluster: str = "",
) -> list[str]:
    """A step with one task on each of *nodes*, beside the steps that run there already.

    It shares all that the job has there, cores and memory included: Slurm would bind one task to
    one core.

    :param cluster: the job's; empty is the login node's own.
    """
    step = [
        *("srun", f"--jobid={job}", "--overlap", f"--job-name={name}"),
        *(f"--nodes={len(nodes)}", f"--ntasks={len(nodes)}", "--ntasks-per-node=1"),
        *(f"--nodelist={','.join(nodes)}", "--kill-on-bad-exit=0", "--mpi=none"),
        *("--cpu-bind=none", "--mem=0", "--quiet"),
        *("--propagate=NONE", "--wait=0"),
        *args,
        *argv,
    ]
    return on_cluster(step, cluster)


def queue_argv(partition: str) -> list[str]:
    """Asks for the waiting jobs of a partition, the next one first."""
    return [
        *("squeue", "--noheader", "--states=PENDING", f"--partition={partition}"),
        *("--sort=-p,i", "--format=%i"),
    ]


def parse_queue(text: str, job: str) -> tuple[int, int] | None:
    """Position of *job*, from 1, among how many that wait; None if it does not wait."""
    waiting = [word for word in text.split() if word[0].isdecimal()]  # not a cluster's headline
    return (waiting.index(job) + 1, len(waiting)) if job in waiting else None


def expand_argv(host_list: str) -> list[str]:
    """Asks for the single names of a host list such as ``p5-[03-06]``."""
    return ["scontrol", "show", "hostnames", host_list]


def cancel_argv(job: str) -> list[str]:
    """Ends a job."""
    return ["scancel", "--quiet", job]


def cancel_by_name_argv(name: str, user: str, clusters: str = "") -> list[str]:
    """Ends a job whose id nobody learned, on the clusters where it may be."""
    return on_cluster(["scancel", "--quiet", f"--name={name}", f"--user={user}"], clusters)


def check_reusable(job: str, state: JobState, *, user: str, nodes: int, needed: int) -> None:
    """Make sure that a job which somebody else started can be used.

    :param nodes: how many it has.
    :raises AllocationError: if it does not run, is not ours, or is too small.
    """
    option = f"--pdserve-job-id {job}"
    if state.state == GONE:
        raise AllocationError(f"{option}: Slurm knows no such job")
    if state.state != "RUNNING":
        raise AllocationError(f"{option}: the job is {state.state}, it must be RUNNING")
    if state.user != user:
        raise AllocationError(f"{option}: the job is {state.user}'s, not {user}'s")
    if nodes < needed:
        raise AllocationError(f"{option}: the job has {nodes} nodes, the system needs {needed}")
