"""A script for nodes: prints the counters of RDMA interfaces such as EFA, and libfabric endpoints.

It imports the standard library only; the last line of standard output is one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

SYS = "/sys"
_EFA_BIN = "/opt/amazon/efa/bin"
"""Folder in which EFA's installer puts ``fi_info``."""
_ANSWER_S = 10.0
_FIELDS = ("provider", "fabric", "domain", "version", "type")
_MAX_LINES = 64


def read_counters(root: Path) -> dict[str, float]:
    """Return the hardware counters of all RDMA interfaces, by interface, port and name.

    Counters that cannot be read, or are not numbers, are absent.

    :param root: folder at which ``/sys`` is mounted.
    """
    found = {}
    for path in sorted(root.glob("class/infiniband/*/ports/*/hw_counters/*")):
        port, device = path.parent.parent.name, path.parents[3].name
        with contextlib.suppress(OSError, ValueError):
            if path.name != "lifespan":  # milliseconds that the kernel keeps a value
                found[f"{device}/{port}/{path.name}"] = float(int(path.read_text()))
    return found


def list_endpoints(provider: str) -> list[str]:
    """Return what ``fi_info`` lists for a libfabric provider, one line for each endpoint.

    Empty if the program is missing or fails.
    """
    program = shutil.which("fi_info") or shutil.which("fi_info", path=_EFA_BIN)
    if program is None:
        return []
    try:
        output = subprocess.run(
            [program, "-p", provider], capture_output=True, text=True, timeout=_ANSWER_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_fi_info(output)


def parse_fi_info(text: str) -> list[str]:
    """Return one line for each endpoint in the output of ``fi_info``, without duplicates."""
    blocks: list[dict[str, str]] = []
    for line in text.splitlines():
        name, colon, value = line.strip().partition(":")
        if not colon:
            continue
        if name == "provider":
            blocks.append({})
        if blocks:
            blocks[-1][name] = value.strip()
    lines = [" ".join(block[name] for name in _FIELDS if name in block) for block in blocks]
    return list(dict.fromkeys(lines))[:_MAX_LINES]


def main(argv: list[str]) -> int:
    """Print the counters and, if there are any, libfabric's endpoints.

    :param argv: a libfabric provider; empty to list no endpoints.
    """
    counters = read_counters(Path(SYS))
    endpoints = list_endpoints(argv[0]) if counters and argv else []
    sys.stdout.write(json.dumps({"counters": counters, "endpoints": endpoints}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
