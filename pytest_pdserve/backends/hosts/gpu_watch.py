"""Watches the GPUs of a session while a load runs: clocks, power, heat, and who else uses them."""

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
from pytest_pdserve.values.gpus import GpuRun
from pytest_pdserve.values.gpus import GpuState
from pytest_pdserve.values.gpus import summarize

LOOK_S = 1.0
"""Between two looks."""


@dataclass(slots=True)
class GpuWatch:
    """What looks at GPUs have shown."""

    runs: tuple[GpuRun, ...] = ()
    """One per GPU, once the load is over; none where NVML does not answer."""
    samples: dict[str, list[GpuState]] = field(default_factory=dict)
    """States during the load, by GPU."""
    others: dict[str, dict[int, str]] = field(default_factory=dict)
    """Processes of others, in words, by GPU and id."""
    ours_seen: bool = False
    """Whether a process of ours was seen on a GPU: in a container, the driver may count processes
    otherwise than the container does, and then nobody can tell whose they are."""


def unwatched() -> contextlib.AbstractContextManager[GpuWatch]:
    """Watch nothing: GPUs of other machines, or none."""
    return contextlib.nullcontext(GpuWatch())


@contextlib.contextmanager
def watching_gpus(
    gpus: Mapping[str, Sequence[Gpu]],
    is_ours: Callable[[int], bool],
    *,
    every_s: float = LOOK_S,
) -> Iterator[GpuWatch]:
    """Watch GPUs until the block is left, in a thread.

    :param gpus: by node, or slot of this machine.
    :param is_ours: whether a process is one that the session started.
    """
    watch = GpuWatch()
    placed = {gpu.gpu_uuid: (node, gpu) for node, each in gpus.items() for gpu in each}
    try:
        with reading(tuple(placed)) as reader:
            before = {uuid: reader.read(uuid) for uuid in reader.uuids}
            with _looking(reader, watch, is_ours, every_s):
                yield watch
            watch.runs = tuple(
                _run(reader, watch, uuid, *placed[uuid], before=before[uuid])
                for uuid in reader.uuids
            )
    except NoGpusError:
        yield watch


@contextlib.contextmanager
def _looking(
    reader: GpuReader, watch: GpuWatch, is_ours: Callable[[int], bool], every_s: float
) -> Iterator[None]:
    over = threading.Event()

    def look() -> None:
        while not over.wait(every_s):
            for uuid in reader.uuids:
                watch.samples.setdefault(uuid, []).append(reader.read(uuid))
                for pid in reader.users(uuid):
                    known = watch.others.setdefault(uuid, {})
                    if is_ours(pid):
                        watch.ours_seen = True
                    elif pid not in known:
                        known[pid] = process_text(pid)

    thread = threading.Thread(target=look, name="pdserve GPUs", daemon=True)
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
