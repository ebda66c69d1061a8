"""A topology that is started anew: one start after the other, and trouble that is remembered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_pdserve.serving.restartable import RestartableDeployment
from pytest_pdserve.values.errors import LaunchError


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
            yield f"servers {number}"
        finally:
            self.said.append(f"down {number}")


def test_a_restart_ends_the_old_servers_before_it_starts_new_ones() -> None:
    starts = Starts()
    with RestartableDeployment(starts, restartable=True) as standing:
        assert str(standing.deployment) == "servers 0"
        standing.restart()
        assert str(standing.deployment) == "servers 1"
    assert starts.said == ["up 0", "down 0", "up 1", "down 1"]


def test_servers_that_do_not_come_up_again_are_named_to_every_later_test() -> None:
    starts = Starts(failing=1)
    with RestartableDeployment(starts, restartable=True) as standing:
        with pytest.raises(LaunchError, match=r"decode\[0\] ended"):
            standing.restart()
        for _ in range(2):
            with pytest.raises(LaunchError) as refused:
                _ = standing.deployment
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
        yield f"servers {number}"
        raise LaunchError("decode[0] outlived SIGKILL")

    with (
        contextlib.suppress(LaunchError),
        RestartableDeployment(start, restartable=True) as standing,
    ):
        with pytest.raises(LaunchError, match="outlived"):
            standing.restart()
        with pytest.raises(LaunchError) as refused:
            _ = standing.deployment
        assert str(refused.value) == "this topology did not end: decode[0] outlived SIGKILL"
