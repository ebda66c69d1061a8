"""NIXL's benchmark ``nixlbench``: its command, and its output."""

from __future__ import annotations

import re

from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.transfer import transfer_env
from pytest_pdserve.values.system import System
from pytest_pdserve.values.transfer import Memory
from pytest_pdserve.values.transfer import TransferBackend
from pytest_pdserve.values.transfer import TransferShape

PROGRAM = "nixlbench"
_WARM, _COUNTED = 16, 160
"""Iterations; nixlbench divides them by 16 for blocks of more than 1 MiB."""
_BLOCK, _BATCH, _RATE = "Block Size (B)", "Batch Size", "B/W (GB/Sec)"
"""Columns of its table that are read."""


def nixlbench_command(
    system: System,
    host: Host,
    *,
    program: str,
    backend: TransferBackend,
    memory: Memory,
    shape: TransferShape,
    group: str,
    etcd: str,
) -> Command:
    """Return the command of one of the two processes of a pair; both have the same arguments.

    A batch has as many blocks as a transfer has descriptors, of the same size.

    :param group: benchmark group, the same for both processes.
    :param etcd: URL of the etcd server; empty for nixlbench's default.
    """
    size, count = str(shape.descriptor_bytes), str(shape.descriptors)
    argv = (
        *(program, "--benchmark_group", group, "--backend", backend),
        *(("--etcd_endpoints", etcd) if etcd else ()),
        *("--initiator_seg_type", memory, "--target_seg_type", memory),
        *("--op_type", "READ", "--check_consistency"),
        *("--start_block_size", size, "--max_block_size", size),
        *("--start_batch_size", count, "--max_batch_size", count),
        *("--total_buffer_size", str(2 * shape.transfer_bytes)),
        *("--num_iter", str(_COUNTED), "--warmup_iter", str(_WARM)),
    )
    return Command(
        name=f"nixlbench[{host.name}]",
        node=host.name,
        argv=argv,
        env=tuple(transfer_env(system, host).items()),
        passed=system.pass_env,
    )


def nixlbench_gb_s(text: str, shape: TransferShape) -> float | None:
    """Return the GB/s of *shape* in nixlbench's output; None if its table lacks it.

    Columns are found by title, since their number differs between versions.
    """
    titles: list[str] = []
    for line in text.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if _BLOCK in cells and _RATE in cells:
            titles = cells
        elif titles and len(words := line.split()) == len(titles):
            row = dict(zip(titles, words, strict=True))
            wanted = str(shape.descriptor_bytes), str(shape.descriptors)
            if (row[_BLOCK], row.get(_BATCH)) == wanted:
                return _number(row[_RATE])
    return None


def _number(word: str) -> float | None:
    """Return *word* as a number; None if it is not a finite number above 0."""
    match = re.fullmatch(r"\d+(\.\d+)?", word)
    value = float(word) if match else 0.0
    return value if value > 0 else None
