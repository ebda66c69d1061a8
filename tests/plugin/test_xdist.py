"""Several pytest workers would each want the cluster: refused, in one sentence."""

from __future__ import annotations

import pytest

from tests.support.house import House
from tests.support.house import only_sentence
from tests.support.simulated import DP
from tests.support.simulated import SimulatedProject

pytest.importorskip("xdist")
REFUSED = "pdserve suites own their cluster; run them without -n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "system", ["stub", "moon"], ids=["a usable system", "a system that is unknown"]
)
def test_workers_refuse_what_the_controller_could_not_see(system: str, house: House) -> None:
    house.suites("smoke", "claims")
    house.ini(f"pdserve_system = {system}", "pdserve_topology = 1p1d")
    house.pytester.makepyfile(test_other="def test_other(): pass")
    result = house.pytester.runpytest_subprocess("-n", "2")
    assert only_sentence(result) == REFUSED
    assert not house.runs.exists()


@pytest.mark.slow
def test_a_test_that_asks_late_is_refused_by_its_worker(house: House) -> None:
    house.ini("pdserve_system = stub")
    house.pytester.makepyfile("def test_it(request): request.getfixturevalue('pdserve_cluster')\n")
    result = house.pytester.runpytest_subprocess("-n", "1")
    result.assert_outcomes(failed=1)
    assert REFUSED in result.outlines


def test_other_tests_may_use_workers(house: House) -> None:
    house.pytester.makepyfile("def test_nothing(): pass")
    house.pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=1)


def test_no_workers_at_all_are_fine(sim: SimulatedProject) -> None:
    sim.run("-p", "xdist", "-n", "0", *DP).assert_outcomes(passed=1, deselected=7)


def test_collecting_needs_no_workers(sim: SimulatedProject) -> None:
    result = sim.run("-n", "2", "--collect-only", "-q")
    assert result.ret == 0
