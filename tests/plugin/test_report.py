"""The session's report: in its run folder, and where ``--pdserve-report`` wants it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pytest_pdserve.results.store import load_report
from pytest_pdserve.values.report import Report
from tests.support.house import WITHOUT_UNUSED
from tests.support.simulated import CELL
from tests.support.simulated import DP
from tests.support.simulated import SimulatedProject
from tests.support.simulated import Values
from tests.support.simulated import lines


@pytest.fixture
def slow(sim: SimulatedProject, clean: Values) -> SimulatedProject:
    """A project in which one cell of dp FAILs."""
    sim.draw(clean, slow={("dp", 512): 0.06})
    return sim


def stored(project: SimulatedProject) -> Report:
    """The report of the only session."""
    (folder,) = (project.path / "runs").iterdir()
    report = load_report(folder)
    assert report is not None
    return report


def own(project: SimulatedProject, text: str, *arguments: str) -> pytest.RunResult:
    """Run a test file of the project's own."""
    project.pytester.makepyfile(test_own=text)
    asked = ("test_own.py", "--system", "sim", "--topology", "dp", *WITHOUT_UNUSED)
    return project.pytester.runpytest_inprocess(*asked, *arguments)


def test_terminal_junit_and_report_say_the_same(slow: SimulatedProject) -> None:
    result = slow.run("-k", "dp", "--junitxml", "said.xml")
    report = stored(slow)
    assert report.headline == "FAIL on sim (SIMULATED, no server ran): 1 FAIL, 3 PASS"
    assert report.headline in result.outlines
    assert report.tests == {"failed": 1, "passed": 3, "deselected": 4}
    (suite,) = ET.parse(slow.path / "said.xml").getroot()
    said = {each.attrib["name"]: each.attrib["value"] for each in suite.iter("property")}
    assert said["pdserve_headline"] == report.headline
    tests = [
        {each.attrib["name"]: each.attrib["value"] for each in case.iter("property")}
        for case in suite.iter("testcase")
    ]
    measured = [test for test in tests if "pdserve_workload" in test]
    cells = [each for each in report.verdicts if each.kind == "cell"]
    assert {
        each.workload: (each.status, f"{report.folder}/{each.records[-1]}") for each in cells
    } == {
        test["pdserve_workload"]: (test["pdserve_verdict"], test["pdserve_record"])
        for test in measured
    }
    (failed,) = (each for each in cells if each.status == "FAIL")
    assert failed.title == CELL
    assert lines(result, f"FAIL: {CELL}: {failed.misses[0]}")
    assert all((Path(report.folder) / path).exists() for path in failed.records)
    assert (len(failed.records), failed.runs) == (3, 3)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("form", ["md", "json", "prom"])
def test_the_suffix_chooses_the_format(form: str, slow: SimulatedProject) -> None:
    result = slow.run(*DP, "--pdserve-report", f"ci/report.{form}")
    path = slow.path / "ci" / f"report.{form}"
    assert lines(result, "report: ") == [f"report: {path}"]
    headline, text = stored(slow).headline, path.read_text()
    if form == "json":
        assert text == (Path(stored(slow).folder) / "report.json").read_text()
    elif form == "prom":
        families = {family.name for family in text_string_to_metric_families(text)}
        assert "pdserve_metric_value" in families
    assert headline in text


def test_an_ini_key_names_a_file_of_the_root(slow: SimulatedProject) -> None:
    slow.pytester.makeini("[pytest]\npdserve_report = said.json\n")
    slow.run(*DP)
    assert json.loads((slow.path / "said.json").read_text())["status"] == "FAIL"


def test_a_session_that_measures_nothing_shows_nothing_of_an_earlier_one(
    slow: SimulatedProject,
) -> None:
    slow.run(*DP, "--pdserve-report", "report.md")
    path = slow.path / "report.md"
    assert "random-512-256-n64" in path.read_text()
    result = slow.run("-k", "nothing", "--pdserve-report", "report.md")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert path.read_text().startswith("## Nothing was measured on sim\n")
    assert "random-512-256-n64" not in path.read_text()


LOOK = """
from pathlib import Path
def test_look(pdserve_topology):
    Path("seen.md").write_text(Path("report.md").read_text())
"""


def test_the_report_of_an_earlier_session_goes_before_the_first_test(sim: SimulatedProject) -> None:
    (sim.path / "report.md").write_text("an earlier session")
    own(sim, LOOK, "--pdserve-report", "report.md").assert_outcomes(passed=1)
    assert (
        (sim.path / "seen.md")
        .read_text()
        .startswith("## No results of sim: the session did not come to its end\n")
    )


@pytest.mark.parametrize("flag", ["--collect-only", "--setup-plan", "--fixtures"])
def test_what_only_looks_leaves_an_earlier_report(flag: str, sim: SimulatedProject) -> None:
    (sim.path / "report.md").write_text("an earlier session")
    sim.run(flag, "--pdserve-report", "report.md")
    assert (sim.path / "report.md").read_text() == "an earlier session"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("report.txt", "ERROR: report '{folder}/report.txt': expected a file name that ends in "),
        ("said/report.md", "ERROR: no report: {folder}/said/report.md cannot be written: "),
    ],
)
def test_a_file_that_cannot_be_written_ends_the_session_before_it_begins(
    file: str, said: str, sim: SimulatedProject
) -> None:
    (sim.path / "said").write_text("a file")
    result = sim.run(*DP, "--pdserve-report", file)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert any(line.startswith(said.format(folder=sim.path)) for line in result.errlines)
    assert not (sim.path / "runs").exists()


BLOCK = """
from pathlib import Path
def test_block(pdserve_topology, _pdserve_session):
    (_pdserve_session.store.folder / "report.json").mkdir()
    Path("ci/report.md").unlink()
    Path("ci").rmdir()
    Path("ci").write_text("a file")
"""


def test_a_report_that_cannot_be_written_is_a_line_and_no_other_verdict(
    sim: SimulatedProject,
) -> None:
    result = own(sim, BLOCK, "--pdserve-report", "ci/report.md")
    assert result.ret == pytest.ExitCode.OK
    one, other = lines(result, "no report")
    assert one.startswith("no report.json: ")
    assert other.startswith(f"no report: {sim.path}/ci/report.md cannot be written: ")


SERVERS = """
import pytest
from pytest_pdserve import Status
from pytest_pdserve import Verdict

@pytest.mark.parametrize("status", ["PASS", "FAIL"])
def test_servers(pdserve_topology, _pdserve_session, pdserve_apply_verdict, status):
    said = Verdict(status=Status[status], subject="answers", misses=(f"{status} of 4 tokens",))
    pdserve_apply_verdict(said)

def test_broken(pdserve_topology):
    assert 1 == 2, "a | b"

@pytest.fixture
def gone():
    raise RuntimeError("lost")

def test_error(pdserve_topology, gone): pass

def test_skipped(pdserve_topology):
    pytest.skip("too small")
"""


def test_tests_without_a_verdict_are_told_with_their_reasons(sim: SimulatedProject) -> None:
    own(sim, SERVERS).assert_outcomes(passed=1, failed=2, errors=1, skipped=1)
    report = stored(sim)
    assert report.headline == (
        "Nothing was measured on sim; FAIL on sim (SIMULATED, no server ran): 1 FAIL, 1 PASS; "
        "2 errors without a verdict"
    )
    assert [(each.kind, each.status, each.misses) for each in report.verdicts] == [
        ("smoke", "FAIL", ("FAIL of 4 tokens",)),
        ("smoke", "PASS", ("PASS of 4 tokens",)),
    ]
    assert [each.subject for each in report.errors] == [
        "test_own.py::test_error[dp]",
        "test_own.py::test_broken[dp]",
    ]
    assert "a | b" in report.errors[1].why
    assert [(each.subject, each.why) for each in report.not_judged] == [
        ("test_own.py::test_skipped[dp]", "too small")
    ]


NO_RESULTS, NOTHING = "No results of sim: ", "Nothing was measured on sim: "
ENDINGS = {
    "an exit": ("    pytest.exit('enough')\n", NO_RESULTS, "the session did not come to its end"),
    "a file that cannot be collected": ("    return\n1 / 0\n", NOTHING, "ZeroDivisionError"),
    "the first failure": ("    assert False, 'lost'\n", NOTHING, "AssertionError: lost"),
}


@pytest.mark.parametrize(("body", "begins", "said"), ENDINGS.values(), ids=ENDINGS)
def test_a_session_that_is_cut_short_says_so(
    body: str, begins: str, said: str, sim: SimulatedProject
) -> None:
    text = f"import pytest\ndef test_end(pdserve_topology):\n{body}"
    own(sim, text, "--pdserve-report", "report.json", "-x", "--no-header")
    report = json.loads((sim.path / "report.json").read_text())
    assert report["headline"].startswith(begins)
    assert said in report["headline"]
    assert report["ended"] is False
