"""GPUs of other machines: what each node writes down, and what a run makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from pytest_pdserve.backends.hosts.gpu_log import job_gpus
from pytest_pdserve.backends.hosts.gpu_log import main
from pytest_pdserve.backends.hosts.gpu_log import sample_gpus
from pytest_pdserve.backends.hosts.gpu_logs import watching_logs
from pytest_pdserve.backends.hosts.nvml import find_gpus
from pytest_pdserve.backends.hosts.nvml import reading
from pytest_pdserve.values.gpus import GpuRun
from pytest_pdserve.values.gpus import GpuSample
from pytest_pdserve.values.gpus import GpuState
from tests.support import fake_nvml

ME, OTHER = os.getpid(), 2**22 + 1


def line(sm_mhz: float, *, ours: bool = True, others: tuple[str, ...] = ()) -> bytes:
    sample = GpuSample(
        index=1,
        uuid="GPU-1",
        name="NVIDIA H200",
        facts={"sm_mhz_max": 1980.0},
        state=GpuState(sm_mhz=sm_mhz, throttled=("power cap",) if sm_mhz < 1900 else ()),
        ours=ours,
        others=others,
    )
    return msgspec.json.encode([sample]) + b"\n"


def run_of(
    tmp_path: Path, before: list[bytes], during: list[bytes], after: list[bytes]
) -> tuple[GpuRun, ...]:
    path = tmp_path / "pd0.jsonl"
    path.write_bytes(b"".join(before))
    with watching_logs({"pd0": path}) as watched, path.open("ab") as file:
        file.writelines(during)
        file.flush()
    with path.open("ab") as file:
        file.writelines(after)
    return watched.runs


@pytest.mark.parametrize(
    ("environment", "indices"),
    [
        ({}, [0, 1, 2, 3]),
        ({"SLURM_JOB_GPUS": "1,3"}, [1, 3]),
        ({"SLURM_JOB_GPUS": ""}, [0, 1, 2, 3]),
    ],
    ids=["not named", "named", "named none"],
)
def test_the_gpus_of_the_job_are_sampled(
    environment: dict[str, str], indices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(4))
    assert [gpu.index for gpu in job_gpus(find_gpus(), environment)] == indices


def test_a_sample_has_state_facts_and_users(monkeypatch: pytest.MonkeyPatch) -> None:
    users = ((ME, 1.0), (OTHER, 1.0))
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(2, reasons=(0x4,), users=users))
    gpus = find_gpus()
    with reading(tuple(gpu.uuid for gpu in gpus)) as reader:
        idle, used = sample_gpus(gpus, reader, lambda pid: pid == ME)
    assert (idle.ours, idle.others, idle.state.throttled) == (False, (), ())
    assert (used.ours, used.others) == (True, (f"process {OTHER}",))
    assert (used.state.sm_mhz, used.state.throttled) == (1755, ("power cap",))
    assert used.facts == {"sm_mhz_max": 1980, "power_cap_w": 700, "nvlinks_up": 18}


def test_a_gpu_with_several_slices_is_sampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = tuple(fake_nvml.FakeGpu(uuid=f"MIG-{n}") for n in range(3))
    fake_nvml.install(monkeypatch, fake_nvml.FakeGpu(uuid="GPU-0", slices=slices))
    gpus = find_gpus()
    assert len(gpus) == 3
    with reading(("GPU-0",)) as reader:
        samples = sample_gpus(gpus, reader, lambda _: False)
    assert [sample.uuid for sample in samples] == ["GPU-0"]


def test_a_node_without_gpus_says_so_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, fault="Driver Not Loaded")
    monkeypatch.setattr("sys.argv", ["gpu_log", str(tmp_path / "pd0.jsonl")])
    with pytest.raises(SystemExit, match="Driver Not Loaded"):
        main()
    assert list(tmp_path.iterdir()) == []


def test_a_run_has_what_its_node_wrote_before_during_and_after(tmp_path: Path) -> None:
    (run,) = run_of(tmp_path, [line(345), line(1980)], [line(1800), line(1900)], [line(1950)])
    assert (run.node, run.index, run.uuid, run.name) == ("pd0", 1, "GPU-1", "NVIDIA H200")
    assert [state.sm_mhz for state in (run.before, run.after)] == [1980, 1950]
    assert run.during == {"samples": 2, "mean_sm_mhz": 1850, "min_sm_mhz": 1800}
    assert run.throttled == {"power cap": 0.5}
    assert run.facts == {"sm_mhz_max": 1980}


@pytest.mark.parametrize(
    ("during", "after", "samples", "last"),
    [([], [], 0, 1980), ([line(1900)], [], 1, 1900), ([line(1900)], [line(1950)[:40]], 1, 1900)],
    ids=["a load shorter than a second", "nothing yet after it", "half a line after it"],
)
def test_a_sample_that_is_missing_is_replaced_by_the_one_before(
    during: list[bytes], after: list[bytes], samples: int, last: float, tmp_path: Path
) -> None:
    (run,) = run_of(tmp_path, [line(1980)], during, after)
    assert (run.during["samples"], run.after.sm_mhz) == (samples, last)


@pytest.mark.parametrize(("ours", "others"), [(True, ("process 7 (train)",)), (False, ())])
def test_other_processes_count_where_the_sessions_own_are_seen(
    others: tuple[str, ...], tmp_path: Path, *, ours: bool
) -> None:
    during = [line(1980, ours=ours, others=("process 7 (train)",))] * 2
    (run,) = run_of(tmp_path, [line(1980)], during, [])
    assert run.others == others


def test_a_node_that_wrote_nothing_has_no_gpus(tmp_path: Path) -> None:
    with watching_logs({"pd0": tmp_path / "missing.jsonl"}) as watched:
        pass
    assert watched.runs == ()
