"""What servers of this machine listen on."""

from __future__ import annotations

import contextlib

import psutil
import pytest

from tests.support.house import House
from tests.support.house import wait_text


def listening(house: House) -> set[str]:
    """Addresses that any process of this test listens on."""
    found = set()
    for process in house.processes():
        with contextlib.suppress(psutil.Error):
            sockets = process.net_connections("tcp")
            found |= {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN}
    return found


@pytest.mark.slow
@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("bind_host", "addresses"),
    [({}, {"127.0.0.1"}), ({"bind_host": "0.0.0.0"}, {"0.0.0.0"})],
    ids=["as it is", "as the system says"],
)
def test_servers_and_router_listen_on_loopback_unless_the_system_says_otherwise(
    bind_host: dict[str, str], addresses: set[str], house: House
) -> None:
    house.suites("sweep")
    cluster = {k: v for k, v in house.tables["cluster"].items() if k != "bind_host"}
    house.tables = {**house.tables, "cluster": {**cluster, **bind_host}}
    house.system()
    process = house.start("--topology", "1p1d")
    wait_text(process, house.path / "pytest.log", "path proven")
    assert listening(house) == addresses
    assert process.wait(60) == 0
    assert len(house.records()) == 1
