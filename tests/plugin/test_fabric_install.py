"""``pdserve fabric install``: real pip and unpacking, with small stand-ins for the wheels."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_pdserve.backends.fabric import folder as folders
from pytest_pdserve.backends.fabric.folder import find_installed
from pytest_pdserve.backends.fabric.install import download_trouble
from pytest_pdserve.commands.main import main
from tests.support import wheelhouse
from tests.support.fabric import fabric_folder
from tests.support.wheelhouse import Wheelhouse
from tests.support.wheelhouse import program


def serve(monkeypatch: pytest.MonkeyPatch, house: Wheelhouse, compiler: str) -> None:
    """Let pip find the wheels of *house* alone, and the compiler be *compiler*."""
    cc = program(house.wheels.parent / "bin" / "cc", compiler)
    monkeypatch.setenv("PATH", f"{cc.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(house.wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(folders, "REQUIREMENTS", house.requirements)


def install(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code, and the last line of what is printed."""
    code = main(["fabric", "install", "--folder", str(folder)])
    printed = capsys.readouterr()
    return code, (printed.err or printed.out).strip().splitlines()[-1]


def test_one_command_installs_and_the_next_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(monkeypatch, wheelhouse.build(tmp_path / "first"), wheelhouse.COMPILER)
    folder = tmp_path / "cache" / "fabric"
    said = f"in {folder}: libfabric 2.2.0-impi, nixl 1.4.1; LIBFABRIC works over tcp on lo"
    assert install(folder, capsys) == (0, f"now {said}")
    files = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    assert {name for name in files if name.startswith("lib/")} == {
        *("lib/libfabric.so.1", "lib/libtcp-fi.so", "lib/libcudart.so.13", "lib/libhwloc.so.15"),
        "lib/libcuda.so.1",
    }
    assert "python/.nixl_cu13.mesonpy.libs/plugins/libplugin_LIBFABRIC.so" in files
    assert not any("asio" in name or "libmpi" in name for name in files)
    assert [each.name for each in folder.parent.iterdir()] == ["fabric"]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    assert install(folder, capsys) == (0, f"already {said}")


@pytest.mark.slow
def test_a_folder_of_another_pdserve_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(monkeypatch, wheelhouse.build(tmp_path / "house"), wheelhouse.COMPILER)
    folder = fabric_folder(tmp_path / "cache" / "fabric", digest="other")
    old = program(folder / "lib" / "old.so", "")
    assert find_installed(folder) is None
    code, said = install(folder, capsys)
    assert (code, said.partition(" in ")[0]) == (0, "now")
    assert find_installed(folder) is not None
    assert not old.exists()
    assert [each.name for each in folder.parent.iterdir()] == ["fabric"]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("agent", "altered", "compiler", "said"),
    [
        (
            wheelhouse.AGENT,
            "nixl",
            wheelhouse.COMPILER,
            "nixl==1.4.1 was not installed: its file in the package index does not match the "
            "pinned hash; no part of it was used (pins: {pins})",
        ),
        (
            wheelhouse.AGENT,
            "",
            wheelhouse.FAILING_COMPILER,
            "{cc} could not compile {stub}: cc: error: stdio.h is not there; install a complete C "
            "compiler, with the C library's development files",
        ),
        (
            wheelhouse.WITHOUT_PROVIDER,
            "",
            wheelhouse.COMPILER,
            "the downloaded libraries cannot be used: NIXL cannot create an agent with LIBFABRIC "
            "over tcp: fi_getinfo failed No data available",
        ),
    ],
    ids=["other hash", "compiler fails", "no provider"],
)
def test_each_failure_is_one_sentence_and_leaves_nothing(
    agent: str,
    altered: str,
    compiler: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    house = wheelhouse.build(tmp_path / "house", agent=agent, altered=altered)
    serve(monkeypatch, house, compiler)
    folder = tmp_path / "cache" / "fabric"
    values = {
        "pins": house.requirements,
        "cc": tmp_path / "house" / "bin" / "cc",
        "stub": folders.STUB,
    }
    assert install(folder, capsys) == (7, f"pdserve: {said.format(**values)}")
    assert list(folder.parent.iterdir()) == []


def test_a_missing_compiler_is_told_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, said = install(tmp_path / "fabric", capsys)
    assert (code, said) == (
        4,
        "pdserve: a C compiler is missing: none of cc, gcc, clang is on PATH, and the stand-in for "
        "libcuda is compiled here; install one, e.g. Debian's package gcc",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_files_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, said = install(tmp_path, capsys)
    assert code == 4
    assert said.endswith(
        "is not a folder of `pdserve fabric install`; name another one by --folder"
    )
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "ERROR: Could not find a version that satisfies the requirement impi-rt==2021.17.0\n"
            "ERROR: No matching distribution found for impi-rt==2021.17.0\n",
            "pip could not download the libraries: No matching distribution found for "
            "impi-rt==2021.17.0; expected them for Linux on x86_64 in the index of your pip "
            "configuration",
        ),
        ("Killed\n", "pip could not download the libraries: Killed; expected them for"),
        ("", "pip could not download the libraries: it failed; expected them for"),
    ],
    ids=["no such package", "killed", "silent"],
)
def test_what_pip_prints_becomes_a_sentence(text: str, said: str) -> None:
    assert download_trouble(text).startswith(said)
