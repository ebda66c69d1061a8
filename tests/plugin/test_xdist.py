"""Several pytest workers would each want the cluster: refused."""

from __future__ import annotations

import pytest

from tests.support.house import House

pytest.importorskip("xdist")


def test_workers_refuse_what_the_controller_could_not_see(house: House) -> None:
    house.suites("smoke")
    house.ini("pdserve_system = stub", "pdserve_topology = 1p1d")
    result = house.pytester.runpytest_subprocess("suites", "-n", "1", "-k", "answers")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["pdserve suites own their cluster; run them without -n"])
    assert not house.runs.exists()
    assert house.survivors(2.0) == []


def test_other_tests_may_use_workers(house: House) -> None:
    house.pytester.makepyfile("def test_nothing(): pass")
    house.pytester.runpytest_subprocess("-n", "1").assert_outcomes(passed=1)
