"""Writes the state of this node's GPUs to a file, a line a second, until it is ended.

A session on other machines reads the file (:mod:`~pytest_pdserve.backends.hosts.gpu_logs`). Each
line is written to a file that is opened for it and closed, so that a network file system shows it
to whoever opens the file afterwards.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pytest_pdserve.backends.hosts.facts import process_text
from pytest_pdserve.backends.hosts.nvml import Gpu
from pytest_pdserve.backends.hosts.nvml import GpuReader
from pytest_pdserve.backends.hosts.nvml import NoGpusError
from pytest_pdserve.backends.hosts.nvml import find_gpus
from pytest_pdserve.backends.hosts.nvml import reading
from pytest_pdserve.values.gpus import SAMPLE_S
from pytest_pdserve.values.gpus import GpuSample

_JOB = "SLURM_JOB_ID"
_OF_JOB = "SLURM_JOB_GPUS"


def job_gpus(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> list[Gpu]:
    """Return the GPUs of this step's job: those that Slurm names by index, else all."""
    named = {int(each) for each in environment.get(_OF_JOB, "").split(",") if each.isdecimal()}
    return [gpu for gpu in gpus if not named or gpu.index in named]


def sample_gpus(
    gpus: Sequence[Gpu], reader: GpuReader, is_ours: Callable[[int], bool]
) -> list[GpuSample]:
    """Return the state of each GPU now, and who uses it.

    :param is_ours: returns whether the session started a process.
    """
    samples = []
    whole = {gpu.gpu_uuid: gpu for gpu in gpus}  # slices of one GPU share its clocks and power
    for gpu in (gpu for uuid, gpu in whole.items() if uuid in reader.uuids):
        users = {pid: is_ours(pid) for pid in reader.users(gpu.gpu_uuid)}
        samples.append(
            GpuSample(
                index=gpu.index,
                uuid=gpu.gpu_uuid,
                name=gpu.name,
                facts=reader.facts(gpu.gpu_uuid),
                state=reader.read(gpu.gpu_uuid),
                ours=any(users.values()),
                others=tuple(process_text(pid) for pid, ours in users.items() if not ours),
            )
        )
    return samples


def _of_this_job(pid: int) -> bool:
    """Return whether a process runs in the Slurm job of this one."""
    mine = f"{_JOB}={os.environ.get(_JOB, '')}".encode()
    try:
        return mine in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def main() -> None:
    """Write samples to the file that is the only argument.

    :raises SystemExit: if NVML shows no GPU.
    """
    path, encoder = Path(sys.argv[1]), msgspec.json.Encoder()
    try:
        gpus = job_gpus(find_gpus(), os.environ)
        with reading(tuple(dict.fromkeys(gpu.gpu_uuid for gpu in gpus))) as reader:
            while True:
                line = encoder.encode(sample_gpus(gpus, reader, _of_this_job))
                with path.open("ab") as file:
                    file.write(line + b"\n")
                time.sleep(SAMPLE_S)
    except NoGpusError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
