"""Where settings, baselines and records are found: one answer, whatever the working folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from tests.support.house import WITHOUT_UNUSED

SAID = re.compile(r"pdserve: rootdir (\S+), baseline in (\S+), records in (\S+)")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own, with a folder in it and a symbolic link to it."""
    folder = tmp_path / "first"
    main(["init", str(folder)])
    (folder / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    return folder


def by_pytest(pytester: pytest.Pytester, arguments: list[str]) -> list[tuple[str, ...]]:
    """Folders that pytest says it uses."""
    result = pytester.runpytest_inprocess(*WITHOUT_UNUSED, "--collect-only", *arguments)
    return SAID.findall(result.stdout.str())


WORKING: list[tuple[str, list[str]]] = [
    ("first", []),
    ("first/deep/er", ["-c", "../../pyproject.toml"]),
    ("first/suites", []),
    ("link", []),
    ("link/suites", []),
    (".", ["--rootdir", "first", "-c", "first/pyproject.toml"]),
    (".", ["-c", "first/pyproject.toml"]),
    (".", ["-c", "link/pyproject.toml"]),
    ("/", ["-c", "{project}/pyproject.toml"]),
]


@pytest.mark.parametrize(("working", "arguments"), WORKING)
def test_pytest_and_pdserve_use_the_same_folders(
    working: str,
    arguments: list[str],
    project: Path,
    pytester: pytest.Pytester,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(project.parent / working)
    words = [word.format(project=project) for word in arguments]
    expected = (str(project), "baselines/mine", "runs")
    assert by_pytest(pytester, [*words, str(project / "suites")]) == [expected]
    capsys.readouterr()
    assert main(["plan", *words]) == 0
    assert SAID.findall(capsys.readouterr().err) == [expected]


def test_a_flag_is_relative_to_the_working_folder_an_ini_key_to_the_root(
    project: Path,
    pytester: pytest.Pytester,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(project / "deep")
    main(["judge", "--runs", "elsewhere"])
    assert SAID.findall(capsys.readouterr().err)[0][2] == "deep/elsewhere"
    main(["judge"])
    assert SAID.findall(capsys.readouterr().err)[0][2] == "runs"
    said = by_pytest(pytester, ["--pdserve-runs", "elsewhere", "../suites"])
    assert said[0][2] == "deep/elsewhere"


def test_addopts_choose_for_pdserve_too(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = project / "pyproject.toml"
    chosen = 'pdserve_system = "mine"'
    text = settings.read_text()
    assert chosen in text
    settings.write_text(
        text.replace(chosen, 'addopts = ["--system", "p5-efa", "-p", "no:pdserve"]')
    )
    monkeypatch.chdir(project)
    assert main(["plan", "--topology", "dp"]) == 0
    assert capsys.readouterr().out.partition("\n")[2].startswith("# dp on p5-efa ")


def test_without_settings_the_working_folder_is_the_project(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--system", "p5-efa"]) == 0
    folders = (str(tmp_path), "baselines/p5-efa", "runs")
    assert SAID.findall(capsys.readouterr().err) == [folders]


def test_no_conftest_is_read(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "conftest.py").write_text("raise RuntimeError('read')")
    monkeypatch.chdir(project)
    assert main(["plan"]) == 0
    assert "RuntimeError" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "root", "other"),
    [(["first", "second"], "first", "second"), (["-c", "empty.ini", "second"], ".", "second")],
    ids=["beside-each-other", "below-the-root"],
)
def test_tests_of_two_projects_do_not_mix(
    arguments: list[str],
    root: str,
    other: str,
    project: Path,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = project.parent
    main(["init", str(folder / "second")])
    (folder / "empty.ini").write_text("[pytest]\n")
    monkeypatch.chdir(folder)
    result = pytester.runpytest_inprocess(*WITHOUT_UNUSED, "--import-mode=importlib", *arguments)
    assert result.ret == 4
    assert [line for line in result.errlines if line] == [
        f"ERROR: {folder / other}/suites/test_mine.py belongs to the project in {folder / other}, "
        f"which has baselines/ of its own, but pytest's root is {folder / root}; run pytest in "
        f"{folder / other}"
    ]
    assert not [*folder.rglob("runs")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-c", "no.toml"], "--config-file no.toml: expected a file that exists"),
        (
            ["--rootdir", "nowhere"],
            "pytest cannot use its settings: Directory '{here}/nowhere' not found. Check your "
            "'--rootdir' option.",
        ),
        (
            ["-c", "bad.ini"],
            "pytest cannot use its settings: {here}/bad.ini:1: unexpected line: 'x y z'",
        ),
    ],
    ids=["no-file", "no-folder", "malformed"],
)
def test_settings_that_cannot_be_used_are_one_sentence(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.ini").write_text("x y z\n")
    assert main(["plan", *arguments]) == 4
    assert capsys.readouterr().err == f"pdserve: {said.format(here=tmp_path)}\n"


def test_tests_outside_of_the_root_run(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """With the ``conftest.py`` of this repository, as its own suites have it."""
    conftest = Path(__file__).parents[2] / "conftest.py"
    pytester.makeconftest(conftest.read_text(encoding="utf-8"))
    pytester.makepyfile("def test_it(): pass")
    root = tmp_path / "root"
    root.mkdir()
    result = pytester.runpytest_inprocess(*WITHOUT_UNUSED, "--rootdir", str(root))
    result.assert_outcomes(passed=1)
