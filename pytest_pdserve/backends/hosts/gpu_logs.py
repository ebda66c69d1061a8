"""Reads what each node writes of its GPUs, and summarizes it for one run."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
from pathlib import Path

import msgspec

from pytest_pdserve.values.gpus import GpuRun
from pytest_pdserve.values.gpus import GpuSample
from pytest_pdserve.values.gpus import summarize

_LINES = msgspec.json.Decoder(list[GpuSample])


@dataclass(kw_only=True)
class LoggedGpus:
    """GPUs of nodes during a load, from the files that :mod:`.gpu_log` writes there."""

    files: Mapping[str, Path]
    """File of each node."""
    began: Mapping[str, int]
    """Size of each file when the load began, bytes."""
    ended: dict[str, int] = field(default_factory=dict)
    """Size of each file when the load ended, bytes."""

    @cached_property
    def runs(self) -> tuple[GpuRun, ...]:
        """One per GPU; empty if no node has written anything.

        Read it once the counters after the load are read: the sample after the load is there then.
        """
        return tuple(run for node in self.files for run in self._runs_of(node))

    def _runs_of(self, node: str) -> Iterator[GpuRun]:
        lines = [*_read(self.files[node])]
        before = [samples for end, samples in lines if end <= self.began[node]]
        during = [
            samples for end, samples in lines if self.began[node] < end <= self.ended.get(node, 0)
        ]
        after = [samples for end, samples in lines if end > self.ended.get(node, 0)]
        if not lines:
            return
        first = (before or during or after)[-1 if before else 0]
        last = (after or during or before)[0 if after else -1]
        for sample in first:
            yield _run(node, sample, _of(sample.uuid, during), _of(sample.uuid, [last]))


def sizes_of(files: Mapping[str, Path]) -> dict[str, int]:
    """Return the size of each file, bytes; 0 if there is none."""
    return {node: _size(path) for node, path in files.items()}


@contextmanager
def watching_logs(files: Mapping[str, Path]) -> Iterator[LoggedGpus]:
    """Yield the GPUs of the nodes that write *files*, for the load that the block makes."""
    logged = LoggedGpus(files=files, began=sizes_of(files))
    try:
        yield logged
    finally:
        logged.ended = sizes_of(files)


def _size(path: Path) -> int:
    try:
        with path.open("rb") as file:  # opened, so that a network file system asks its server
            return file.seek(0, 2)
    except OSError:
        return 0


def _read(path: Path) -> Iterator[tuple[int, list[GpuSample]]]:
    """Yield the samples of each whole line, and where in the file it ends."""
    try:
        text = path.read_bytes()
    except OSError:
        return
    end = 0
    for line in text.splitlines(keepends=True):
        end += len(line)
        if line.endswith(b"\n"):
            yield end, _LINES.decode(line)


def _of(uuid: str, lines: Sequence[Sequence[GpuSample]]) -> list[GpuSample]:
    return [sample for samples in lines for sample in samples if sample.uuid == uuid]


def _run(
    node: str, first: GpuSample, during: Sequence[GpuSample], last: Sequence[GpuSample]
) -> GpuRun:
    statistics, throttled = summarize([sample.state for sample in during])
    others = dict.fromkeys(text for sample in during for text in sample.others)
    return GpuRun(
        index=first.index,
        node=node,
        uuid=first.uuid,
        name=first.name,
        facts=first.facts,
        before=first.state,
        during=statistics,
        after=(last or [first])[-1].state,
        throttled=throttled,
        others=tuple(others) if any(sample.ours for sample in during) else (),
    )
