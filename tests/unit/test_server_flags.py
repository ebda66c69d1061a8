"""Flags of servers as a comparison sees them: by role, without what every start changes."""

from __future__ import annotations

import pytest

from pytest_pdserve.results.server_flags import server_flags
from pytest_pdserve.values.record import ProcessRecord


def process(*argv: str, name: str = "decode[0]", **env: str) -> ProcessRecord:
    return ProcessRecord(name=name, node="n", argv=argv, env=env, log="x")


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (("vllm", "serve", "m", "--a", "1"), {"decode --a": "1"}),
        (("/opt/vllm", "serve", "m", "--a=1"), {"decode --a": "1"}),
        (("vllm", "serve", "m", "--a"), {"decode --a": "set"}),
        (("vllm", "serve", "m", "--a", "1", "2"), {"decode --a": "1 2"}),
        (("vllm", "serve", "m", "--a_b", "1"), {"decode --a-b": "1"}),
        (("vllm", "serve", "m", "--x.y+", "1", "--x.y+", "2"), {"decode --x.y": "1 2"}),
        (("vllm", "serve", "m", "--a", "-1"), {"decode --a": "-1"}),
        (("vllm", "serve", "m", "--port", "8000", "--host", "h"), {}),
        (
            (
                *("docker", "run", "--name", "run-7", "--env", "A=1", "--env", "VLLM_API_KEY"),
                *("--env", "VLLM_HOST_IP=10.0.0.1", "--entrypoint", "vllm", "image"),
                *("serve", "m", "--b", "2"),
            ),
            {"decode --b": "2", "decode A": "1"},
        ),
    ],
    ids=[
        "value",
        "equals sign",
        "switch",
        "several values",
        "underscores",
        "appended",
        "a number below 0",
        "places",
        "container",
    ],
)
def test_flags_are_those_of_the_program(argv: tuple[str, ...], found: dict[str, str]) -> None:
    assert server_flags([process(*argv)]) == found


def test_variables_count_and_places_do_not() -> None:
    made = process("vllm", "serve", "m", UCX_TLS="tcp", VLLM_NIXL_SIDE_CHANNEL_PORT="5600")
    assert server_flags([made]) == {"decode UCX_TLS": "tcp"}


def test_the_router_has_flags_and_the_client_does_not_count() -> None:
    router = process(
        "vllm-router", "--policy", "round_robin", "--worker-urls", "http://n:1", name="router"
    )
    client = process("vllm", "bench", "serve", "--seed", "1", name="bench random-512-256-n4")
    assert server_flags([router, client]) == {"router --policy": "round_robin"}


def test_values_of_several_instances_stand_beside_each_other() -> None:
    ones = [process("vllm", "serve", "m", "--a", value) for value in ("2", "1", "2")]
    assert server_flags(ones) == {"decode --a": "1 or 2"}
