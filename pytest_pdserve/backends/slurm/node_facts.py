"""Reads the facts of the node on which it runs, for the holder's report."""

from __future__ import annotations

import glob
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import psutil

from pytest_pdserve.backends.hosts.facts import describe_drivers
from pytest_pdserve.backends.hosts.facts import describe_hardware
from pytest_pdserve.backends.hosts.facts import gpu_model
from pytest_pdserve.backends.hosts.facts import list_gpus
from pytest_pdserve.backends.slurm.options import NodeFacts


def node_name() -> str:
    """Return Slurm's name of this node; several nodes may share a host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]


def read_node_facts(node: str, *, interface: str = "", patterns: Sequence[str] = ()) -> NodeFacts:
    """Read address, devices, memory and versions of this node.

    :param interface: interface of the address; empty is the default route's.
    :param patterns: globs of device files to report.
    """
    addresses = _ipv4_addresses()
    chosen = interface or _default_interface()
    gpus = list_gpus()
    return NodeFacts(
        node=node,
        address=addresses.get(chosen or ""),
        interface=chosen,
        interfaces=tuple(addresses),
        gpus=len(gpus) if gpus is not None else None,
        devices=tuple(sorted({path for pattern in patterns for path in glob.glob(pattern)})),
        memory_available_gib=psutil.virtual_memory().available / 2**30,
        host={**describe_hardware(), **gpu_model(gpus)},
        versions=describe_drivers(gpus),
    )


def _ipv4_addresses() -> dict[str, str]:
    """Return the first address of each interface; others may be floating addresses."""
    return {
        name: entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in reversed(entries)
        if entry.family == socket.AF_INET
    }


def _default_interface() -> str | None:
    """Return the interface of the IPv4 default route with the lowest metric."""
    try:
        rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    except OSError:
        return None
    routes = [(int(row[6]), row[0]) for row in rows if row[1] == row[7] == "00000000"]
    return min(routes)[1] if routes else None
