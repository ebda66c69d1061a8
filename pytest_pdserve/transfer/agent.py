"""The NIXL agent of one node, like the one in a prefill or decode instance.

A script that imports the standard library, NumPy, NIXL and, for GPU memory, PyTorch, and of this
package only files next to it, so that it also runs in an image. Its folder has ``agent.json``: its
name, NIXL backend, memory and bytes. It fills memory with a pattern, registers it, and writes to
``ready.json`` what other agents need to read it. Orders to read from another agent come in
``1.order.json``, ``2.order.json``, …; it answers each with ``N.done.json``: the times, or an error.
Every repeat reads into memory that was cleared, and all bytes are compared.
"""

from __future__ import annotations

import argparse
import base64
import functools
import json
import os
import sys
import time
import traceback
import zlib
from pathlib import Path
from typing import Any

POLL_S = 0.005
SEED = 20260310
"""Seed of the order of pieces."""


class TransferFailure(Exception):
    """Raised when a transfer fails, is late, or brings wrong bytes."""


@functools.lru_cache(maxsize=1)
def pattern_of(seed: int, size: int) -> Any:
    """Return the bytes in an agent's memory, as an array.

    Each agent has its own seed, so that a reader detects its own bytes, or those of a third node.
    """
    import numpy

    return numpy.random.default_rng(seed).integers(0, 256, size, numpy.uint8)


class Buffer:
    """Memory of one kind: first the pattern for others to read, then space for received bytes."""

    def __init__(self, memory: str, size: int, seed: int) -> None:
        """Allocate twice *size* bytes.

        :param memory: ``DRAM`` or ``VRAM``.
        :param seed: of the pattern.
        """
        import numpy

        self.size, self.memory, self.seed = size, memory, seed
        pattern = pattern_of(seed, size)
        if memory == "VRAM":
            import torch

            self._whole = torch.zeros(2 * size, dtype=torch.uint8, device="cuda")
            self._whole[:size] = torch.from_numpy(pattern)
            torch.cuda.synchronize()
            self.address, self.device = self._whole.data_ptr(), torch.cuda.current_device()
        else:
            self._whole = numpy.zeros(2 * size, numpy.uint8)
            self._whole[:size] = pattern
            self.address, self.device = self._whole.ctypes.data, 0

    def clear(self, size: int) -> None:
        """Set the space of the next reads to zero."""
        self._whole[self.size : self.size + size] = 0
        if self.memory == "VRAM":  # else the fill may erase bytes that have arrived
            import torch

            torch.cuda.synchronize()

    def received(self, size: int) -> Any:
        """Return the received bytes, as an array."""
        part = self._whole[self.size : self.size + size]
        return part.cpu().numpy() if self.memory == "VRAM" else part


class Agent:
    """A NIXL agent with registered memory."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Start the agent and register its memory.

        :raises Exception: any exception of NIXL, NumPy or PyTorch.
        """
        if os.environ.get("PDSERVE_NIXL_PROGRESS_DELAY_US"):
            import calm_nixl  # type: ignore[import-not-found]  # in the same folder

            calm_nixl.register()
        from nixl._api import nixl_agent
        from nixl._api import nixl_agent_config

        self.backend = config["backend"]
        memory = config["memory"] or ("VRAM" if _has_cuda() else "DRAM")
        self._nixl = nixl_agent(config["name"], nixl_agent_config(backends=[self.backend]))
        seed = zlib.crc32(config["name"].encode())
        self.buffer = Buffer(memory, config["bytes"], seed)
        region = (self.buffer.address, 2 * self.buffer.size, self.buffer.device, "")
        self._nixl.register_memory([region], memory, backends=[self.backend])
        self._remote: dict[str, Any] = {}

    def describe(self) -> dict[str, Any]:
        """Return what another agent needs to read this one's memory."""
        metadata = self._nixl.get_agent_metadata()
        return {
            "error": None,
            "memory": self.buffer.memory,
            "address": self.buffer.address,
            "device": self.buffer.device,
            "seed": self.buffer.seed,
            "metadata": base64.b64encode(metadata).decode(),
            "versions": _versions(),
            "env": {name: os.environ.get(name) for name in ("UCX_TLS", "FI_PROVIDER")},
        }

    def read(self, order: dict[str, Any], shape: dict[str, Any]) -> dict[str, Any]:
        """Read one shape from another agent repeatedly; return the times, ms.

        :raises TransferFailure: if a transfer fails, is late, or brings wrong bytes.
        """
        source = json.loads(Path(order["source"]).read_text(encoding="utf-8"))
        if source["memory"] != self.buffer.memory:
            raise TransferFailure(
                f"the reader's memory is {self.buffer.memory}, but the source's {source['memory']}"
            )
        if order["source"] not in self._remote:
            name = self._nixl.add_remote_agent(base64.b64decode(source["metadata"]))
            self._remote[order["source"]] = name.decode() if isinstance(name, bytes) else name
        reads = [
            Read(self._nixl, self.buffer, source, self._remote[order["source"]], shape, number)
            for number in range(shape["in_flight"])
        ]
        size = shape["descriptors"] * shape["descriptor_bytes"] * shape["in_flight"]
        times = []
        for _ in range(order["repeats"] + 1):
            self.buffer.clear(size)
            times.append(self._read_once(reads, order["limit_s"]))
            for read in reads:
                read.compare()
        return {
            "shape": shape,
            "first_ms": times[0][0],
            "ms": [took for took, _ in times[1:]],
            "posting_ms": [posting for _, posting in times[1:]],
        }

    def _read_once(self, reads: list[Read], limit_s: float) -> tuple[float, float]:
        """Post all *reads* and wait for them; return the whole time and that of posting, ms."""
        handles = [read.prepare() for read in reads]
        began = time.perf_counter()
        left = [handle for handle in handles if self._nixl.transfer(handle) != "DONE"]
        posted = time.perf_counter()
        while left:
            states = [self._nixl.check_xfer_state(handle) for handle in left]
            if "ERR" in states:
                raise TransferFailure("NIXL reports that the transfer failed (state ERR)")
            left = [h for h, state in zip(left, states, strict=True) if state != "DONE"]
            if left and time.perf_counter() - began > limit_s:
                raise TransferFailure(f"{len(left)} transfers did not arrive within {limit_s:g} s")
        ended = time.perf_counter()
        for handle in handles:
            self._nixl.release_xfer_handle(handle)
        return (ended - began) * 1e3, (posted - began) * 1e3


class Read:
    """One of several concurrent transfers, whose pieces are in different order on both sides."""

    def __init__(
        self,
        nixl: Any,
        buffer: Buffer,
        source: dict[str, Any],
        remote: str,
        shape: dict[str, Any],
        number: int,
    ) -> None:
        """Prepare both lists of descriptors, as vLLM does once for each pair.

        :param number: index of the transfer among those in flight.
        """
        import numpy

        count, self._piece = shape["descriptors"], shape["descriptor_bytes"]
        self._nixl, self._buffer = nixl, buffer
        self._start, self._seed = number * count * self._piece, source["seed"]
        order = numpy.random.default_rng(SEED + number)
        self._here, self._there = order.permutation(count), order.permutation(count)
        self._indices = list(range(count))
        here = self._rows(buffer.address + buffer.size, self._here, buffer.device)
        there = self._rows(source["address"], self._there, source["device"])
        self._lists = (
            nixl.prep_xfer_dlist("NIXL_INIT_AGENT", here, buffer.memory),
            nixl.prep_xfer_dlist(remote, there, buffer.memory),
        )

    def _rows(self, address: int, pieces: Any, device: int) -> list[tuple[int, int, int]]:
        first = address + self._start
        return [(first + int(n) * self._piece, self._piece, device) for n in pieces]

    def prepare(self) -> Any:
        """Return the handle of a transfer that is not posted yet."""
        local, remote = self._lists
        return self._nixl.make_prepped_xfer("READ", local, self._indices, remote, self._indices)

    def compare(self) -> None:
        """Compare all received bytes with the pattern of the source.

        :raises TransferFailure: with the number of wrong pieces.
        """
        end = self._start + len(self._here) * self._piece
        got = self._buffer.received(end)[self._start :].reshape(-1, self._piece)
        pattern = pattern_of(self._seed, self._buffer.size)
        expected = pattern[self._start : end].reshape(-1, self._piece)
        same = (got[self._here] == expected[self._there]).all(axis=1)
        wrong = int((~same).sum())
        if wrong:
            raise TransferFailure(
                f"{wrong} of {len(same)} pieces of {self._piece:,} bytes hold other bytes than "
                "were sent"
            )


def _has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _versions() -> dict[str, str]:
    """Return the versions of NIXL and PyTorch; missing packages are absent."""
    from importlib import metadata

    found = {}
    for name in ("nixl", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(data), encoding="utf-8")
    partial.replace(path)


def serve_orders(folder: Path, agent: Agent) -> None:
    """Carry out orders until the parent process is gone."""
    parent, number = os.getppid(), 1
    while os.getppid() == parent:
        path = folder / f"{number}.order.json"
        # A listing queries the file server; a lookup of one name may use this node's stale cache.
        if path.name not in os.listdir(folder):
            time.sleep(POLL_S)
            continue
        order, figures, error = json.loads(path.read_text(encoding="utf-8")), [], None
        for shape in order["shapes"]:
            try:
                figures.append(agent.read(order, shape))
            except Exception as failed:  # any exception of NIXL is reported as this pair's
                traceback.print_exc()
                kind = "" if isinstance(failed, TransferFailure) else f"{type(failed).__name__}: "
                error = f"{shape['id']}: {kind}{failed}"
                break
        write(folder / f"{number}.done.json", {"figures": figures, "error": error})
        number += 1


def main() -> int:
    """Start the agent, write ``ready.json``, and carry out orders."""
    parser = argparse.ArgumentParser(description="Read the memory of other NIXL agents.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--program", help="Run by the Python of this program, if it has one")
    options = parser.parse_args()
    folder: Path = options.folder
    if options.program is not None:
        from vllm_worker import python_of  # type: ignore[import-not-found]  # in the same folder

        python = python_of(options.program)
        if python not in (None, sys.executable):
            os.execv(python, [python, __file__, str(folder)])  # noqa: S606 - there is no shell
    try:
        config = json.loads((folder / "agent.json").read_text(encoding="utf-8"))
        agent = Agent(config)
        ready = agent.describe()
    except Exception as error:  # an import, a plugin or a driver may raise anything
        traceback.print_exc()
        write(folder / "ready.json", {"error": f"{type(error).__name__}: {error}"})
        return 1
    write(folder / "ready.json", ready)
    serve_orders(folder, agent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
