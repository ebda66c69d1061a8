"""Why GPUs cannot be used: each reason once, with all its GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from pytest_pdserve.backends.hosts.facts import process_text
from pytest_pdserve.backends.hosts.nvml import Gpu
from pytest_pdserve.backends.hosts.nvml import GpuUser
from pytest_pdserve.backends.local.refusals import RefusedGpu
from pytest_pdserve.backends.local.refusals import held_by
from pytest_pdserve.backends.local.refusals import in_use
from pytest_pdserve.backends.local.refusals import refusals

ABSENT = 2**22 + 1
"""Process id beyond the kernel's largest."""
HOLDER = "process 812 (python3 -m pytest)"


def gpu(index: int, **changes: object) -> Gpu:
    made = Gpu(
        index=index,
        uuid=f"GPU-{index}",
        gpu_uuid=f"GPU-{index}",
        name="NVIDIA H200",
        bus_id="",
        memory_gib=140.6,
        used_gib=0.0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def used(index: int, gib: float | None, *pids: int) -> Gpu:
    users = tuple(GpuUser(pid=pid, used_gib=gib) for pid in pids)
    return gpu(index, used_gib=gib, users=users)


def part(index: int, name: str) -> Gpu:
    return gpu(index, uuid=name)


@pytest.mark.parametrize(
    ("gpus", "names"),
    [
        ([gpu(2)], "GPU 2 (NVIDIA H200) is"),
        ([gpu(0), gpu(1)], "GPUs 0 and 1 (NVIDIA H200) are"),
        ([gpu(n) for n in (0, 1, 2, 3)], "GPUs 0 to 3 (NVIDIA H200) are"),
        ([gpu(n) for n in (7, 0, 2, 3, 4)], "GPUs 0, 2 to 4 and 7 (NVIDIA H200) are"),
        ([gpu(0), gpu(1, name="NVIDIA L4")], "GPU 0 (NVIDIA H200) and GPU 1 (NVIDIA L4) are"),
        ([part(1, "MIG-a")], "MIG slice MIG-a of GPU 1 (NVIDIA H200) is"),
        (
            [gpu(0), part(1, "MIG-a"), part(1, "MIG-b")],
            "GPU 0 (NVIDIA H200), MIG slice MIG-a of GPU 1 (NVIDIA H200) and MIG slice MIG-b of "
            "GPU 1 (NVIDIA H200) are",
        ),
    ],
    ids=["one", "two", "four", "gaps", "two models", "a slice", "slices"],
)
def test_gpus_of_one_session_are_named_together(gpus: Sequence[Gpu], names: str) -> None:
    refused = [RefusedGpu(gpu=each, why=held_by(HOLDER)) for each in gpus]
    assert refusals(refused) == f"{names} held by the session of {HOLDER}"


def test_each_session_and_process_has_its_own_clause() -> None:
    two = [RefusedGpu(gpu=gpu(n), why=held_by(f"process {n // 2}")) for n in range(4)]
    busy = used(4, 61.23, ABSENT)
    why = in_use(busy)
    assert why is not None
    assert refusals([*two, RefusedGpu(gpu=busy, why=why)]) == (
        "GPUs 0 and 1 (NVIDIA H200) are held by the session of process 0; "
        "GPUs 2 and 3 (NVIDIA H200) are held by the session of process 1; "
        f"GPU 4 (NVIDIA H200) is in use by process {ABSENT} with 61.2 GiB"
    )


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        (
            [used(0, 61.0, ABSENT), used(1, 61.2, ABSENT)],
            f"are in use by process {ABSENT} with 61.0 to 61.2 GiB each",
        ),
        (
            [used(0, 3.5, ABSENT), used(1, 3.5, ABSENT)],
            f"are in use by process {ABSENT} with 3.5 GiB each",
        ),
        (
            [used(0, None, ABSENT + 1, ABSENT), used(1, None, ABSENT, ABSENT + 1)],
            f"are in use by process {ABSENT}, process {ABSENT + 1}",
        ),
        (
            [gpu(0, used_gib=3.5), gpu(1, used_gib=8.0)],
            "have 3.5 to 8.0 of 141 GiB in use, by processes that are not shown here",
        ),
        (
            [gpu(0, used_gib=None, users=None), gpu(1, used_gib=None, users=None)],
            "do not report memory in use or processes, so another process may be using it",
        ),
    ],
    ids=["one process", "as much on each", "two processes", "memory alone", "not reported"],
)
def test_gpus_in_use_alike_are_named_together(gpus: Sequence[Gpu], said: str) -> None:
    refused = [RefusedGpu(gpu=each, why=why) for each in gpus if (why := in_use(each))]
    assert refusals(refused) == f"GPUs 0 and 1 (NVIDIA H200) {said}"


@pytest.mark.parametrize(
    "free",
    [
        gpu(0, used_gib=1.0),
        gpu(0, used_gib=None, memory_gib=None),
        gpu(0, users=None),
    ],
    ids=["idle", "memory not reported", "processes not reported"],
)
def test_a_gpu_is_free_by_what_nvml_reports(free: Gpu) -> None:
    assert in_use(free) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["python3", "-m", "pytest"], "python3 -m pytest"),
        (["/usr/bin/python3", "-m", "pytest", "suites/"], "python3 -m pytest …"),
        (["python3", "/home/me/train.py"], "python3 train.py"),
        (["x" * 60], "x" * 60),
        (["x" * 61], "x" * 59 + "…"),
    ],
    ids=["whole", "more words", "paths", "long", "too long"],
)
def test_a_command_line_that_is_cut_ends_with_an_ellipsis(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = SimpleNamespace(cmdline=lambda: words)
    monkeypatch.setattr(psutil, "Process", lambda pid: running)
    assert process_text(4711) == f"process 4711 ({said})"
