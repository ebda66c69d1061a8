"""The benchmark client: the cores that it used, and what is watched while it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_pdserve.plan.command import Command
from pytest_pdserve.serving.client import CommandClient
from pytest_pdserve.serving.client import Load
from pytest_pdserve.serving.client import Watch
from pytest_pdserve.serving.client import cores_used
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.workload import Workload
from tests.support.systems import LEAST
from tests.support.systems import loaded

STARTING = [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)]
"""Imports take a whole core, which says nothing of the measurement."""


@pytest.mark.parametrize(
    ("used", "duration_s", "share"),
    [
        ([*STARTING, (3.0, 2.5), (4.0, 3.0)], 2.0, 0.5),
        ([*STARTING, (3.0, 2.5), (4.0, 3.0)], 1.5, 0.5),
        ([*STARTING, (4.0, 3.8)], 2.0, 0.9),
        ([(0.0, 0.0), (1.0, 0.5)], 10.0, 0.5),
        ([(0.0, 0.0)], 1.0, None),
        ([], 1.0, None),
        ([(0.0, 0.0), (2.0, 1.0)], 0.0, None),
        ([(0.0, 0.0), (0.2, 0.2)], 1.0, None),
    ],
    ids=[
        *("the last two seconds", "between samples", "busy", "shorter life than run"),
        *("one sample", "none", "no duration", "too close together"),
    ],
)
def test_the_share_is_taken_over_the_measurement_alone(
    used: list[tuple[float, float]], duration_s: float, share: float | None
) -> None:
    assert cores_used(used, duration_s) == (share if share is None else pytest.approx(share))


DIED = "decode[0] on h02 exited with code 1"


@dataclass
class Nodes:
    """Nodes on which each command runs for some polls and then fails."""

    polls: int
    client_node: str = "h01"
    started: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    @property
    def containment(self) -> Any:
        return SimpleNamespace(wrap=lambda commands: commands)

    def start(self, commands: Sequence[Command], **_: object) -> list[Any]:
        self.started += [command.name for command in commands]
        left = iter([None] * self.polls)
        return [SimpleNamespace(command=each, poll=lambda: next(left, 1)) for each in commands]

    def stop(self, processes: Sequence[Any]) -> None:
        self.stopped += [process.command.name for process in processes]


@pytest.mark.parametrize("polls", [5, 0], ids=["while it is asked", "and it fails too"])
def test_a_server_that_ends_while_the_version_is_asked_is_named(tmp_path: Path, polls: int) -> None:
    def check() -> None:
        raise LaunchError(DIED)

    system = loaded(tmp_path, LEAST + '[bench]\nclient = "vllm-command"\npython = "/v/python"\n')
    nodes: Any = Nodes(polls)
    load = Load(
        workload=Workload(input_len=32, output_len=8, num_prompts=4),
        system=system,
        seed=1,
        base_url="http://h01:8000",
        result=tmp_path / "run" / "result.json",
    )
    watch = Watch(limit_s=60, check_servers=check, timeout_error=lambda _, __: pytest.fail("slow"))
    client = CommandClient(kind="vllm-command", allocation=nodes, api_key="k")
    with pytest.raises(LaunchError, match=r"decode\[0\] on h02 exited"):
        client.run(load, watch)
    assert nodes.started == nodes.stopped == ["versions"]
