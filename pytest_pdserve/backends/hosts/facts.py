"""Reads hardware, drivers and programs of this machine."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import psutil

_COMMAND_S = 14.0
"""Below 15 s, the longest time without a progress line."""
_COMMAND_WORDS, _COMMAND_LENGTH = 3, 60
"""Words and characters of a command line in messages."""


def describe_hardware() -> dict[str, str]:
    """Return the hardware that decides how fast this machine serves."""
    return {
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory_gib": str(round(psutil.virtual_memory().total / 2**30)),
    }


def program_path(name: str) -> str | None:
    """Return the path of a command: beside this Python, else on PATH; None if in neither.

    So an environment need not be activated.
    """
    folder = str(Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join([folder, os.environ.get("PATH", "")]))


def run_quietly(argv: Sequence[str]) -> str | None:
    """Return the standard output of a command; None if it is absent, fails or times out."""
    if not argv or shutil.which(argv[0]) is None:
        return None
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=_COMMAND_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def process_text(pid: int) -> str:
    """Return a process in words: its id, and the start of its command if it can be read."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return f"process {pid}"
    return f"process {pid} ({_short_command(words)})" if words else f"process {pid}"


def _short_command(words: Sequence[str]) -> str:
    """Return the first words of a command line, with an ellipsis for what is left out."""
    shown = words[:_COMMAND_WORDS]
    text = " ".join(Path(word).name if word.startswith("/") else word for word in shown)
    if len(text) > _COMMAND_LENGTH:
        return f"{text[: _COMMAND_LENGTH - 1]}…"
    return f"{text} …" if len(words) > len(shown) else text


def list_gpus() -> list[str] | None:
    """Return one line per GPU, with name and driver; None if the driver does not answer."""
    output = run_quietly(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    return (output or "").splitlines() or None


def gpu_model(gpus: Sequence[str] | None) -> dict[str, str]:
    """Return model and number of *gpus*, given as by :func:`list_gpus`."""
    if not gpus:
        return {}
    return {"gpu": gpus[0].partition(",")[0].strip(), "gpus": str(len(gpus))}


def describe_drivers(gpus: Sequence[str] | None = None) -> Mapping[str, str]:
    """Return the versions of kernel and drivers, which containers share with the host."""
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
