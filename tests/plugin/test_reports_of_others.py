"""What FAILURES, JUnit and other reporters show of verdicts: what was measured, and no source."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import xml.etree.ElementTree as ET

import pytest

from tests.support.house import WITHOUT_UNUSED
from tests.support.simulated import CELL
from tests.support.simulated import DP
from tests.support.simulated import SimulatedProject
from tests.support.simulated import Values

PYTEST = (sys.executable, "-m", "pytest", *WITHOUT_UNUSED)
JUNIT = ("--junitxml", "said.xml")
SLOW = ("mean_itl_ms ", "output_throughput ", "mean_tpot_ms ", "mean_e2el_ms ")
EVIDENCE = ("  baseline ", "  note ", "  record ", "  rerun ", "  accept ")


@pytest.fixture
def slow(sim: SimulatedProject, clean: Values) -> SimulatedProject:
    """A project in which one cell of dp FAILs."""
    sim.draw(clean, slow={("dp", 512): 0.06})
    return sim


def on_a_terminal(columns: int, command: list[str]) -> list[str]:
    """Run a command on a terminal of so many columns; return its lines without colours."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen(command, stdout=its, stderr=its, env=environment):
        os.close(its)
        said = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 65536):
                said += part
    os.close(ours)
    return re.sub(r"\x1b\[[\d;]*m", "", said.decode()).replace("\r", "").split("\n")


def failures(result: pytest.RunResult) -> list[str]:
    """The lines of FAILURES."""
    lines = result.outlines
    begin = next(n for n, line in enumerate(lines) if line.strip("= ") == "FAILURES")
    end = next(n for n, line in enumerate(lines) if n > begin and line.startswith("="))
    return lines[begin + 1 : end]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("style", ["auto", "long", "short", "native"])
def test_failures_are_the_verdict_alone(style: str, slow: SimulatedProject) -> None:
    title, *lines = failures(slow.run(*DP, f"--tb={style}", "--showlocals"))
    assert title.strip("_ ") == "test_sweep[dp-512-256]"
    assert lines[0].startswith("E   BaselineRegression: mean_itl_ms ")
    shown = [line.removeprefix("E   ").removeprefix("BaselineRegression: ") for line in lines]
    assert all(line.startswith((*SLOW, *EVIDENCE)) for line in shown)
    assert {word for word in EVIDENCE if any(line.startswith(word) for line in shown)} == {
        *EVIDENCE
    }


def test_a_line_of_a_failure_is_its_verdict(slow: SimulatedProject) -> None:
    assert failures(slow.run(*DP, "--tb=line"))[0].startswith("E   BaselineRegression: mean_itl_ms")


def test_a_failure_of_a_test_itself_keeps_its_source(sim: SimulatedProject) -> None:
    sim.pytester.makepyfile("def test_own(pdserve_topology):\n    assert 1 == 2\n")
    result = sim.pytester.runpytest_inprocess("-q", "--system", "sim", "--topology", "dp")
    assert ">       assert 1 == 2" in failures(result)


@pytest.mark.slow
def test_progress_lines_are_no_wider_than_the_terminal(slow: SimulatedProject) -> None:
    lines = on_a_terminal(80, [*PYTEST, "suites", "--system", "sim", "--topology", "dp", *DP])
    first = next(n for n, line in enumerate(lines) if line.startswith("pdserve dp: test_sweep"))
    assert lines[first : first + 2] == [
        "pdserve dp: test_sweep[dp-512-256] runs again later, on a fresh start:",
        "  mean_itl_ms +6 %, limit +4 %",
    ]


def test_progress_lines_of_a_pipe_stay_whole(slow: SimulatedProject) -> None:
    slow.run(*DP).stdout.fnmatch_lines(["pdserve dp: test_sweep* runs again * limit +4 %"])


def test_the_short_summary_begins_with_the_number(slow: SimulatedProject) -> None:
    slow.run(*DP).stdout.fnmatch_lines(
        ["FAILED suites/sweep/test_sweep.py::test_sweep[[]dp-512-256] - mean_itl_ms *"]
    )


def junit(project: SimulatedProject) -> ET.Element:
    """The suite of the report for JUnit."""
    (suite,) = ET.parse(project.path / "said.xml").getroot()
    return suite


def test_junit_has_the_verdict_as_its_message(slow: SimulatedProject) -> None:
    slow.run(*DP, *JUNIT)
    (failure,) = junit(slow).iter("failure")
    assert failure.attrib["message"].startswith("mean_itl_ms ")
    assert "pdserve_judge(" not in (failure.text or "")


def properties(element: ET.Element) -> dict[str, str]:
    """The properties of a suite or of a test."""
    (found,) = element.findall("properties")
    return {each.attrib["name"]: each.attrib["value"] for each in found}


def test_junit_says_of_the_suite_what_was_measured_and_where_it_is_kept(
    sim: SimulatedProject,
) -> None:
    sim.run(*DP, *JUNIT)
    said = properties(junit(sim))
    (folder,) = (sim.path / "runs").iterdir()
    version = said.pop("pdserve_version_pytest-pdserve")
    assert version == sim.records()[0]["versions"]["pytest-pdserve"]
    assert said == {
        "pdserve_system": "sim",
        "pdserve_headline": "NEW on sim (SIMULATED, no server ran): 1 NEW",
        "pdserve_run_folder": str(folder),
    }


def test_junit_says_of_a_test_which_cell_it_is(sim: SimulatedProject) -> None:
    sim.run(*DP, *JUNIT)
    said = [properties(case) for case in junit(sim).findall("testcase")]
    assert f"{said[0]['pdserve_topology']} {said[0]['pdserve_workload']}" == CELL


def test_junit_says_nothing_of_a_suite_that_measured_nothing(sim: SimulatedProject) -> None:
    sim.run("-k", "nothing", *JUNIT)
    assert junit(sim).findall("properties") == []


def test_a_session_without_the_plugin_for_junit_goes_on(sim: SimulatedProject) -> None:
    sim.run(*DP, "-p", "no:junitxml").assert_outcomes(passed=1)


VALUES = """
import pytest
from pytest_pdserve import Topology, Workload, load_system

@pytest.mark.parametrize("topology", [Topology.parse("1p3d"), Topology.parse("dp-tp8")])
@pytest.mark.parametrize("load", [Workload(input_len=8, output_len=4, num_prompts=2)])
@pytest.mark.parametrize("system", [load_system("sim", [SYSTEMS])])
@pytest.mark.parametrize("other", [1])
def test_own(topology, load, system, other):
    pass
"""


def test_values_of_the_api_are_named_in_test_ids(sim: SimulatedProject) -> None:
    text = VALUES.replace("SYSTEMS", f"__import__('pathlib').Path({str(sim.path / 'baselines')!r})")
    sim.pytester.makepyfile(text)
    items = sim.pytester.inline_genitems()[0]
    assert [item.name for item in items if item.name.startswith("test_own")] == [
        "test_own[1-sim-random-8-4-n2-1p3d]",
        "test_own[1-sim-random-8-4-n2-dp-tp8]",
    ]
