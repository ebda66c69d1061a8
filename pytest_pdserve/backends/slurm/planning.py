"""Builds Slurm's commands, job parameters and environments; accounting is not needed."""

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
"""Variables that are valid only on the login node, and proxies, which nodes must not use."""
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_FOREIGN = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SCANCEL_", "SINFO_", "SLURMD_")


def on_cluster(argv: Sequence[str], cluster: str) -> list[str]:
    """Return a Slurm command for *cluster*, or for several; empty is the login node's own.

    srun takes the option for a step of a job there too (tried with two clusters of Slurm 22.05).
    """
    return [argv[0], *([f"--clusters={cluster}"] if cluster else []), *argv[1:]]


def is_ambiguous(clusters: str) -> bool:
    """Return whether *clusters* are several, so that a job ID alone does not identify a job."""
    return "," in clusters or clusters == "all"


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return *environment* without variables that change Slurm's commands, but ``SLURM_CONF``."""
    return {
        name: value
        for name, value in environment.items()
        if name == "SLURM_CONF" or not (name.startswith(_FOREIGN) or name in _OF_THE_LOGIN)
    }


def job_environment(environment: Mapping[str, str], redactor: Redactor) -> dict[str, str]:
    """Return the clean environment without likely secrets: Slurm writes a job's to disk.

    :param redactor: finds further secrets by their values.
    """
    return {
        name: value
        for name, value in clean_environment(environment).items()
        if not _SECRET.search(name) and redactor.text(value) == value
    }


def job_name(user: str, host: str, run_id: str) -> str:
    """Return the name of the session's job: user, host and run id."""
    text = f"pdserve-{user}@{host}-{run_id}"
    return re.sub(r"[^\w.@+-]", "_", text)


def job_parameters(
    spec: SlurmSpec, *, name: str, nodes: int, excluded: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the parameters of submitit's ``SlurmExecutor`` for a job of *nodes* nodes.

    :param excluded: nodes that failed the preflight, in addition to ``slurm.exclude``.
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
            # submitit requests USR2 before the time limit, which would end servers in every step.
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
    """Return the ``srun`` command of a step with one task on each of *nodes*.

    It shares all resources of the job, cores and memory included, with the other steps: by
    default, Slurm would bind a task to one core.

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
    """Return the command that prints the waiting jobs of a partition, the next one first."""
    return [
        *("squeue", "--noheader", "--states=PENDING", f"--partition={partition}"),
        *("--sort=-p,i", "--format=%i"),
    ]


def parse_queue(text: str, job: str) -> tuple[int, int] | None:
    """Return the position of *job* in the queue, from 1, and its length; None if not in it."""
    waiting = [word for word in text.split() if word[0].isdecimal()]  # not a cluster's headline
    return (waiting.index(job) + 1, len(waiting)) if job in waiting else None


def expand_argv(host_list: str) -> list[str]:
    """Return the command that prints the single names of a host list like ``p5-[03-06]``."""
    return ["scontrol", "show", "hostnames", host_list]


def cancel_argv(job: str) -> list[str]:
    """Return the command that cancels a job."""
    return ["scancel", "--quiet", job]


def cancel_by_name_argv(name: str, user: str, clusters: str = "") -> list[str]:
    """Return the command that cancels a job by its name, on the clusters where it may be."""
    return on_cluster(["scancel", "--quiet", f"--name={name}", f"--user={user}"], clusters)


def check_reusable(job: str, state: JobState, *, user: str, nodes: int, needed: int) -> None:
    """Raise if a running job cannot be used by this session.

    :param nodes: number of the job's nodes.
    :raises AllocationError: if it does not run, belongs to another user, or is too small.
    """
    option = f"--pdserve-job-id {job}"
    if state.state == GONE:
        raise AllocationError(f"{option}: Slurm has no such job")
    if state.state != "RUNNING":
        raise AllocationError(f"{option}: the job is {state.state}, it must be RUNNING")
    if state.user != user:
        raise AllocationError(f"{option}: the job is {state.user}'s, not {user}'s")
    if nodes < needed:
        raise AllocationError(f"{option}: the job has {nodes} nodes, the system needs {needed}")
