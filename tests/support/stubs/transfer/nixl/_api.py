"""Agents that read each other's memory through files, as slowly and as wrongly as they are told.

``PDSTUB_NIXL`` is a folder for the files. A transfer takes ``PDSTUB_NIXL_MS`` (default 1), one with
the node ``PDSTUB_NIXL_SLOW`` at either end 60 ms. What is read from ``PDSTUB_NIXL_WRONG`` has a
wrong byte, what is read from ``PDSTUB_NIXL_OTHER`` is the reader's own, a transfer from
``PDSTUB_NIXL_FAILS`` ends in the state ERR, and LIBFABRIC is missing.
"""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any

_SLOW_MS = 60.0


class nixl_agent_config:
    def __init__(self, backends: list[str]) -> None:
        self.backends = backends


class nixl_agent:
    def __init__(self, name: str, config: nixl_agent_config) -> None:
        if "LIBFABRIC" in config.backends:
            raise RuntimeError("NIXL_ERR_NOT_FOUND: no plugin for backend LIBFABRIC")
        self.name = name
        self._folder = Path(os.environ["PDSTUB_NIXL"])

    def register_memory(
        self, regions: list[tuple[int, int, int, str]], memory: str, backends: list[str]
    ) -> None:
        assert memory == "DRAM"
        assert backends == ["UCX"]
        ((self._address, size, _, _),) = regions
        self._folder.mkdir(exist_ok=True)
        self._file(self.name).write_bytes(ctypes.string_at(self._address, size))

    def get_agent_metadata(self) -> bytes:
        return f"{self.name} {self._address}".encode()

    def add_remote_agent(self, metadata: bytes) -> bytes:
        name, address = metadata.decode().split()
        self._remote = {**getattr(self, "_remote", {}), name: int(address)}
        return name.encode()

    def prep_xfer_dlist(self, name: str, rows: list[tuple[int, int, int]], memory: str) -> Any:
        assert memory == "DRAM"
        return name, rows

    def make_prepped_xfer(
        self, operation: str, here: Any, indices: list[int], there: Any, remote: list[int]
    ) -> dict[str, Any]:
        assert operation == "READ"
        assert here[0] == "NIXL_INIT_AGENT"
        pairs = [(here[1][i], there[1][j]) for i, j in zip(indices, remote, strict=True)]
        return {"source": there[0], "pairs": pairs}

    def transfer(self, handle: dict[str, Any]) -> str:
        source = handle["source"]
        is_slow = os.environ.get("PDSTUB_NIXL_SLOW") in (self.name, source)
        ms = _SLOW_MS if is_slow else float(os.environ.get("PDSTUB_NIXL_MS", "1"))
        handle["due"] = time.perf_counter() + ms / 1e3
        other = source == os.environ.get("PDSTUB_NIXL_OTHER")
        with self._file(self.name if other else source).open("rb") as file:
            for (here, size, _), (there, _, _) in handle["pairs"]:
                file.seek(there - self._remote[source])
                got = bytearray(file.read(size))
                if source == os.environ.get("PDSTUB_NIXL_WRONG"):
                    got[size // 2] ^= 1
                ctypes.memmove(here, bytes(got), size)
        return "PROC"

    def check_xfer_state(self, handle: dict[str, Any]) -> str:
        if handle["source"] == os.environ.get("PDSTUB_NIXL_FAILS"):
            return "ERR"
        return "DONE" if time.perf_counter() >= handle["due"] else "PROC"

    def release_xfer_handle(self, handle: dict[str, Any]) -> None:
        handle.clear()

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.memory"
