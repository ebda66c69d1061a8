"""The client of an endpoint that is up: it runs on one slot of this machine, as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pdserve.backends.attached import AttachedSpec
from pytest_pdserve.backends.attached import attached_to
from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plugin.options import settings_of
from pytest_pdserve.results.folders import SHIPPED
from tests.support.house import House
from tests.support.house import only_sentence

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


NAMED = ("prefill=http://h:2", "decode=http://h:3")


@pytest.mark.parametrize(
    ("flags", "ini"),
    [
        (("--pdserve-model", "m"), ("pdserve_model = m",)),
        (
            ("--pdserve-instance-url", NAMED[0], "--pdserve-instance-url", NAMED[1]),
            ("pdserve_instance_url =", *(f"    {name}" for name in NAMED)),
        ),
    ],
    ids=["model", "instance URLs"],
)
def test_an_endpoint_is_named_by_flags_or_ini_keys(
    flags: tuple[str, ...], ini: tuple[str, ...], house: House
) -> None:
    url = ("--pdserve-base-url", "http://h:1/v1/")
    house.pytester.makeini("[pytest]\n")
    by_flags = settings_of(house.pytester.parseconfig(*url, *flags)).system.tables
    house.pytester.makeini("\n".join(["[pytest]", *ini]))
    by_ini = settings_of(house.pytester.parseconfig(*url)).system.tables
    model = "m" if "--pdserve-model" in flags else None
    named = AttachedSpec(
        base_url="http://h:1", model=model, instance_urls=() if model is not None else NAMED
    )
    assert by_flags == by_ini == {"attached": named}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--pdserve-base-url", "http://me:sesame@h:1", "--system", "article"),
            "--pdserve-base-url holds a password; put the key into PDSERVE_API_KEY",
        ),
        (
            ("--pdserve-base-url", "http://h:1", "--pdserve-model", " m"),
            "--pdserve-model ' m' is not a model name as /v1/models lists it",
        ),
        (
            ("--pdserve-model", "m"),
            "--pdserve-model needs an endpoint that is up; give --pdserve-base-url, or a system of "
            "kind 'attached' whose file names one, not 'stub'",
        ),
    ],
    ids=["a password", "a blank", "no endpoint"],
)
def test_what_names_no_endpoint_is_refused_in_one_sentence(
    flags: tuple[str, ...], said: str, house: House
) -> None:
    house.suites("sweep")
    assert only_sentence(house.run(*flags)) == said


def test_a_system_file_names_an_endpoint_that_can_be_asked(house: House) -> None:
    house.suites("sweep")
    house.tables = {key: house.tables[key] for key in ("sweep", "judgement", "judgement.floors")}
    cluster = {"kind": "attached", "nodes": 1, "gpus_per_node": 1}
    path = house.system(cluster=cluster, attached={"base_url": "http://h:1/?key=sesame"})
    assert only_sentence(house.run()) == (
        f"{path}: /attached/base_url: holds a query or a fragment ('?' or '#'); expected a URL "
        "like http://10.0.0.1:8010"
    )
