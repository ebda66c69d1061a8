"""A topology that is started anew: one start after the other, and trouble that is remembered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_pdserve.serving.restartable import RestartableDeployment
from pytest_pdserve.values.errors import LaunchError


class Noted:
    """Servers that are only a number: that of the start that is up."""

    def __init__(self, number: int) -> None:
        self.number = number

    def become(self, other: Noted) -> None:
        self.number = other.number


class Starts:
    """Starts that are only noted; the one numbered *failing* fails."""

    def __init__(self, failing: int | None = None) -> None:
        self.said: list[str] = []
        self.failing = failing

    @contextlib.contextmanager
    def __call__(self, number: int) -> Iterator[Any]:
        if number == self.failing:
            raise LaunchError("decode[0] ended")
        self.said.append(f"up {number}")
        try:
            yield Noted(number)
        finally:
            self.said.append(f"down {number}")


def number_of(deployed: RestartableDeployment) -> int:
    servers: Any = deployed.deployment
    number: int = servers.number
    return number


def test_a_restart_ends_the_old_servers_before_it_starts_new_ones() -> None:
    starts = Starts()
    with RestartableDeployment(starts, restartable=True) as deployed:
        assert number_of(deployed) == 0
        deployed.restart()
        assert number_of(deployed) == 1
    assert starts.said == ["up 0", "down 0", "up 1", "down 1"]


def test_who_holds_the_servers_asks_those_that_are_up() -> None:
    with RestartableDeployment(Starts(), restartable=True) as deployed:
        held: Any = deployed.deployment
        for start in (1, 2):
            deployed.restart()
            assert held.number == start
            assert deployed.deployment is held


def test_servers_that_do_not_come_up_again_are_named_to_every_later_test() -> None:
    starts = Starts(failing=1)
    with RestartableDeployment(starts, restartable=True) as deployed:
        with pytest.raises(LaunchError, match=r"decode\[0\] ended"):
            deployed.restart()
        for _ in range(2):
            with pytest.raises(LaunchError) as refused:
                _ = deployed.deployment
            said = "start 2 of this topology failed: decode[0] ended"
            assert str(refused.value) == said
    assert starts.said == ["up 0", "down 0"]


def test_servers_are_ended_when_a_test_raises() -> None:
    starts = Starts()
    with pytest.raises(ZeroDivisionError), RestartableDeployment(starts, restartable=True):
        _ = 1 / 0
    assert starts.said == ["up 0", "down 0"]


def test_servers_that_do_not_end_are_named_to_every_later_test() -> None:
    @contextlib.contextmanager
    def start(number: int) -> Iterator[Any]:
        yield Noted(number)
        raise LaunchError("decode[0] outlived SIGKILL")

    with (
        contextlib.suppress(LaunchError),
        RestartableDeployment(start, restartable=True) as deployed,
    ):
        with pytest.raises(LaunchError, match="outlived"):
            deployed.restart()
        with pytest.raises(LaunchError) as refused:
            _ = deployed.deployment
        assert str(refused.value) == "this topology did not end: decode[0] outlived SIGKILL"
