"""Options, ini keys and files that nobody would give: each is one sentence, and exit code 4."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from tests.support.simulated import DP
from tests.support.simulated import SimulatedProject

LONG = "x" * 5000
NULL = "a\0b"
DIGITS = "9" * 5000


@pytest.fixture(autouse=True)
def here(sim: SimulatedProject) -> None:
    """The tests' folder is a project whose system is ``sim``."""
    sim.pytester.makeini("[pytest]\npdserve_system = sim\npdserve_topology = dp\n")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence of a command that is refused."""
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    lines = capsys.readouterr().err.splitlines()
    said = [line for line in lines if not line.startswith("pdserve: rootdir ")]
    assert (code, len(said)) == (4, 1)
    return said[0]


@pytest.mark.quick_cases(5)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "--topology", ","], "pdserve: topology '' is not of the form 'dp', "),
        (["plan", "--topology", ""], "pdserve: --topology '' is empty: name one, or leave it out"),
        (["plan", "--system", ""], "pdserve: --system '' is empty: name one, or leave it out"),
        (["plan", "--system", ".."], "pdserve: system '..' is not the name of a folder of "),
        (["plan", "--system", "../x"], "pdserve: system '../x' is not the name of a folder of "),
        (["plan", "--system", "/tmp"], "pdserve: system '/tmp' is not the name of a folder of "),
        (["plan", "--system", NULL], r"pdserve: system 'a\x00b' is unknown; known are "),
        (["plan", "--topology=--"], "pdserve: argument --topology: expected a value, not '--'; "),
        (["judge", "--claims=--"], "pdserve: argument --claims: expected a value, not '--'; "),
        (["plan", "-c", LONG], f"pdserve: --config-file {LONG}: expected a file that exists"),
        (["plan", "-c", NULL], f"pdserve: --config-file {NULL}: expected a file that exists"),
        (["plan", "--rootdir", LONG], "pdserve: pytest cannot use its settings: "),
        (["judge", LONG], "pdserve: "),
        (["judge", "--runs", NULL], "pdserve: "),
        (["show", LONG], f"pdserve: RUN '{'x' * 79}: expected the name of a folder in "),
        (["show", "--runs", NULL], "pdserve: "),
        (
            ["import", "--system", "p5-efa", "--topology", "dp", "--runs", NULL, "r.json"],
            r"pdserve: runs folder '",
        ),
        (
            ["import", "--system", "p5-efa", "--topology", "dp", LONG],
            f"pdserve: {LONG} cannot be read: File name too long",
        ),
        (["calibrate", "--series", LONG], f"pdserve: {LONG} cannot be read: File name too long"),
        (["calibrate", "--series", NULL], r"pdserve: 'a\x00b' cannot be read: Invalid argument"),
        (
            ["selftest", "--series", LONG],
            f"pdserve: --series {LONG} cannot be read: File name too long",
        ),
    ],
    ids=lambda each: " ".join(each).replace(LONG, "LONG")[:60] if isinstance(each, list) else "",
)
def test_an_argument_of_pdserve(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *arguments).startswith(said)


@pytest.mark.parametrize("name", [LONG, NULL], ids=["long", "null"])
def test_doctor_has_a_row_of_a_folder_that_cannot_be(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--runs", name]) in (0, 4)
    assert "runs folder" in capsys.readouterr().out


@pytest.mark.parametrize("name", [LONG, "x/" * 3000, NULL], ids=["name", "path", "null"])
def test_a_project_of_a_name_that_cannot_be(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", name]) == 7
    assert "cannot be written: " in capsys.readouterr().err


def usage_error(sim: SimulatedProject, *arguments: str) -> str:
    """The sentence with which pytest refuses a session."""
    result = sim.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (said,) = [line for line in result.errlines if line.startswith("ERROR: ")]
    assert not (sim.path / "runs").exists()
    return said.removeprefix("ERROR: ")


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (f"--pdserve-repeats={DIGITS}", f"--pdserve-repeats '{'9' * 79}: expected at most 9999"),
        ("--pdserve-repeats=10000", "--pdserve-repeats '10000': expected at most 9999"),
        ("--pdserve-repeats=٣", "--pdserve-repeats '٣' is not a whole number of at least 1"),
        ("--pdserve-first-runs=00", "--pdserve-first-runs '00' is not a whole number of at "),
        ("--pdserve-job-id=٣", "--pdserve-job-id '٣' is not a Slurm job ID"),
        ("--topology=,", "topology '' is not of the form 'dp', "),
        (f"--topology={DIGITS}", f"topology '{'9' * 79} is not of the form 'dp', "),
        ("--topology=", "--topology '' is empty: name one, or leave it out"),
        ("--topology=--", "--topology '--' is not a value: give one, or leave the option out"),
        (
            "--pdserve-instance-url=--",
            "--pdserve-instance-url '--' is not a value: give one, or leave the option out",
        ),
        (f"--pdserve-runs={LONG}", "runs folder '/"),
        (f"--pdserve-runs={NULL}", "runs folder '/"),
        ("--system=../sim", "system '../sim' is not the name of a folder of baselines/"),
    ],
    ids=lambda each: each[:40] if each.startswith("--") else "",
)
def test_an_argument_of_pytest(argument: str, said: str, sim: SimulatedProject) -> None:
    assert usage_error(sim, argument).startswith(said)


def test_zeros_in_front_of_a_number_say_nothing(sim: SimulatedProject) -> None:
    sim.run(*DP, "--pdserve-first-runs=0001").assert_outcomes(passed=1)
    assert len(sim.starts()) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "pdserve_strict = maybe",
            "ini key pdserve_strict of {ini}: invalid truth value 'maybe', expected true or false",
        ),
        (
            "pdserve_no_record = 7",
            "ini key pdserve_no_record of {ini}: invalid truth value '7', expected true or false",
        ),
        ("pdserve_first_runs = many", "--pdserve-first-runs 'many' is not a whole number of "),
        ("pdserve_repeats = 1e3", "--pdserve-repeats '1e3' is not a whole number of at least 1"),
    ],
)
def test_an_ini_key(line: str, said: str, sim: SimulatedProject) -> None:
    ini = sim.pytester.makeini(f"[pytest]\n{line}\n")
    assert usage_error(sim).startswith(said.format(ini=ini))


@pytest.mark.parametrize("name", ["topology", "system", "runs"])
@pytest.mark.filterwarnings("ignore:Passing a value that is not a string")  # pytest 10 refuses it
def test_a_list_in_a_pyproject(
    name: str, sim: SimulatedProject, capsys: pytest.CaptureFixture[str]
) -> None:
    (sim.path / "tox.ini").unlink()
    text = f'[tool.pytest.ini_options]\npdserve_{name} = ["dp"]\n'
    ini = sim.pytester.makepyprojecttoml(text)
    assert refused(capsys, "plan") == (
        f"pdserve: ini key pdserve_{name} of {ini}: ['dp'], expected a string"
    )


def test_settings_that_are_not_utf_8(
    sim: SimulatedProject, capsys: pytest.CaptureFixture[str]
) -> None:
    (sim.path / "tox.ini").write_bytes("[pytest]\naddopts = é\n".encode("latin-1"))
    assert refused(capsys, "plan").startswith("pdserve: pytest cannot use its settings: ")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


LOOPS = "cannot be read: Too many levels of symbolic links"
NOTHING = "cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("name", "place", "said"),
    [
        ("sweep.json", loop, LOOPS),
        ("sweep.json", dangling, NOTHING),
        ("sweep.json", os.mkfifo, "is a pipe: expected a file"),
        ("expected.toml", loop, LOOPS),
        ("expected.toml", dangling, NOTHING),
        ("expected.toml", os.mkfifo, "is a pipe: expected a file"),
    ],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_a_file_beside_the_system_that_cannot_be_read(
    name: str, place: Callable[[Path], Any], said: str, sim: SimulatedProject
) -> None:
    path = sim.baseline.with_name(name)
    place(path)
    assert usage_error(sim) == f"{path} {said}"
    assert path.is_symlink() or path.is_fifo()


@pytest.mark.parametrize("place", [loop, dangling, os.mkfifo], ids=["loop", "dangling", "pipe"])
def test_a_proposal_that_cannot_be_read(
    place: Callable[[Path], Any], sim: SimulatedProject, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sim.baseline.with_name("sweep.proposal.json")
    place(path)
    said = refused(capsys, "baseline", "diff")
    assert said.startswith(f"pdserve: {path} ")
    assert "does not exist" not in said


@pytest.mark.parametrize("name", ["sim", "."], ids=["the system's folder", "all folders"])
def test_a_folder_that_is_a_loop(name: str, sim: SimulatedProject) -> None:
    folder = sim.path / "baselines" / name
    folder.rename(sim.path / "aside")
    folder.symlink_to(folder.name)
    assert usage_error(sim) == f"{sim.baseline.with_name('system.toml')} {LOOPS}"


@pytest.mark.parametrize("place", [loop, dangling], ids=["loop", "dangling"])
def test_a_runs_folder_that_is_a_link_to_nothing(
    place: Callable[[Path], Any], sim: SimulatedProject
) -> None:
    runs = sim.path / "runs"
    place(runs)
    result = sim.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"ERROR: runs folder {runs} cannot be used: {runs} is a broken link"]
    )


def test_a_system_outside_of_the_projects_folders_is_not_read(sim: SimulatedProject) -> None:
    outside = sim.path.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "system.toml").write_text(sim.baseline.with_name("system.toml").read_text())
    said = usage_error(sim, "--system", "../../outside")
    assert said == "system '../../outside' is not the name of a folder of baselines/"
