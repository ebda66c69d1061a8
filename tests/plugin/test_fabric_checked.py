"""Libraries of a system's own are tried before servers start; records and header tell of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_pdserve.backends.fabric.checking import check_libraries
from pytest_pdserve.backends.fabric.checking import library_rows
from pytest_pdserve.backends.fabric.checking import provider_used
from pytest_pdserve.backends.fabric.folder import library_versions
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.report.header import header
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from tests.support.fabric import VERSIONS
from tests.support.fabric import fabric_folder
from tests.support.fabric import using
from tests.support.house import House
from tests.support.house import only_sentence
from tests.support.wheelhouse import WITHOUT_PROVIDER


@pytest.fixture
def local_fabric() -> System:
    """The shipped system."""
    return load_system("local-fabric", SHIPPED)


def test_records_and_header_tell_the_servers_versions_and_provider(
    tmp_path: Path, local_fabric: System
) -> None:
    system = using(local_fabric, fabric_folder(tmp_path / "fabric"))
    assert library_versions(system) == VERSIONS
    assert provider_used(system) == {"provider": "tcp", "provider_interfaces": "lo"}
    assert "NIXL 1.4.1" in header(system, ["1p1d"])
    local_cpu = load_system("local-cpu", SHIPPED)
    assert (library_versions(local_cpu), provider_used(local_cpu)) == ({}, {})


def test_a_provider_without_an_interface_is_one_sentence(
    tmp_path: Path, local_fabric: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FI_TCP_IFACE", raising=False)
    nosuch = {"FI_PROVIDER": "nosuch"}
    system = using(local_fabric, fabric_folder(tmp_path / "fabric", agent=WITHOUT_PROVIDER), nosuch)
    with pytest.raises(ConfigError) as caught:
        check_libraries(system)
    assert str(caught.value) == (
        "NIXL cannot create an agent with LIBFABRIC and FI_PROVIDER = 'nosuch': fi_getinfo failed "
        "No data available; expected a libfabric provider and a network interface that is up, "
        f"other than lo; change [pd_env] of {system.source}, or see `pdserve doctor --system "
        "local-fabric`"
    )
    assert provider_used(system) == {}


def test_a_folder_that_works_is_accepted(tmp_path: Path, local_fabric: System) -> None:
    system = using(local_fabric, fabric_folder(tmp_path / "fabric"))
    check_libraries(system)
    rows = {row.what: (row.status, row.found) for row in library_rows(system)}
    assert rows["fabric folder"] == ("ok", "libfabric 2.2.0-impi, nixl 1.4.1")
    assert rows["libfabric provider"] == ("ok", "tcp")
    assert rows["C compiler"][0] == "not needed"


def test_the_environment_of_the_session_is_not_changed(
    tmp_path: Path, local_fabric: System
) -> None:
    before = dict(os.environ)
    check_libraries(using(local_fabric, fabric_folder(tmp_path / "fabric")))
    assert dict(os.environ) == before


def test_a_session_without_the_folder_ends_before_it_starts(house: House, tmp_path: Path) -> None:
    folder = str(tmp_path / "fabric")
    house.suites("smoke")
    house.system(kv_transfer={"backend": "LIBFABRIC", "libraries": folder})
    said = only_sentence(house.run("--topology", "1p1d"))
    assert said.endswith(f"run `pdserve fabric install --folder {folder}`")
    assert not house.runs.exists()
