"""Rows of ``pdserve doctor`` for systems that run on this machine."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_pdserve.backends.examining import machine
from pytest_pdserve.backends.examining import software
from pytest_pdserve.backends.fabric.checking import library_rows
from pytest_pdserve.backends.fabric.checking import with_libraries
from pytest_pdserve.backends.fabric.folder import library_versions
from pytest_pdserve.backends.hosts.facts import list_gpus
from pytest_pdserve.backends.hosts.runner import reserve_port
from pytest_pdserve.backends.local.gpus import slot_gpus
from pytest_pdserve.backends.nodes import with_spares
from pytest_pdserve.results.compatibility import installed_version
from pytest_pdserve.results.compatibility import known_packages
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.prerequisites import required
from pytest_pdserve.values.system import System


def examine_machine(system: System) -> list[Prerequisite]:
    """Return a row for each thing that servers on this machine need."""
    vllm = installed_version(known_packages()["vLLM"])
    return [
        *software.serving_software(system, library_versions(system)),
        *library_rows(system),
        *software.plugin_rows(
            with_libraries(system), needed=software.nixl_plugin(system), here=True
        ),
        machine.gpus_row(gpus_needed(with_spares(system), vllm), list_gpus()),
        machine.fabric_row(machine.names_efa(system), *machine.fabric_facts()),
        machine.engine_row(system),
        machine.memory_row(system),
        ports_row(system),
    ]


def gpus_needed(system: System, vllm: str | None) -> int:
    """Return how many GPUs the servers of *system* use; 0 if they run on the CPU.

    ``gpus_per_node`` counts a CPU slot as one GPU. Whether servers run on the CPU follows from
    vLLM's build, or from the memory that holds the KV cache.

    :param vllm: version of the vLLM installed here.
    """
    if system.cluster.device is not None:
        return slot_gpus(system)
    on_cpu = system.kv_transfer.buffer_device == "cpu"
    built_for_cpu = "+cpu" in (vllm or "") and not system.container.contained
    return 0 if on_cpu or built_for_cpu else system.cluster.nodes * system.cluster.gpus_per_node


def ports_row(system: System) -> Prerequisite:
    """Return the row of free ports: enough for one instance on each node."""
    scheme, nodes = system.ports, system.cluster.nodes
    needed = {
        "http": nodes + 2,  # the router has one for its metrics too
        "side_channel": nodes * system.cluster.gpus_per_node,
        "rpc": nodes,
    }
    bases = {"http": scheme.http, "side_channel": scheme.side_channel, "rpc": scheme.rpc}
    found = {
        kind: _count_free(range(base, min(base + scheme.span, 65536)), needed[kind])
        for kind, base in bases.items()
    }
    lacking = [kind for kind in needed if found[kind] < needed[kind]]
    where = ", ".join(f"{bases[kind]}-{bases[kind] + scheme.span - 1}" for kind in lacking)
    short = ", ".join(f"{kind} {found[kind]} of {needed[kind]}" for kind in lacking)
    return required(
        "free ports",
        found=short or f"{sum(found.values())} free",
        needed=f"{sum(needed.values())} in [ports]",
        there=not lacking,
        advice=f"Free ports in {where}, or change [ports] in {system.source}.",
    )


def _count_free(ports: Iterable[int], enough: int) -> int:
    """Return how many of *ports* are free, at most *enough*."""
    free = 0
    for port in ports:
        if free == enough:
            break
        if (reserved := reserve_port(port)) is not None:
            reserved.close()
            free += 1
    return free
