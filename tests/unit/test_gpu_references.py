"""References of cells by GPU model: their file, whose nights they are, and how they are chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.results.baselines import baseline_path
from pytest_pdserve.results.baselines import gpu_of_references
from pytest_pdserve.results.baselines import write_baseline
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.system import System
from tests.support.said import said_by
from tests.support.stored_nights import Shelf
from tests.support.stored_nights import typical_baseline

H200 = {"gpu": "NVIDIA H200", "machine": "x86_64", "cpu": "Xeon", "cores": "64"}
H100 = {**H200, "gpu": "NVIDIA H100 80GB HBM3"}
OTHER_HOST = {**H200, "cpu": "EPYC", "cores": "192", "memory_gib": "1511"}


def by_gpu(system: System, *, gpu: bool = True) -> System:
    judgement = replace(system.judgement, host_references=True, gpu_references=gpu)
    return replace(system, judgement=judgement)


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    """A project whose system keeps references by GPU model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shelf = Shelf(folder=tmp_path, make_record=make_record, night_sd=0.0, run_sd=0.0, cells=("dp",))
    path = tmp_path / "baselines" / "p5-efa" / "system.toml"
    keys = "host_references = true\ngpu_references = true"
    path.write_text(f"{path.read_text()}\n[judgement]\n{keys}\n")
    return shelf


@pytest.fixture
def pdserve(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a subcommand on p5-efa; the code it must end with is given."""

    def run(*arguments: str, code: int = 0) -> str:
        assert main([*arguments, "--system", "p5-efa"]) == code
        printed = said_by(capsys)
        return printed.err if code == 4 else printed.out

    return run


Pdserve = Callable[..., str]


def file_of(shelf: Shelf, model: str, name: str = "sweep") -> Path:
    return shelf.folder / "baselines" / "p5-efa" / model / f"{name}.json"


@pytest.mark.parametrize(
    ("gpu", "host", "same"),
    [
        (True, OTHER_HOST, True),
        (True, H100, False),
        (False, OTHER_HOST, False),
        (True, {**H200, "machine": "aarch64"}, False),
    ],
    ids=["another host", "another model", "references by host", "another architecture"],
)
def test_hosts_with_the_same_gpu_model_are_alike(
    host: dict[str, str], p5_efa: System, *, gpu: bool, same: bool
) -> None:
    system = by_gpu(p5_efa, gpu=gpu)
    assert (fingerprint(host, system) == fingerprint(H200, system)) is same


def test_hosts_without_gpus_are_told_apart_by_their_cpus(p5_efa: System) -> None:
    hosts = [{k: v for k, v in host.items() if k != "gpu"} for host in (H200, OTHER_HOST)]
    digests = {fingerprint(host, by_gpu(p5_efa)) for host in hosts}
    assert len(digests) == 2
    assert gpu_of_references(by_gpu(p5_efa), hosts[0]) is None


@pytest.mark.parametrize(
    ("gpu", "file"),
    [
        ("NVIDIA H200", "nvidia-h200/sweep.json"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3/sweep.json"),
        ("../../NVIDIA (A)", "nvidia-a/sweep.json"),
        (None, "sweep.json"),
    ],
)
def test_a_models_baseline_has_a_folder_of_its_name(
    gpu: str | None, file: str, p5_efa: System, tmp_path: Path
) -> None:
    system = replace(p5_efa, source=str(tmp_path / "baselines" / "p5-efa" / "system.toml"))
    assert baseline_path(system, tmp_path, gpu=gpu) == tmp_path / "baselines" / "p5-efa" / file


def test_a_session_is_judged_by_the_nights_of_its_gpu_model(shelf: Shelf, pdserve: Pdserve) -> None:
    for model, cells in (("nvidia-h200", ("dp",)), ("nvidia-h100-80gb-hbm3", ("1p3d",))):
        file_of(shelf, model).parent.mkdir()
        write_baseline(file_of(shelf, model), typical_baseline(cells=cells))
    shelf.session(21, host=H200)
    assert f"baseline  {file_of(shelf, 'nvidia-h200')}" in pdserve("judge")
    shelf.session(22, host=H100)
    assert "not measured: 1p3d" in pdserve("judge", code=6)


def test_without_a_gpu_the_host_has_its_own_references(shelf: Shelf, pdserve: Pdserve) -> None:
    file_of(shelf, "nvidia-h200").parent.mkdir()
    write_baseline(file_of(shelf, "nvidia-h200"), typical_baseline(cells=("dp",)))
    shelf.session(21)
    assert "baseline  none" in pdserve("judge", code=6)


def test_nights_of_a_model_become_its_baseline(shelf: Shelf, pdserve: Pdserve) -> None:
    shelf.session(21, host=H100, fingerprint="aaaaaaaaaaaa")
    shelf.session(22, host=H200)
    assert "1 cells of 1 night, 1 in all (2026-11-22)" in pdserve("baseline", "propose")
    assert f"old  {file_of(shelf, 'nvidia-h200')} does not exist" in pdserve("baseline", "diff")
    pdserve("baseline", "accept", "--approver", "Ada")
    assert file_of(shelf, "nvidia-h200").is_file()
    assert not file_of(shelf, "nvidia-h100-80gb-hbm3").exists()
    assert str(file_of(shelf, "nvidia-h200")) in pdserve("baseline", "show")


@pytest.mark.parametrize("step", [("show",), ("diff",), ("accept", "--approver", "Ada")])
def test_of_several_models_one_must_be_named(
    step: tuple[str, ...], shelf: Shelf, pdserve: Pdserve
) -> None:
    for model in ("nvidia-h200", "nvidia-l40s"):
        file_of(shelf, model).parent.mkdir()
        for name in ("sweep", "sweep.proposal"):
            write_baseline(file_of(shelf, model, name), typical_baseline(cells=("dp",)))
    assert pdserve("baseline", *step, code=4) == (
        "pdserve: 'p5-efa' has a baseline for each GPU model (nvidia-h200, nvidia-l40s); name one "
        "by --gpu\n"
    )
    assert str(file_of(shelf, "nvidia-l40s")) in pdserve("baseline", *step, "--gpu", "nvidia-l40s")


def test_a_model_is_not_named_where_references_are_not_by_model(
    shelf: Shelf, pdserve: Pdserve
) -> None:
    path = shelf.folder / "baselines" / "p5-efa" / "system.toml"
    path.write_text(path.read_text().replace("gpu_references = true", ""))
    assert pdserve("baseline", "show", "--gpu", "nvidia-h200", code=4) == (
        "pdserve: --gpu 'nvidia-h200': 'p5-efa' has no baselines by GPU model ([judgement] "
        "gpu_references); leave it out\n"
    )
