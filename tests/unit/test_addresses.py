"""Which address servers listen on, and where clients and the router ask for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pdserve.plan.command import value_of
from pytest_pdserve.plan.container import containment_of
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.launch import Launch
from pytest_pdserve.plan.launch import plan_launch
from pytest_pdserve.plan.ports import in_memory_claim
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

HOSTS = [Host(name=f"n{n}", address=f"10.0.0.{n}", interface="ens32") for n in range(4)]


def launched(system: System, bind_host: str | None, topology: str) -> Launch:
    """The launch of *topology* on four nodes."""
    cluster = replace(system.cluster, bind_host=bind_host)
    changed = replace(system, cluster=cluster, container=ContainerSpec())
    containment = containment_of(changed, HOSTS, image="", run_id="r", run_folder="/r")
    return plan_launch(
        Topology.parse(topology),
        changed,
        hosts=HOSTS,
        claim=in_memory_claim(),
        containment=containment,
    )


ADDRESSES = pytest.mark.parametrize(
    ("bind_host", "listening", "asked"),
    [
        (None, ["10.0.0.0", "10.0.0.1"], ["10.0.0.0", "10.0.0.1"]),
        ("0.0.0.0", ["0.0.0.0", "0.0.0.0"], ["10.0.0.0", "10.0.0.1"]),
        ("::", ["::", "::"], ["10.0.0.0", "10.0.0.1"]),
        ("127.0.0.1", ["127.0.0.1", "127.0.0.1"], ["127.0.0.1", "127.0.0.1"]),
    ],
    ids=["the interface's", "all", "all of IPv6 too", "loopback"],
)


@ADDRESSES
def test_instances_are_asked_where_they_listen(
    bind_host: str | None, listening: list[str], asked: list[str], p5_efa: System
) -> None:
    launch = launched(p5_efa, bind_host, "1p1d")
    assert [value_of(each.argv, "--host") for each in launch.instances] == listening
    urls = [launch.url_of(instance) for instance in launch.placement.endpoints]
    assert urls == [f"http://{address}:{8000 + n}" for n, address in enumerate(asked)]


@ADDRESSES
def test_the_router_is_asked_where_it_listens_and_asks_instances_where_they_do(
    bind_host: str | None, listening: list[str], asked: list[str], p5_efa: System
) -> None:
    launch = launched(p5_efa, bind_host, "1p1d")
    assert launch.router is not None
    said = {flag: value_of(launch.router.argv, flag) for flag in ("--host", "--prometheus-host")}
    assert said == {"--host": listening[0], "--prometheus-host": listening[0]}
    assert launch.url == f"http://{asked[0]}:8001"
    assert launch.router_metrics_url == f"http://{asked[0]}:8002"
    assert value_of(launch.router.argv, "--decode") == f"http://{asked[1]}:8001"


def test_without_a_router_clients_ask_the_head(p5_efa: System) -> None:
    launch = launched(p5_efa, None, "dp")
    assert (launch.url, launch.router_metrics_url) == ("http://10.0.0.0:8000", None)


@pytest.mark.parametrize("name", ["p5_efa", "local_cpu"])
def test_no_shipped_system_listens_on_all_addresses(
    name: str, request: pytest.FixtureRequest
) -> None:
    system: System = request.getfixturevalue(name)
    assert system.cluster.bind_host in (None, "127.0.0.1")
