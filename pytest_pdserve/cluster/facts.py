"""What a node is and has, seen from the node itself."""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import psutil

from pytest_pdserve.values.slurm import NodeFacts

_COMMAND_S = 20.0


def node_name() -> str:
    """Name by which Slurm knows this node; several may share a host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]


def look(node: str, *, interface: str = "", patterns: Sequence[str] = ()) -> NodeFacts:
    """See what this node is and has."""
    addresses = _ipv4_addresses()
    chosen = interface or _default_interface()
    gpus = _gpus()
    return NodeFacts(
        node=node,
        address=addresses.get(chosen or ""),
        interface=chosen,
        interfaces=tuple(addresses),
        gpus=len(gpus) if gpus is not None else None,
        devices=tuple(sorted({path for pattern in patterns for path in glob.glob(pattern)})),
        memory_available_gib=psutil.virtual_memory().available / 2**30,
        host={**describe_hardware(), **_gpu_model(gpus)},
        versions=describe_drivers(gpus),
    )


def describe_hardware() -> dict[str, str]:
    """The hardware that decides how fast this machine serves."""
    return {
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory_gib": str(round(psutil.virtual_memory().total / 2**30)),
    }


def said(argv: Sequence[str]) -> str:
    """Standard output of a command; empty if it is absent, fails or hangs."""
    if not argv or shutil.which(argv[0]) is None:
        return ""
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=_COMMAND_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _ipv4_addresses() -> dict[str, str]:
    """The first address of each interface; further ones may float between nodes."""
    return {
        name: entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in reversed(entries)
        if entry.family == socket.AF_INET
    }


def _default_interface() -> str | None:
    """Interface of the IPv4 default route, the one of the least metric."""
    try:
        rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    except OSError:
        return None
    routes = [(int(row[6]), row[0]) for row in rows if row[1] == row[7] == "00000000"]
    return min(routes)[1] if routes else None


def _gpus() -> list[str] | None:
    """A line per GPU: name and driver; None without a driver that answers."""
    lines = said(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    ).splitlines()
    return lines or None


def _gpu_model(gpus: Sequence[str] | None) -> dict[str, str]:
    if not gpus:
        return {}
    return {"gpu": gpus[0].partition(",")[0].strip(), "gpus": str(len(gpus))}


def describe_drivers(gpus: Sequence[str] | None = None) -> Mapping[str, str]:
    """Versions of what lies below the containers."""
    found = {"kernel": platform.release()}
    if gpus:
        found["driver"] = gpus[0].rpartition(",")[2].strip()
    with contextlib.suppress(OSError):
        efa = Path("/opt/amazon/efa_installed_packages").read_text().splitlines()
        found["efa"] = efa[0].removeprefix("#").strip()
    return found


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
