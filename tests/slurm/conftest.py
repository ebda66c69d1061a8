"""A real Slurm on this machine, from ``docker/slurm/onehost.py``, shared by all tests here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.support.house import House
from tests.support.onehost import DOWN_AFTER_S
from tests.support.onehost import NODES
from tests.support.onehost import TABLES
from tests.support.onehost import OneHost
from tests.support.onehost import start_one_host
from tests.support.onehost import wait_until


@pytest.fixture(scope="session")
def installed() -> None:
    """Slurm's programs; on a continuous integration machine they have to be there."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if all(shutil.which(name, path=path) for name in ("slurmctld", "slurmd", "munged")):
        return
    reason = "Slurm is not installed; python docker/slurm/onehost.py install"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def slurm(installed: None) -> Iterator[OneHost]:
    """A Slurm of eight nodes, pd0 to pd7, that ``SLURM_CONF`` names until the session ends."""
    down_after = f"--down-after={DOWN_AFTER_S}"
    with start_one_host(NODES, down_after) as host, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(host.conf))
        yield host


@pytest.fixture(autouse=True)
def left_as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test no job is left and all nodes are idle; what is left must not spoil others."""
    if "slurm" not in request.fixturenames:
        yield
        return
    host: OneHost = request.getfixturevalue("slurm")
    yield
    left = host.jobs("%A %j %T")
    if left and not all(line.endswith(" COMPLETING") for line in left):
        host.run("scancel", *(line.split()[0] for line in left))
    wait_until(lambda: not host.jobs() and not host.busy_nodes(), 40)
    assert [line for line in left if not line.endswith(" COMPLETING")] == []


@pytest.fixture
def slurm_house(slurm: OneHost, house: House) -> House:
    """A house whose system ``stub`` is of kind slurm, with the suite that measures."""
    house.monkeypatch.setenv("COLUMNS", "1000")  # progress lines stay whole
    house.tables = TABLES
    house.system()
    house.suites("sweep")
    return house
