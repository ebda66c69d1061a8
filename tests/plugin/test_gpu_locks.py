"""GPUs that sessions hold: each once, none that is in use, none after a session is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.local.gpus import holding_gpus
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.system import System
from tests.support import fake_nvml
from tests.support.fake_nvml import FakeGpu
from tests.support.systems import LEAST
from tests.support.systems import loaded

ME = os.getpid()


def system(folder: Path, *, nodes: int = 2) -> System:
    return loaded(folder, LEAST.replace("nodes = 2", f'nodes = {nodes}\ndevice = "gpu"'))


def test_gpus_in_use_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = FakeGpu(uuid=f"GPU-busy-{ME}", users=((ME, 12.3),))
    fake_nvml.install(monkeypatch, busy, *fake_nvml.gpus(2))
    with holding_gpus(system(tmp_path), {}) as held:
        assert [each.name for each in held] == ["1", "2"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"users": ((ME, 12.3),)}, f"GPU 1 (NVIDIA H200) is in use by process {ME} ("),
        ({"users": ((2**22 + 1, None),)}, "is in use by process 4194305"),
        ({"used_gib": 30.0}, "has 30.0 of 141 GiB in use, by processes that are not shown here"),
        (
            {"used_gib": None, "users": ((ME, None),)},
            f"GPU 1 (NVIDIA H200) is in use by process {ME}",
        ),
        (
            {"used_gib": None, "users": None},
            "does not report memory in use or processes, so another process may be using it",
        ),
    ],
    ids=["a process here", "a process elsewhere", "memory alone", "a process alone", "not told"],
)
def test_a_gpu_in_use_is_named_with_who_uses_it(
    changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(2, **changes))
    with (
        pytest.raises(AllocationError) as caught,
        holding_gpus(system(tmp_path), {}),
    ):
        pytest.fail("not free")
    assert "needs 2 free GPUs, but 1 of 2 are free: " in str(caught.value)
    assert said in str(caught.value)


def test_processes_decide_where_memory_in_use_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(2, used_gib=None))
    with holding_gpus(system(tmp_path), {}) as held:
        assert [each.name for each in held] == ["0", "1"]


def test_a_gpu_is_held_once_and_free_when_its_session_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(3))
    two, one = system(tmp_path), system(tmp_path, nodes=1)
    with holding_gpus(two, {}), holding_gpus(one, {}) as other:
        assert [each.name for each in other] == ["2"]
        with pytest.raises(AllocationError) as caught, holding_gpus(one, {}):
            pytest.fail("not free")
        said = f"GPUs 0 to 2 (NVIDIA H200) are held by the session of process {ME} ("
        assert said in str(caught.value)
        assert str(caught.value).count(f"process {ME}") == 1
    with holding_gpus(two, {}) as again:
        assert [each.name for each in again] == ["0", "1"]


HOLDING = """
import sys, pathlib
sys.path[:0] = [{root!r}]
from tests.support import fake_nvml
sys.modules["pynvml"] = fake_nvml.module(fake_nvml.gpus(2, mark={mark}))
from pytest_pdserve.backends.local.gpus import holding_gpus
from tests.plugin.test_gpu_locks import system
with holding_gpus(system(pathlib.Path({folder!r})), {{}}):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_session_holds_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = HOLDING.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path), mark=ME)
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(2))
    two = system(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(AllocationError, match=f"session of process {other.pid} "):
            with holding_gpus(two, {}):
                pytest.fail("not free")
        other.kill()
        other.wait()
    with holding_gpus(two, {}) as held:
        assert len(held) == 2
