"""The one line of the header."""

from __future__ import annotations

from tests.support.house import House


def test_header_names_system_topologies_and_versions(house: House) -> None:
    house.suites("smoke")
    result = house.run("--topology", "dp,1p3d", "--collect-only")
    lines = [line for line in result.outlines if line.startswith("pdserve: ")]
    assert lines[0].startswith("pdserve: system stub, topology dp, 1p3d, ")
    assert (
        lines[-1] == f"pdserve: rootdir {house.path}, baseline in baselines/stub, records in runs"
    )
