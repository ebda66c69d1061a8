"""An endpoint that somebody else runs, in the place of a system's own servers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.backends.attached import AttachedSpec
from pytest_pdserve.backends.attached import attached_to
from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System


def test_an_endpoint_that_is_not_named_is_asked_for(p5_efa: System, tmp_path: Path) -> None:
    attached = replace(p5_efa, cluster=replace(p5_efa.cluster, kind="attached"), tables={})
    backend = backend_of(attached)
    said = (
        "system 'p5-efa' is of kind 'attached' and names no endpoint; give --pdserve-base-url, or "
        "[attached] base_url in the system file"
    )
    with pytest.raises(ConfigError) as checked:
        backend.check(attached)
    request = Request(folder=tmp_path / "run" / "attached", progress=lambda _: None)
    with pytest.raises(ConfigError) as asked, backend.acquire(attached, request):
        pass
    assert str(checked.value) == str(asked.value) == said


def test_an_endpoint_takes_the_place_of_a_systems_own_servers(p5_efa: System) -> None:
    attached = attached_to(p5_efa, "http://n:1")
    backend = backend_of(attached)
    backend.check(attached)
    assert (attached.cluster.kind, attached.tables) == (
        "attached",
        {"attached": AttachedSpec(base_url="http://n:1")},
    )
    assert (attached.model, attached.sweep) == (p5_efa.model, p5_efa.sweep)
    assert not backend.starts_servers
    assert backend.describe_hardware(attached) == {"endpoint": "http://n:1"}
