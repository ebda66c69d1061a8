"""Rows of ``pdserve doctor`` for systems on a Slurm cluster; no job is submitted."""

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
_ON_NODES = "checked on the nodes of the job"
_PARTITIONS = ("sinfo", "--noheader", "--format=%P|%a|%F")
_NO_COMMANDS = "Slurm commands are missing"
_NO_CHECK = "nodes are not checked"
Ask = Callable[[Sequence[str]], str | None]
"""Runs a Slurm command and returns its output; None if the controller does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition of the cluster."""

    name: str
    default: bool
    """True if jobs without a partition go there."""
    up: bool
    """True if jobs can start there."""
    nodes: int
    """Number of nodes in any state."""


def examine_cluster(system: System) -> list[Prerequisite]:
    """Return the rows of the login node, and of what is checked on the nodes later."""
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

    :param ask: None if Slurm's commands are missing.
    """
    if ask is None:
        return [
            unchecked(what, found=_NO_COMMANDS, needed=needed)
            for what, needed in (("Slurm", "any version"), (PARTITION, _nodes_text(system)))
        ]
    version = parse_version(ask(["sinfo", "--version"]) or "")
    row = (
        unchecked("Slurm", found="reports no version", needed="any version")
        if version is None
        else software.package_row(known_packages()["Slurm"], version, advice="")
    )
    return [row, partition_row(system, ask(_PARTITIONS))]


def parse_version(text: str) -> str | None:
    """Return the version in ``sinfo --version``, e.g. ``slurm-wlm 22.05.8``; None if invalid."""
    words = text.split()
    return words[1] if len(words) == 2 and words[0].startswith("slurm") else None


def parse_partitions(text: str) -> dict[str, Partition]:
    """Parse the partitions in ``sinfo``'s output, by name; other lines are skipped."""
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


def partition_row(system: System, output: str | None) -> Prerequisite:
    """Return the row of the partition that the session's job would go to.

    :param output: partitions as ``sinfo`` prints them; None if it did not answer.
    """
    spec = system.table("slurm", SlurmSpec)
    partitions = parse_partitions(output or "")
    wanted = (
        spec.partition.split(",")
        if spec.partition
        else [p.name for p in partitions.values() if p.default]
    )
    there = [partitions[name] for name in wanted if name in partitions]
    nodes = system.cluster.held_nodes + spec.client_node
    change = f"set [slurm] partition in {system.source}"
    found, advice = ", ".join(_partition_text(each) for each in there), ""
    if output is None:
        found, advice = (
            "Slurm does not answer",
            "Start slurmctld, or set SLURM_CONF: `sinfo` must answer.",
        )
    elif len(there) < len(wanted) or not there:
        names = ", ".join(partitions) or "none"
        found, advice = f"known are {names}", f"Name one of these: {change}."
    elif not any(each.up for each in there):
        advice = f"Wait until it is up, or {change}."
    elif max(each.nodes for each in there if each.up) < nodes:
        advice = f"Choose a partition of {nodes} nodes: {change}."
    return required(
        PARTITION, found=found, needed=_nodes_text(system), there=not advice, advice=advice
    )


def _partition_text(partition: Partition) -> str:
    state = "up" if partition.up else "down"
    return f"{partition.name} is {state}, {partition.nodes} nodes"


def _nodes_text(system: System) -> str:
    spec = system.table("slurm", SlurmSpec)
    name = spec.partition or "the default one"
    return f"{name}, {system.cluster.held_nodes + spec.client_node} nodes"


def node_rows(system: System) -> list[Prerequisite]:
    """Return the rows of what ``[preflight]`` checks on the nodes."""
    preflight = system.table("preflight", Preflight)
    return [
        _node_row(machine.GPUS, f"{preflight.gpus} per node" if preflight.gpus else ""),
        _node_row(
            machine.FABRIC,
            ", ".join(f"{count} {pattern}" for pattern, count in preflight.devices.items()),
            "[preflight.devices] so that a node without EFA is replaced"
            if machine.names_efa(system)
            else "",
        ),
        _node_row(machine.MEMORY, f"{preflight.memory_gib:g} GiB" if preflight.memory_gib else ""),
    ]


def _node_row(what: str, needed: str, better: str = "") -> Prerequisite:
    """Return the row of something that the preflight can check on nodes.

    :param needed: what the preflight requires; empty if it does not check.
    :param better: what should be set if it does not check.
    """
    if needed:
        return unchecked(what, found=_ON_NODES, needed=needed)
    if better:
        return unchecked(what, found=_NO_CHECK, needed="yes", advice=f"Set {better}.")
    return unneeded(what, _NO_CHECK)


def engine_row(system: System, ask: Ask) -> Prerequisite:
    """Return the row of the container engine; only pyxis, an srun plugin, is checked here."""
    kind = system.container.kind
    if kind == "none":
        return unneeded(machine.ENGINE, _NO_CHECK)
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
