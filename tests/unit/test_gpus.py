"""GPUs of this machine: which a session sees, may have, and is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.backends.hosts.gpu_watch import watching_gpus
from pytest_pdserve.backends.hosts.nvml import driver_versions
from pytest_pdserve.backends.hosts.nvml import find_gpus
from pytest_pdserve.backends.local.allocation import slots
from pytest_pdserve.backends.local.gpus import check_gpus
from pytest_pdserve.backends.local.gpus import parse_cores
from pytest_pdserve.backends.local.gpus import planned_gpus
from pytest_pdserve.backends.local.gpus import shares_of_cores
from pytest_pdserve.backends.local.gpus import visible_gpus
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.judge.gpu_checks import check_gpus as check_run
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.gpus import GpuRun
from pytest_pdserve.values.gpus import GpuState
from pytest_pdserve.values.gpus import summarize
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload
from tests.support import fake_nvml
from tests.support.fake_nvml import FakeGpu
from tests.support.systems import LEAST
from tests.support.systems import loaded

ME = os.getpid()


def system(folder: Path, *, nodes: int = 2, gpus: int = 1, more: str = "") -> System:
    text = LEAST.replace("nodes = 2", f'nodes = {nodes}\ndevice = "gpu"')
    return loaded(folder, text.replace("gpus_per_node = 1", f"gpus_per_node = {gpus}") + more)


def sliced() -> tuple[FakeGpu, ...]:
    parts = tuple(FakeGpu(uuid=f"MIG-{n}{n}") for n in range(2))
    return (FakeGpu(uuid="GPU-whole"), FakeGpu(uuid="GPU-cut", slices=parts))


@pytest.mark.parametrize(
    ("said", "names"),
    [
        pytest.param(None, ["0", "1", "2", "3", "4", "5", "6", "7"], id="all eight"),
        pytest.param("4,5,6,7", ["4", "5", "6", "7"], id="the second half"),
        pytest.param("3, 1", ["3", "1"], id="in the order asked"),
        pytest.param("1,1", ["1"], id="named twice"),
        pytest.param("GPU-0002-,GPU-0005", ["2", "5"], id="by id and its beginning"),
        pytest.param("", [], id="empty"),
        pytest.param("-1", [], id="none"),
    ],
)
def test_visible_gpus_are_those_that_cuda_would_show(
    said: str | None, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(8))
    assert [each.name for each in visible_gpus(find_gpus(), said)] == names


@pytest.mark.parametrize(
    ("said", "names"),
    [
        pytest.param(None, ["0", "MIG-00", "MIG-11"], id="all"),
        pytest.param("MIG-11", ["MIG-11"], id="one slice"),
        pytest.param("GPU-cut", ["MIG-00", "MIG-11"], id="all slices of a GPU"),
        pytest.param("0", ["0"], id="the whole GPU"),
    ],
)
def test_slices_are_gpus_of_their_own(
    said: str | None, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, *sliced())
    assert [each.name for each in visible_gpus(find_gpus(), said)] == names


@pytest.mark.parametrize("said", ["9", "GPU-ffff", "0,x"])
def test_a_name_that_cuda_would_pass_over_is_refused(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(2))
    with pytest.raises(ConfigError, match=r"which is not a GPU of this machine \(0, 1\)"):
        visible_gpus(find_gpus(), said)


def test_each_slot_has_gpus_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(8))
    pairs = system(tmp_path, nodes=2, gpus=2)
    hosts = slots(pairs, 8, planned_gpus(pairs, {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}))
    assert [host.gpus for host in hosts] == [("4", "5"), ("6", "7")]
    assert all(host.compile_cache for host in hosts)


def test_a_plan_numbers_gpus_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, fault="Driver Not Loaded")
    assert [gpu.name for gpu in planned_gpus(system(tmp_path), {})] == ["0", "1"]
    assert driver_versions() == {}


@pytest.mark.parametrize(
    ("count", "environment", "fault", "said"),
    [
        (3, {}, "", "4 in all, but this machine shows 3 (all that NVML shows)"),
        (8, {"CUDA_VISIBLE_DEVICES": "0,1"}, "", "shows 2 (CUDA_VISIBLE_DEVICES = '0,1')"),
        (0, {}, "", "shows 0 (NVML shows no GPU)"),
        (0, {}, "Driver Not Loaded", "shows 0 (NVML says: Driver Not Loaded)"),
    ],
)
def test_more_gpus_than_the_machine_shows_are_refused(
    count: int,
    environment: dict[str, str],
    fault: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_nvml.install(monkeypatch, *(fake_nvml.gpus(count) if count else ()), fault=fault)
    with pytest.raises(PlacementError) as caught:
        check_gpus(system(tmp_path, nodes=4), environment)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "more",
    [
        '[env]\nCUDA_VISIBLE_DEVICES = "0"\n',
        '[pd_env]\nCUDA_VISIBLE_DEVICES = "0"\n',
        '[model.decode.env]\nCUDA_VISIBLE_DEVICES = "0"\n',
    ],
)
def test_gpus_that_the_system_file_sets_itself_are_refused(more: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is set by the plan, a GPU for each slot"):
        check_gpus(system(tmp_path, more=more), {})


def test_gpus_that_the_system_file_passes_through_are_refused(tmp_path: Path) -> None:
    passing = replace(system(tmp_path), pass_env=("CUDA_VISIBLE_DEVICES",))
    with pytest.raises(ConfigError, match="is set by the plan, a GPU for each slot"):
        check_gpus(passing, {})


def test_cores_are_those_next_to_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(4))
    near = {"0000:01:00.0": "0-7", "0000:02:00.0": "0-7", "0000:03:00.0": "8-15"}
    read = Path.read_text

    def text(path: Path, *arguments: str, **named: str) -> str:
        if path.name == "local_cpulist":
            if path.parent.name not in near:
                raise FileNotFoundError
            return near[path.parent.name] + "\n"
        return read(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", text)
    groups = [(each,) for each in visible_gpus(find_gpus(), None)]
    assert shares_of_cores(groups, range(16)) == (
        (1, 2, 3),
        (4, 5, 6),
        (8, 9, 10, 11, 12, 13, 14, 15),
        (),
    )


@pytest.mark.parametrize(("text", "cores"), [("0-3,8\n", (0, 1, 2, 3, 8)), ("5", (5,))])
def test_a_list_of_cores_is_read(text: str, cores: tuple[int, ...]) -> None:
    assert parse_cores(text) == cores


def test_a_run_has_its_gpus_before_during_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    users = ((ME, 1.0), (2**22 + 1, 1.0))
    thermal = fake_nvml.gpus(1, reasons=(0, 0x40, 0x44, 0), ecc=(0, 0, 2), users=users)
    fake_nvml.install(monkeypatch, *thermal)
    (gpu,) = find_gpus()
    with watching_gpus({"local0": [gpu]}, lambda pid: pid == ME, every_s=0.01) as watch:
        while len(watch.samples.get(gpu.uuid, ())) < 3:
            pass
    (run,) = watch.runs
    assert run.before == GpuState(
        sm_mhz=1755, memory_mhz=1755, power_w=512, temperature_c=61, ecc_uncorrected=0
    )
    assert run.facts == {"sm_mhz_max": 1980, "power_cap_w": 700, "nvlinks_up": 18}
    assert run.during["mean_sm_mhz"] == 1755
    assert set(run.throttled) == {"hardware thermal slowdown", "power cap"}
    assert run.others == ("process 4194305",)
    assert run.ecc_errors == 2


def test_processes_that_the_driver_counts_otherwise_are_nobodys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(1, users=((2**22 + 1, 1.0),)))
    with watching_gpus({"local0": find_gpus()}, lambda pid: False, every_s=0.01) as watch:
        while not watch.samples:
            pass
    assert watch.runs[0].others == ()


def test_without_a_driver_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(1))
    found = find_gpus()
    fake_nvml.install(monkeypatch, fault="Driver Not Loaded")
    with watching_gpus({"local0": found}, lambda pid: True) as watch:
        pass
    assert watch.runs == ()


RUN = GpuRun(
    index=2,
    node="local2",
    uuid="GPU-2",
    name="NVIDIA H200",
    facts={"sm_mhz_max": 1980.0},
    before=GpuState(ecc_uncorrected=0),
    during={"mean_sm_mhz": 1200.0, "max_temperature_c": 88.0, "samples": 10.0},
    after=GpuState(ecc_uncorrected=0),
)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (RUN, []),
        (replace(RUN, throttled={"power cap": 1.0}), []),
        (replace(RUN, throttled={"hardware thermal slowdown": 0.01}), []),
        (
            replace(RUN, throttled={"hardware thermal slowdown": 0.4}),
            [
                "GPU 2 (NVIDIA H200) of local2 was throttled: hardware thermal slowdown in 40% of "
                "the load, clock 1200 MHz of 1980, up to 88 °C"
            ],
        ),
        (
            replace(RUN, others=("process 7 (python3 train.py)",)),
            ["GPU 2 (NVIDIA H200) of local2 was also used by process 7 (python3 train.py)"],
        ),
        (
            replace(RUN, after=GpuState(ecc_uncorrected=3)),
            ["GPU 2 (NVIDIA H200) of local2 had 3 memory errors that ECC could not correct"],
        ),
    ],
)
def test_a_throttled_shared_or_faulty_gpu_is_named(
    run: GpuRun, said: list[str], make_result: Callable[..., BenchResult]
) -> None:
    load = Workload(input_len=512, output_len=256, num_prompts=4)
    topology = Topology.parse("dp")
    seen = Observation(topology=topology, workload=load, result=make_result(), gpus=(run,))
    found = list(check_run(seen))
    assert [finding.message for finding in found] == said
    assert all(finding.is_note for finding in found)


def test_a_load_too_short_for_a_look_says_so() -> None:
    assert summarize([]) == ({"samples": 0.0}, {})


def test_memory_errors_that_a_gpu_does_not_report_are_unknown() -> None:
    assert replace(RUN, after=GpuState()).ecc_errors is None


def test_memory_that_nvml_does_not_report_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(1, used_gib=None, users=None))
    (gpu,) = find_gpus()
    assert (gpu.memory_gib, gpu.used_gib, gpu.users) == (None, None, None)


@pytest.mark.parametrize("system", ["gpu-host", "gpu-host-2"])
def test_a_plan_knows_of_gpus_that_this_machine_does_not_have(system: str) -> None:
    found = load_system(system, SHIPPED)
    assert backend_of(found).has_gpus(found)
