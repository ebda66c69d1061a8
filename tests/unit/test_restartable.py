"""A topology that is started when it is asked for, and anew where its cells run again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_pdserve.serving.restartable import RestartableDeployment
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.topology import Topology


class Noted:
    """Servers that are only a number: that of the start that is up."""

    def __init__(self, number: int) -> None:
        self.number = number

    def replace_servers(self, other: Noted) -> None:
        self.number = other.number


class Starts:
    """Starts that are only noted; the one numbered *failing* fails."""

    def __init__(self, failing: int | None = None) -> None:
        self.said: list[str] = []
        self.failing = failing

    @contextlib.contextmanager
    def __call__(self, number: int) -> Iterator[Any]:
        if number == self.failing:
            self.said.append(f"failed {number}")
            raise LaunchError("decode[0] ended")
        self.said.append(f"up {number}")
        try:
            yield Noted(number)
        finally:
            self.said.append(f"down {number}")


def deployment(start: Any, *, restartable: bool = True) -> RestartableDeployment:
    return RestartableDeployment(start, Topology.parse("1p1d"), restartable=restartable)


def number_of(deployed: RestartableDeployment) -> int:
    servers: Any = deployed.deployment
    number: int = servers.number
    return number


def test_nothing_is_started_before_it_is_asked_for() -> None:
    starts = Starts()
    with deployment(starts) as deployed:
        assert starts.said == []
        assert number_of(deployed) == number_of(deployed) == 0
    assert starts.said == ["up 0", "down 0"]


def test_a_restart_ends_the_old_servers_before_it_starts_new_ones() -> None:
    starts = Starts()
    with deployment(starts) as deployed:
        assert number_of(deployed) == 0
        deployed.restart()
        assert number_of(deployed) == 1
    assert starts.said == ["up 0", "down 0", "up 1", "down 1"]


def test_starts_are_counted_on_when_a_topology_comes_back() -> None:
    starts = Starts()
    deployed = deployment(starts)
    for number in (0, 1):
        with deployed:
            assert number_of(deployed) == number
    assert deployed.starts == 2
    assert starts.said == ["up 0", "down 0", "up 1", "down 1"]


def test_servers_that_were_stopped_are_started_when_they_are_asked_for() -> None:
    starts = Starts()
    with deployment(starts) as deployed:
        assert number_of(deployed) == 0
        deployed.stop()
        deployed.stop()
        assert starts.said == ["up 0", "down 0"]
        assert number_of(deployed) == 1


def test_a_restart_of_servers_that_are_down_only_starts_them() -> None:
    starts = Starts()
    with deployment(starts) as deployed:
        deployed.restart()
        assert number_of(deployed) == 0
    assert starts.said == ["up 0", "down 0"]


def test_who_holds_the_servers_asks_those_that_are_up() -> None:
    with deployment(Starts()) as deployed:
        held: Any = deployed.deployment
        for start in (1, 2):
            deployed.restart()
            assert held.number == start
            assert deployed.deployment is held


@pytest.mark.parametrize("restart_again", [False, True], ids=["asked for", "started anew"])
def test_servers_that_do_not_come_up_again_are_tried_once_and_named_to_every_later_test(
    *, restart_again: bool
) -> None:
    starts = Starts(failing=1)
    with deployment(starts) as deployed:
        assert number_of(deployed) == 0
        with pytest.raises(LaunchError, match=r"decode\[0\] ended"):
            deployed.restart()
        for _ in range(2):
            ask = deployed.restart if restart_again else lambda: deployed.deployment
            with pytest.raises(LaunchError) as refused:
                ask()
            assert str(refused.value) == "decode[0] ended"
    assert starts.said == ["up 0", "down 0", "failed 1"]


def test_a_first_start_that_fails_is_tried_once() -> None:
    starts = Starts(failing=0)
    with deployment(starts) as deployed:
        for _ in range(2):
            with pytest.raises(LaunchError, match=r"decode\[0\] ended"):
                _ = deployed.deployment
    assert starts.said == ["failed 0"]


def test_servers_are_ended_when_a_test_raises() -> None:
    starts = Starts()
    with pytest.raises(ZeroDivisionError), deployment(starts) as deployed:
        _ = number_of(deployed) / 0
    assert starts.said == ["up 0", "down 0"]


def test_servers_that_do_not_end_are_named_to_every_later_test() -> None:
    @contextlib.contextmanager
    def start(number: int) -> Iterator[Any]:
        yield Noted(number)
        raise LaunchError("decode[0] outlived SIGKILL")

    with contextlib.suppress(LaunchError), deployment(start) as deployed:
        assert number_of(deployed) == 0
        with pytest.raises(LaunchError, match="outlived"):
            deployed.restart()
        with pytest.raises(LaunchError) as refused:
            _ = deployed.deployment
        assert str(refused.value) == "this topology did not end: decode[0] outlived SIGKILL"


@pytest.mark.parametrize(
    ("restartable", "said"), [(True, "a fresh start"), (False, "the same servers")]
)
def test_it_says_where_a_cell_runs_again(said: str, *, restartable: bool) -> None:
    assert deployment(Starts(), restartable=restartable).rerun_target == said
