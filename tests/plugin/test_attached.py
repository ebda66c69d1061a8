"""The client of an endpoint that is up: it runs on one slot of this machine, as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pdserve.backends.attached import attached_to
from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.plan.command import Command
from pytest_pdserve.results.folders import SHIPPED

CLIENT = Command(name="bench", node="local0", argv=("vllm", "bench", "serve"))


@pytest.mark.parametrize("name", ["local-cpu", "p5-efa"])
def test_a_client_needs_one_slot_of_this_machine(name: str, tmp_path: Path) -> None:
    system = attached_to(load_system(name, SHIPPED), "http://n:1")
    request = Request(folder=tmp_path / "run" / "attached", progress=lambda _: None)
    with backend_of(system).acquire(system, request) as nodes:
        assert [(host.name, host.address) for host in nodes.hosts] == [("local0", "127.0.0.1")]
        assert nodes.client_node == "local0"
        assert nodes.endpoint is not None
        assert nodes.endpoint.url == "http://n:1"


@pytest.mark.parametrize("name", ["local-cpu", "p5-efa"])
def test_a_client_runs_as_it_stands_and_in_no_container_of_the_servers(
    name: str, tmp_path: Path
) -> None:
    system = attached_to(load_system(name, SHIPPED), "http://n:1")
    request = Request(folder=tmp_path / "run" / "attached", progress=lambda _: None)
    with backend_of(system).acquire(system, request) as nodes:
        assert nodes.containment.wrap([CLIENT]) == (CLIENT,)
        assert nodes.describe() == {"kind": "attached"}
