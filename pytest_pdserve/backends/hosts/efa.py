"""The node's side of its RDMA interfaces, such as EFA: what they count, and what libfabric lists.

A script of the standard library alone; the last line of standard output is one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

SYS = "/sys"
"""Where the kernel shows its devices."""
_EFA_BIN = "/opt/amazon/efa/bin"
"""Where EFA's installer puts ``fi_info``."""
_ANSWER_S = 10.0
_FIELDS = ("provider", "fabric", "domain", "version", "type")
_MAX_LINES = 64


def read_counters(root: Path) -> dict[str, float]:
    """Return the hardware counters of all RDMA interfaces, by interface, port and name.

    What cannot be read, or is not a number, is absent; all of it without interfaces.

    :param root: folder that ``/sys`` is mounted at.
    """
    found = {}
    for path in sorted(root.glob("class/infiniband/*/ports/*/hw_counters/*")):
        port, device = path.parent.parent.name, path.parents[3].name
        with contextlib.suppress(OSError, ValueError):
            if path.name != "lifespan":  # milliseconds that the kernel keeps a value
                found[f"{device}/{port}/{path.name}"] = float(int(path.read_text()))
    return found


def list_endpoints(provider: str) -> list[str]:
    """Return what ``fi_info`` lists of a provider of libfabric, a line for each endpoint.

    Nothing if the program is missing or fails.
    """
    program = shutil.which("fi_info") or shutil.which("fi_info", path=_EFA_BIN)
    if program is None:
        return []
    try:
        said = subprocess.run(
            [program, "-p", provider], capture_output=True, text=True, timeout=_ANSWER_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_fi_info(said)


def parse_fi_info(text: str) -> list[str]:
    """Return a line for each endpoint in the output of ``fi_info``, each once."""
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


def main(asked: list[str]) -> int:
    """Print counters and, where there are any, what libfabric lists.

    :param asked: provider of libfabric; nothing to leave libfabric alone.
    """
    counters = read_counters(Path(SYS))
    endpoints = list_endpoints(asked[0]) if counters and asked else []
    sys.stdout.write(json.dumps({"counters": counters, "endpoints": endpoints}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
