"""NIXL's progress thread is given a delay, where a system asks for it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from pytest_pdserve.serving.calm_nixl import VARIABLE
from pytest_pdserve.serving.calm_nixl import register
from pytest_pdserve.serving.calm_nixl import set_poll_delay


class Config:
    """NIXL's agent configuration."""

    pthrDelay = 0


class Bindings:
    """NIXL's bindings: agents that remember what they were made with."""

    @staticmethod
    def nixlAgent(name: str, config: Config) -> tuple[str, int]:
        return name, config.pthrDelay


def test_agents_poll_with_a_delay() -> None:
    bindings = Bindings()
    set_poll_delay(bindings, 100)
    assert bindings.nixlAgent("prefill", Config()) == ("prefill", 100)


def test_a_second_call_changes_nothing() -> None:
    bindings = Bindings()
    set_poll_delay(bindings, 100)
    once = bindings.nixlAgent
    set_poll_delay(bindings, 200)
    assert bindings.nixlAgent is once


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Bindings:
    """Bindings in NIXL's place."""
    bindings = Bindings()
    module = ModuleType("nixl._api")
    module.nixlBind = bindings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nixl", ModuleType("nixl"))
    monkeypatch.setitem(sys.modules, "nixl._api", module)
    return bindings


@pytest.mark.parametrize(("asked", "delay"), [(None, 0), ("250", 250)], ids=["not asked", "asked"])
def test_only_a_system_that_asks_is_calmed(
    installed: Bindings, monkeypatch: pytest.MonkeyPatch, asked: str | None, delay: int
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if asked is not None:
        monkeypatch.setenv(VARIABLE, asked)
    register()
    assert installed.nixlAgent("a", Config()) == ("a", delay)


def test_a_machine_without_nixl_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "100")
    monkeypatch.setitem(sys.modules, "nixl", None)
    monkeypatch.setitem(sys.modules, "nixl._api", None)
    register()
