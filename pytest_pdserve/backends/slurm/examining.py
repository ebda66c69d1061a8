"""What a session on a Slurm cluster needs of the login node; nothing is submitted to see it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.backends.examining import machine
from pytest_pdserve.backends.examining import software
from pytest_pdserve.backends.slurm import controller
from pytest_pdserve.backends.slurm.options import Preflight
from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.results.compatibility import known_packages
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.prerequisites import required
from pytest_pdserve.values.prerequisites import unchecked
from pytest_pdserve.values.prerequisites import unneeded
from pytest_pdserve.values.system import System

PARTITION = "Slurm partition"
_ON_NODES = "nodes tell once they are held"
_PARTITIONS = ("sinfo", "--noheader", "--format=%P|%a|%F")
_NOT_ASKED = "not asked: commands are missing"
Ask = Callable[[Sequence[str]], str | None]
"""Asks a command of Slurm; None if it does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition of the cluster."""

    name: str
    """Its name."""
    default: bool
    """Whether jobs go there that name none."""
    up: bool
    """Whether jobs start there."""
    nodes: int
    """Its nodes, whatever they do."""


def examine_cluster(system: System) -> list[Prerequisite]:
    """Return a row for each thing that the login node needs, and for what nodes are asked."""
    missing = controller.missing_programs()
    ask = controller.Controller(system.table("slurm", SlurmSpec).clusters).ask
    return [
        software.distribution_row("submitit", extra="slurm"),
        commands_row(missing),
        *slurm_rows(system, None if missing else ask),
        *software.serving_software(system),
        *software.plugin_rows(system, needed=software.nixl_plugin(system), here=False),
        *node_rows(system),
        engine_row(system, ask),
    ]


def commands_row(missing: Sequence[str]) -> Prerequisite:
    """Return the row of Slurm's commands.

    :param missing: those that are not on PATH.
    """
    names = ", ".join(missing)
    return required(
        machine.SLURM_COMMANDS,
        found=f"no {names} on PATH" if missing else "all on PATH",
        needed=f"{len(controller.PROGRAMS)} commands",
        there=not missing,
        advice="Run on a login node, or choose a local system by --system.",
    )


def slurm_rows(system: System, ask: Ask | None) -> list[Prerequisite]:
    """Return the rows of Slurm's version and of the partition.

    :param ask: asks Slurm; None where its commands are missing.
    """
    if ask is None:
        return [
            unchecked(what, found=_NOT_ASKED, needed=needed)
            for what, needed in (("Slurm", "any version"), (PARTITION, _nodes_text(system)))
        ]
    version = parse_version(ask(["sinfo", "--version"]) or "")
    told = (
        unchecked("Slurm", found="does not tell its version", needed="any version")
        if version is None
        else software.package_row(known_packages()["Slurm"], version, advice="")
    )
    return [told, partition_row(system, ask(_PARTITIONS))]


def parse_version(text: str) -> str | None:
    """Return the version of ``sinfo --version``, e.g. of ``slurm-wlm 22.05.8``; None of others."""
    words = text.split()
    return words[1] if len(words) == 2 and words[0].startswith("slurm") else None


def parse_partitions(text: str) -> dict[str, Partition]:
    """Read what ``sinfo`` prints of partitions, by their names; other lines are passed over."""
    found = {}
    for line in text.splitlines():
        name, up, nodes = [*line.strip().split("|"), "", ""][:3]
        total = nodes.rpartition("/")[2]
        if total.isdecimal():
            plain = name.removesuffix("*")
            found[plain] = Partition(
                name=plain, default=name != plain, up=up == "up", nodes=int(total)
            )
    return found


def partition_row(system: System, said: str | None) -> Prerequisite:
    """Return the row of the partition that the session's job would go to.

    :param said: what ``sinfo`` printed of partitions; None if it did not answer.
    """
    spec = system.table("slurm", SlurmSpec)
    known = parse_partitions(said or "")
    asked = (
        spec.partition.split(",")
        if spec.partition
        else [p.name for p in known.values() if p.default]
    )
    there = [known[name] for name in asked if name in known]
    nodes = system.cluster.nodes + spec.client_node
    change = f"set [slurm] partition in {system.source}"
    found, advice = ", ".join(_words(each) for each in there), ""
    if said is None:
        found, advice = (
            "Slurm does not answer",
            "Start slurmctld, or set SLURM_CONF: `sinfo` must answer.",
        )
    elif len(there) < len(asked) or not there:
        names = ", ".join(known) or "none"
        found, advice = f"known are {names}", f"Name one of these: {change}."
    elif not any(each.up for each in there):
        advice = f"Wait until it is up, or {change}."
    elif max(each.nodes for each in there if each.up) < nodes:
        advice = f"Choose a partition of {nodes} nodes: {change}."
    return required(
        PARTITION, found=found, needed=_nodes_text(system), there=not advice, advice=advice
    )


def _words(partition: Partition) -> str:
    state = "up" if partition.up else "down"
    return f"{partition.name} is {state}, {partition.nodes} nodes"


def _nodes_text(system: System) -> str:
    spec = system.table("slurm", SlurmSpec)
    name = spec.partition or "the default one"
    return f"{name}, {system.cluster.nodes + spec.client_node} nodes"


def node_rows(system: System) -> list[Prerequisite]:
    """Return the rows of what only nodes can tell; ``[preflight]`` says what they are asked."""
    asked = system.table("preflight", Preflight)
    return [
        _asked(machine.GPUS, f"{asked.gpus} per node" if asked.gpus else ""),
        _asked(
            machine.FABRIC,
            ", ".join(f"{count} {pattern}" for pattern, count in asked.devices.items()),
            "[preflight.devices] so that a node without EFA is replaced"
            if machine.names_efa(system)
            else "",
        ),
        _asked(machine.MEMORY, f"{asked.memory_gib:g} GiB" if asked.memory_gib else ""),
    ]


def _asked(what: str, needed: str, better: str = "") -> Prerequisite:
    """The row of something that nodes are asked for, where they are.

    :param better: what should be set where they are not.
    """
    if needed:
        return unchecked(what, found=_ON_NODES, needed=needed)
    if better:
        return unchecked(what, found="nodes are not asked", needed="yes", advice=f"Set {better}.")
    return unneeded(what, "nodes are not asked")


def engine_row(system: System, ask: Ask) -> Prerequisite:
    """Return the row of the container engine: pyxis is srun's plugin, others only nodes have."""
    kind = system.container.kind
    if kind == "none":
        return unneeded(machine.ENGINE, "nodes are not asked")
    if kind != "pyxis":
        return unchecked(machine.ENGINE, found=_ON_NODES, needed=f"container.kind {kind}")
    there = "--container-image" in (ask(["srun", "--help"]) or "")
    return required(
        machine.ENGINE,
        found="srun has --container-image" if there else "srun has no --container-image",
        needed="container.kind pyxis",
        there=there,
        advice="Install pyxis on the login node and on all nodes, or choose another "
        "container.kind.",
    )
