"""Tests of suspicious cells are postponed; whatever else pytest is asked for works as it does."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.simulated import SimulatedProject
from tests.support.simulated import Values
from tests.support.simulated import lines
from tests.support.simulated import workload

CELLS = ("-k", "not whole")
"""Options of a session without topologies as a whole, which would run all cells again."""
SLOW = {("1p3d", 1024): 0.10, ("dp", 512): 0.06, ("dp", 2048): 0.30}
"""Cells that look slower, and by how much."""


@pytest.fixture
def slow(sim: SimulatedProject, clean: Values) -> SimulatedProject:
    """A project of which three of six cells look slower."""
    sim.draw(clean, slow=SLOW)
    return sim


def reported(result: pytest.RunResult) -> list[str]:
    """Each test that ``-v`` reports, with its outcome, in order."""
    words = [line.split() for line in result.outlines if "::test_" in line and "%]" in line]
    return [f"{line[0].partition('[')[2].rstrip(']')} {line[1]}" for line in words]


def cases(path: Path) -> list[tuple[str, str]]:
    """Name and verdict of every test case of a JUnit file."""
    found = []
    for case in ElementTree.parse(path).iter("testcase"):
        said = {p.get("name"): p.get("value") for p in case.iter("property")}
        found.append((str(case.get("name")), str(said.get("pdserve_verdict"))))
    return found


@pytest.mark.slow
def test_all_cells_run_before_any_runs_again_and_cells_of_a_topology_share_starts(
    slow: SimulatedProject,
) -> None:
    slow.run(*CELLS)
    first = [(topology, n, 0) for topology in ("1p3d", "dp") for n in (512, 1024, 2048)]
    again = [("dp", n, start) for start in (1, 2) for n in (2048, 512)]
    assert slow.starts() == [*first, *again, ("1p3d", 1024, 1), ("1p3d", 1024, 2)]


@pytest.mark.slow
def test_postponed_tests_end_after_the_others_the_largest_suspicion_first(
    slow: SimulatedProject,
) -> None:
    result = slow.run(*CELLS, "-v")
    assert reported(result) == [
        *("1p3d-512-256 PASSED", "1p3d-2048-256 PASSED", "dp-1024-256 PASSED"),
        *("dp-2048-256 FAILED", "dp-512-256 FAILED", "1p3d-1024-256 FAILED"),
    ]
    assert lines(result, "pdserve dp: ")[0] == (
        "pdserve dp: test_sweep[dp-512-256] runs again later, on a fresh start: mean_itl_ms +6 %, "
        "limit +4 %"
    )


@pytest.mark.slow
def test_a_postponed_test_is_one_test_everywhere(slow: SimulatedProject) -> None:
    result = slow.run(*CELLS, "--junitxml", "said.xml")
    assert result.parseoutcomes() == {"passed": 3, "failed": 3, "deselected": 2}
    assert sorted(cases(slow.path / "said.xml")) == [
        ("test_sweep[1p3d-1024-256]", "FAIL"),
        ("test_sweep[1p3d-2048-256]", "PASS"),
        ("test_sweep[1p3d-512-256]", "PASS"),
        ("test_sweep[dp-1024-256]", "PASS"),
        ("test_sweep[dp-2048-256]", "FAIL"),
        ("test_sweep[dp-512-256]", "FAIL"),
    ]


def test_a_test_case_has_every_property_once(slow: SimulatedProject) -> None:
    slow.run(*CELLS, "--junitxml", "said.xml")
    for case in ElementTree.parse(slow.path / "said.xml").iter("testcase"):
        names = [p.get("name") for p in case.iter("property")]
        assert len(names) == len(set(names))


@pytest.mark.slow
def test_claims_and_other_last_tests_run_after_the_postponed_tests(
    slow: SimulatedProject,
) -> None:
    (slow.path / "suites" / "test_end.py").write_text(
        "import pytest\n@pytest.mark.pdserve_last\ndef test_end(): pass\n"
    )
    result = slow.run(*CELLS, "-v")
    ran = [line.split("::")[1].split()[0] for line in result.outlines if "%]" in line]
    assert ran[-1] == "test_end"


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("first_runs", ["3", "2"])
def test_new_cells_of_a_topology_share_starts(first_runs: str, sim: SimulatedProject) -> None:
    sim.topologies = "dp"
    sim.run(*CELLS, "--pdserve-first-runs", first_runs)
    starts = range(int(first_runs))
    assert sim.starts() == [("dp", n, start) for start in starts for n in (512, 1024, 2048)]


@pytest.mark.slow
def test_new_cells_run_again_after_those_that_are_suspicious(
    sim: SimulatedProject, clean: Values
) -> None:
    known = {key: values for key, values in clean.items() if key != ("1p3d", workload(512))}
    sim.draw(known, slow={("dp", 512): 0.1})
    sim.run(*CELLS)
    again = [topology for topology, _, start in sim.starts() if start]
    assert again == ["dp", "dp", "1p3d", "1p3d"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "outcomes"),
    [
        ("-x", {"passed": 3, "failed": 1, "deselected": 2}),
        ("--maxfail=2", {"passed": 3, "failed": 2, "deselected": 2}),
    ],
)
def test_a_session_that_stops_early_tells_of_the_tests_that_still_waited(
    flag: str, outcomes: dict[str, int], slow: SimulatedProject
) -> None:
    result = slow.run(*CELLS, flag, "--junitxml", "said.xml")
    assert result.parseoutcomes() == outcomes
    (line,) = lines(result, f"SUSPICIOUS: 1p3d {workload(1024)}: ")
    assert (
        "Seen in 1 start; it takes 3 to confirm: the session ended before it could run again. "
    ) in line
    ended = [name for name, _ in cases(slow.path / "said.xml")]
    assert len(ended) == outcomes["passed"] + outcomes["failed"]
    assert "test_sweep[1p3d-1024-256]" not in ended


def test_new_cells_that_still_waited_are_counted(sim: SimulatedProject) -> None:
    (sim.path / "suites" / "test_bad.py").write_text("def test_bad(): assert 0\n")
    result = sim.run("-k", "bad or dp and 512-256", "-x")
    result.stdout.fnmatch_lines(
        [
            "not judged: 1 cell without a reference, measured on fewer than 3 starts when the "
            "session ended"
        ]
    )
    assert not sim.baseline.exists()


@pytest.mark.slow
def test_last_failed_runs_the_tests_that_failed(slow: SimulatedProject) -> None:
    slow.run(*CELLS, "-p", "cacheprovider")
    result = slow.run("-p", "cacheprovider", "--lf", "-v")
    assert sorted(reported(result)) == [
        "1p3d-1024-256 FAILED",
        "dp-2048-256 FAILED",
        "dp-512-256 FAILED",
    ]


def test_a_selected_test_that_is_the_only_one_is_postponed_too(slow: SimulatedProject) -> None:
    result = slow.run("-k", "dp and 2048-256", "-v")
    assert reported(result) == ["dp-2048-256 FAILED"]
    assert slow.starts() == [("dp", 2048, start) for start in range(3)]


def test_collecting_shows_each_test_once(slow: SimulatedProject) -> None:
    result = slow.run("--collect-only", "-q")
    assert len([line for line in result.outlines if "::test_sweep" in line]) == 6
    assert slow.records() == []


def test_the_debugger_does_not_stop_at_a_postponed_test(sim: SimulatedProject) -> None:
    result = sim.run("-k", "dp and 512-256", "--pdb")
    result.assert_outcomes(passed=1)
    assert len(sim.starts()) == 3


@pytest.mark.slow
def test_tests_in_any_order_are_judged_alike(slow: SimulatedProject) -> None:
    (slow.path / "conftest.py").write_text(
        "import random\nimport pytest\n@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_collection_modifyitems(items): random.Random(3).shuffle(items)\n"
    )
    result = slow.run(*CELLS, "--junitxml", "said.xml")
    assert result.parseoutcomes() == {"passed": 3, "failed": 3, "deselected": 2}
    failed = {name for name, verdict in cases(slow.path / "said.xml") if verdict == "FAIL"}
    assert failed == {f"test_sweep[{topology}-{n}-256]" for topology, n in SLOW}


TEARDOWN = """
import pytest
@pytest.fixture(autouse=True)
def torn():
    yield
    with open("torn.txt", "a") as file:
        file.write("x")
    {ending}
"""


@pytest.mark.slow
def test_a_postponed_test_is_torn_down_each_time(slow: SimulatedProject) -> None:
    (slow.path / "conftest.py").write_text(TEARDOWN.format(ending=""))
    slow.run("-k", "dp and 2048-256").assert_outcomes(failed=1)
    assert (slow.path / "torn.txt").read_text() == "x" * 3


def test_trouble_in_the_teardown_of_a_postponed_test_is_an_error(
    slow: SimulatedProject,
) -> None:
    (slow.path / "conftest.py").write_text(TEARDOWN.format(ending="assert 0, 'still open'"))
    result = slow.run("-k", "dp and 2048-256")
    result.assert_outcomes(failed=1, errors=3)
    result.stdout.fnmatch_lines(["E *AssertionError: still open"])


def test_a_test_whose_setup_is_shown_ends_with_the_runs_it_has(slow: SimulatedProject) -> None:
    result = slow.run("-k", "dp and 2048-256", "--setup-show")
    result.assert_outcomes(passed=1)
    assert lines(result, "SUSPICIOUS: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("most", "starts"),
    [(0, []), (1, [("dp", 2048, 1)]), (3, [("dp", 2048, 1), ("dp", 512, 1), ("dp", 2048, 2)])],
)
def test_reruns_of_a_session_are_bounded_and_the_largest_suspicion_has_them(
    most: int, starts: list[tuple[str, int, int]], slow: SimulatedProject
) -> None:
    slow.system(judgement={"max_reruns": most})
    result = slow.run(*CELLS)
    assert [run for run in slow.starts() if run[2]] == starts
    assert lines(result, "judged: ") == [
        f"judged: 6 cells in {6 + most} runs, {most} of them reruns"
    ]
    (*_, line) = lines(result, "SUSPICIOUS: ")
    said = f"it takes 3 to confirm: [judgement] max_reruns = {most} allows no more. "
    assert said in line


@pytest.mark.slow
def test_what_the_session_shares_is_torn_down_with_the_test_that_stops_it(
    slow: SimulatedProject,
) -> None:
    (slow.path / "conftest.py").write_text(
        "import pytest\n@pytest.fixture(scope='session', autouse=True)\ndef shared():\n"
        "    yield\n    assert 0, 'still shared'\n"
    )
    result = slow.run(*CELLS, "-x")
    result.assert_outcomes(passed=3, failed=1, errors=1)
    result.stdout.fnmatch_lines(["E *AssertionError: still shared"])


def test_a_second_test_of_a_cell_does_not_run_it_again_before_the_others(
    sim: SimulatedProject, clean: Values
) -> None:
    sim.topologies = "dp"
    sim.draw(clean, slow={("dp", 512): 0.1})
    (sim.path / "suites" / "sweep" / "test_again.py").write_text(
        "import pytest\n"
        '@pytest.mark.pdserve_panels("prefill")\n'
        "def test_again(pdserve_run, pdserve_judge):\n"
        "    pdserve_judge(pdserve_run)\n"
    )
    (sim.path / "conftest.py").write_text(
        "import pytest\n@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_collection_modifyitems(items):\n"
        "    items.sort(key=lambda item: '2048' in item.name)\n"
        "    items.sort(key=lambda item: '512' not in item.name)\n"
    )
    result = sim.run(*CELLS)
    result.assert_outcomes(passed=4, failed=2)
    first = [("dp", n, 0) for n in (512, 1024, 2048)]
    assert sim.starts() == [*first, ("dp", 512, 1), ("dp", 512, 2)]
