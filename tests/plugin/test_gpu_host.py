"""Sessions on a host with GPUs, with stub engines and a stand-in for NVML."""

from __future__ import annotations

import os

import pytest

from tests.support import fake_nvml
from tests.support.fake_nvml import FakeGpu
from tests.support.house import House
from tests.support.house import only_sentence

GPU = {"device": "gpu"}


def test_each_instance_sees_a_gpu_of_its_own(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = FakeGpu(uuid=f"GPU-busy-{os.getpid()}", users=((os.getpid(), 12.3),))
    fake_nvml.install(monkeypatch, busy, *fake_nvml.gpus(7))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,4,5,6")
    house.suites("sweep")
    house.system(cluster=GPU)
    result = house.run("--topology", "1p3d")
    assert result.ret == 0
    (record,) = house.records()
    shown = {p["name"]: p["env"].get("CUDA_VISIBLE_DEVICES") for p in record["processes"]}
    assert {name: gpus for name, gpus in shown.items() if gpus is not None} == {
        "prefill[0]": "3",
        "decode[0]": "4",
        "decode[1]": "5",
        "decode[2]": "6",
    }
    assert [gpu["index"] for gpu in record["gpus"]] == [3, 4, 5, 6]
    assert record["host"]["gpu"] == "NVIDIA H200"
    assert record["versions"]["cuda"] == "13.0"
    assert record["cluster"]["gpus"] == {
        "local0": ["3"],
        "local1": ["4"],
        "local2": ["5"],
        "local3": ["6"],
    }


def test_too_few_gpus_end_the_session_before_it_starts(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(3))
    house.suites("sweep")
    house.system(cluster=GPU)
    said = only_sentence(house.run("--topology", "1p3d"))
    assert "4 nodes with 1 GPUs each, 4 in all, but this machine shows 3" in said
    assert house.records() == []


def test_a_gpu_in_use_is_an_error_that_names_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(4, users=((os.getpid(), 12.3),)))
    house.suites("sweep")
    house.system(cluster=GPU)
    result = house.run("--topology", "1p3d")
    result.assert_outcomes(errors=1, skipped=1)
    named = f"GPU 3 (NVIDIA H200) is in use by process {os.getpid()} "
    result.stdout.fnmatch_lines([f"*needs 4 free GPUs, but 3 of 4 are free: {named}*"])


@pytest.mark.slow
def test_a_throttled_gpu_is_named_beside_the_verdict(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, *fake_nvml.gpus(4, reasons=(0, 0x40)))
    house.suites("sweep")
    house.system(cluster=GPU)
    house.faults(every={"token_ms": 100})  # a load of over a second, so that GPUs are looked at
    result = house.run("--topology", "1p3d")
    result.stdout.fnmatch_lines(["*GPU 3 (NVIDIA H200) of local3 was throttled: *"])


def test_a_batch_beyond_the_captured_sizes_is_refused(house: House) -> None:
    house.suites("sweep")
    house.system(model={"serve_args": ["--cudagraph-capture-sizes", "1", "2"]})
    said = only_sentence(house.run("--topology", "1p3d"))
    assert "up to 4 requests generate at once on one decode instance" in said
