"""``pdserve init``: the project that it writes runs as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main

FILES = [
    "baselines/mine/system.toml",
    "pyproject.toml",
    "suites/claims.toml",
    "suites/test_mine.py",
]


@pytest.mark.slow
def test_the_project_is_new_and_then_passes(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pytester.path / "first"
    assert main(["init", str(folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        *(f"wrote    {folder / name}" for name in FILES),
        f"next     cd {folder} && pytest",
    ]
    pytester.chdir()
    for verdict in ("NEW", "PASS"):
        result = pytester.runpytest_subprocess("--rootdir", folder, "-c", folder / "pyproject.toml")
        assert result.ret == 0
        result.stdout.fnmatch_lines(["SIMULATED, no server ran: a first system, simulated"])
        result.stdout.fnmatch_lines([f" 1p3d *2048-64-n128 *{verdict}"])
    assert (folder / "baselines" / "mine" / "sweep.json").exists()


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / name
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("mine")
    assert main(["init", str(tmp_path)]) == 4
    assert capsys.readouterr().err == (
        f"pdserve: {own} exists, and pdserve init does not overwrite files; name another folder\n"
    )
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [own.name]


def test_a_folder_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file" / "project")]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("cannot be written: Not a directory")
