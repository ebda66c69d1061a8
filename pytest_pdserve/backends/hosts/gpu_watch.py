"""Samples the GPUs of a session during a load: clocks, power, temperature, other users."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

from pytest_pdserve.backends.hosts.facts import process_text
from pytest_pdserve.backends.hosts.nvml import Gpu
from pytest_pdserve.backends.hosts.nvml import GpuReader
from pytest_pdserve.backends.hosts.nvml import NoGpusError
from pytest_pdserve.backends.hosts.nvml import reading
from pytest_pdserve.values.gpus import SAMPLE_S
from pytest_pdserve.values.gpus import GpuRun
from pytest_pdserve.values.gpus import GpuState
from pytest_pdserve.values.gpus import summarize


@dataclass(slots=True)
class GpuWatch:
    """Samples of GPUs during a load, and their summary."""

    runs: tuple[GpuRun, ...] = ()
    """One per GPU, once the load is over; empty if NVML does not answer."""
    samples: dict[str, list[GpuState]] = field(default_factory=dict)
    """States during the load, by GPU UUID."""
    others: dict[str, dict[int, str]] = field(default_factory=dict)
    """Text about each process that is not the session's, by GPU UUID and process id."""
    ours_seen: bool = False
    """True if a process of the session was seen on a GPU. If not, *others* is not trusted: in a
    container, process ids may differ from those of the driver."""


def unwatched() -> contextlib.AbstractContextManager[GpuWatch]:
    """Return a watch that samples nothing, for GPUs of other machines or no GPUs."""
    return contextlib.nullcontext(GpuWatch())


@contextlib.contextmanager
def watching_gpus(
    gpus: Mapping[str, Sequence[Gpu]],
    is_ours: Callable[[int], bool],
    *,
    every_s: float = SAMPLE_S,
) -> Iterator[GpuWatch]:
    """Sample GPUs in a thread until the block ends.

    :param gpus: by node, or slot of this machine.
    :param is_ours: returns whether the session started a process.
    """
    watch = GpuWatch()
    placed = {gpu.gpu_uuid: (node, gpu) for node, each in gpus.items() for gpu in each}
    try:
        with reading(tuple(placed)) as reader:
            before = {uuid: reader.read(uuid) for uuid in reader.uuids}
            with _sampling(reader, watch, is_ours, every_s):
                yield watch
            watch.runs = tuple(
                _run(reader, watch, uuid, *placed[uuid], before=before[uuid])
                for uuid in reader.uuids
            )
    except NoGpusError:
        yield watch


@contextlib.contextmanager
def _sampling(
    reader: GpuReader, watch: GpuWatch, is_ours: Callable[[int], bool], every_s: float
) -> Iterator[None]:
    over = threading.Event()

    def sample() -> None:
        while not over.wait(every_s):
            for uuid in reader.uuids:
                watch.samples.setdefault(uuid, []).append(reader.read(uuid))
                for pid in reader.users(uuid):
                    others = watch.others.setdefault(uuid, {})
                    if is_ours(pid):
                        watch.ours_seen = True
                    elif pid not in others:
                        others[pid] = process_text(pid)

    thread = threading.Thread(target=sample, name="pdserve GPUs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _run(
    reader: GpuReader, watch: GpuWatch, uuid: str, node: str, gpu: Gpu, *, before: GpuState
) -> GpuRun:
    during, throttled = summarize(watch.samples.get(uuid, []))
    return GpuRun(
        index=gpu.index,
        node=node,
        uuid=uuid,
        name=gpu.name,
        facts=reader.facts(uuid),
        before=before,
        during=during,
        after=reader.read(uuid),
        throttled=throttled,
        others=tuple(watch.others.get(uuid, {}).values()) if watch.ours_seen else (),
    )
