"""pdserve tests beside other plugins and options of pytest: they work, or one sentence refuses."""

from __future__ import annotations

import shutil

import pytest

from tests.support.house import House
from tests.support.house import only_sentence
from tests.support.simulated import DP
from tests.support.simulated import ROOT
from tests.support.simulated import SimulatedProject
from tests.support.simulated import Values

CACHE = ("-p", "cacheprovider")
LAST = "import pytest\n@pytest.mark.pdserve_last\ndef test_end(): {body}\n"


def ids(result: pytest.RunResult) -> list[str]:
    """Names of the tests that ``--collect-only -q`` prints, in order."""
    assert result.ret == 0
    return [line.rpartition("::")[2] for line in result.outlines if "::" in line]


def topologies(names: list[str]) -> list[str]:
    """Topology of each test, of neighbours of one topology only once."""
    found = [name.partition("[")[2].rstrip("]").split("-")[0] for name in names]
    return [name for n, name in enumerate(found) if n == 0 or found[n - 1] != name]


@pytest.fixture
def failed(sim: SimulatedProject) -> SimulatedProject:
    """A project of which a cell ended in an ERROR, and a test that looks at all failed."""
    (sim.path / "suites" / "test_end.py").write_text(LAST.format(body="assert 0"))
    (sim.path / "suites" / "conftest.py").write_text(
        "from pytest_pdserve.values.errors import LaunchError\n"
        "def pytest_runtest_call(item):\n"
        "    if 'dp-512' in item.name: raise LaunchError('dp ended')\n"
    )
    sim.run(*CACHE, "-k", "dp and 512 or end").assert_outcomes(failed=1, errors=1)
    (sim.path / "suites" / "conftest.py").unlink()
    return sim


@pytest.mark.slow
def test_last_failed_runs_a_cell_that_ended_in_an_error_and_nothing_that_looks_at_others(
    failed: SimulatedProject,
) -> None:
    result = failed.run(*CACHE, "--lf")
    result.assert_outcomes(passed=1, deselected=1)
    said = "pdserve: --lf leaves out tests that judge what other tests measure: test_end"
    assert said in result.outlines


@pytest.mark.slow
def test_last_failed_refuses_to_run_only_what_looks_at_others(failed: SimulatedProject) -> None:
    failed.run(*CACHE, "--lf")
    assert only_sentence(failed.run(*CACHE, "--lf")) == (
        "--lf selects only tests that judge what other tests measure (test_end); run without --lf"
    )


def test_last_failed_without_a_failure_runs_everything(sim: SimulatedProject) -> None:
    result = sim.run(*CACHE, "--lf", "--collect-only", "-q")
    assert len(ids(result)) == 8


@pytest.mark.slow
def test_last_failed_runs_a_claim_that_is_judged_by_stored_figures(sim: SimulatedProject) -> None:
    shutil.copytree(ROOT / "suites" / "claims", sim.path / "suites" / "claims")
    broken = sim.path / "suites" / "conftest.py"
    broken.write_text("def pytest_runtest_call(item): assert 0\n")
    asked, claims = ("--system", "article", *CACHE), "suites/claims/test_claims.py"
    one = f"{claims}::test_claim[1p3d-itl-lowest-prefill]"
    sim.pytester.runpytest_inprocess(*asked, one).assert_outcomes(failed=1)
    broken.unlink()
    sim.pytester.runpytest_inprocess(*asked, claims, "--lf").assert_outcomes(passed=1)


def test_failed_first_keeps_topologies_together_and_what_looks_at_others_last(
    failed: SimulatedProject,
) -> None:
    found = ids(failed.run(*CACHE, "--ff", "--collect-only", "-q"))
    assert found == [
        *(f"test_sweep[dp-{n}-256]" for n in (512, 1024, 2048)),
        *(f"test_sweep[1p3d-{n}-256]" for n in (512, 1024, 2048)),
        *(f"test_whole_topology[{topology}]" for topology in ("1p3d", "dp")),
        "test_end",
    ]


@pytest.mark.parametrize("when", ["tryfirst", "trylast", "wrapper"])
def test_a_plugin_that_shuffles_leaves_the_tests_of_a_topology_together(
    when: str, sim: SimulatedProject
) -> None:
    (sim.path / "conftest.py").write_text(
        "import random\nimport pytest\n"
        f"@pytest.hookimpl({when}=True)\n"
        "def pytest_collection_modifyitems(items):\n"
        "    " + ("yield\n    " if when == "wrapper" else "") + "random.Random(1).shuffle(items)\n"
    )
    found = ids(sim.run("--collect-only", "-q"))
    cells, whole = found[:6], found[6:]
    assert len(topologies(cells)) == 2
    assert [name.partition("[")[0] for name in whole] == ["test_whole_topology"] * 2
    lengths = [int(name.split("-")[1]) for name in cells]
    assert [lengths[:3], lengths[3:]] != [[512, 1024, 2048]] * 2


def test_a_topology_is_stood_up_once_in_any_order(known: SimulatedProject) -> None:
    (known.path / "conftest.py").write_text(
        "import pytest\n@pytest.hookimpl(trylast=True)\n"
        "def pytest_collection_modifyitems(items):\n"
        "    items.sort(key=lambda item: item.name.rpartition('-')[0][::-1])\n"
    )
    known.run("-k", "test_sweep")
    assert {start for _, _, start in known.starts()} == {0}


def test_stepwise_is_refused(sim: SimulatedProject) -> None:
    assert only_sentence(sim.run(*CACHE, "-p", "stepwise", "--stepwise")) == (
        "--stepwise would leave out pdserve tests that have not run, as they end in another order "
        "than they are collected; use -x, then --lf"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(("--deselect", "suites/sweep/test_sweep.py::test_sweep[dp-512-256]"), id="id"),
        pytest.param(("-p", "part"), id="a plugin"),
    ],
)
def test_a_selection_is_not_a_sweep_that_lost_cells(
    asked: tuple[str, ...], known: SimulatedProject
) -> None:
    known.pytester.makepyfile(
        part="def pytest_collection_modifyitems(config, items):\n"
        "    gone = [item for item in items if 'dp-512' in item.name]\n"
        "    items[:] = [item for item in items if item not in gone]\n"
        "    config.hook.pytest_deselected(items=gone)\n"
    )
    known.pytester.syspathinsert()
    result = known.run(*asked)
    assert result.parseoutcomes() == {"passed": 7, "deselected": 1}
    result.stdout.no_fnmatch_line("*any more*")


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("asked", "outcomes"),
    [
        ("--benchmark-only", {"skipped": 1, "deselected": 7}),
        ("--benchmark-skip", {"passed": 1, "deselected": 7}),
    ],
)
def test_cells_are_no_benchmarks_for_what_selects_benchmarks(
    asked: str,
    outcomes: dict[str, int],
    known: SimulatedProject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a worker pytest-benchmark disables itself, and refuses to select benchmarks
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    result = known.run("-p", "benchmark", asked, *DP)
    assert result.parseoutcomes() == outcomes
    assert len(known.records()) == outcomes.get("passed", 0)


def test_nothing_but_the_report_is_lost_without_a_terminal(sim: SimulatedProject) -> None:
    result = sim.run("-p", "no:terminal", *DP)
    assert result.ret == 0
    assert [start for _, _, start in sim.starts()] == [0, 1, 2]


def test_a_plugin_that_reruns_failures_does_not_rerun_cells(
    sim: SimulatedProject, clean: Values
) -> None:
    sim.draw(clean, slow={("dp", 512): 0.3})
    (sim.path / "conftest.py").write_text(
        "def pytest_runtest_protocol(item): raise AssertionError('reruns')\n"
    )
    result = sim.run(*DP)
    assert result.parseoutcomes() == {"failed": 1, "deselected": 7}


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_the_shipped_suites_are_collected_in_every_import_mode(mode: str, house: House) -> None:
    here = ("--rootdir", house.path, "-c", house.path / "tox.ini", "--system", "stub")
    asked = ("--topology", "1p3d", "--collect-only", "-q", f"--import-mode={mode}")
    found = ids(house.pytester.runpytest_inprocess(ROOT / "suites", *here, *asked))
    names = {name.partition("[")[0] for name in found}
    assert names == {
        *("test_answers", "test_path_is_proven", "test_greedy_output_is_a_single_instances"),
        *("test_sweep", "test_whole_topology", "test_claim", "test_article"),
    }


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((), "fixture 'pdserve_run' not found"),
        (("--strict-config",), "Unknown config option: pdserve_system"),
    ],
    ids=["fixture", "ini key"],
)
def test_without_the_plugin_pytest_says_what_is_missing(
    asked: tuple[str, ...], said: str, house: House
) -> None:
    house.suites("sweep")
    house.pytester.makeini("[pytest]\npdserve_system = stub\n")
    result = house.pytester.runpytest_inprocess("suites", "-p", "no:pdserve", *asked)
    assert result.ret != 0
    printed = [*result.outlines, *result.errlines]
    assert [line for line in printed if said in line]
