"""Further arguments of the router, where the router is a program of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.house import House
from tests.support.house import only_sentence


@pytest.fixture(autouse=True)
def sweep(house: House) -> None:
    house.suites("sweep")


def refused(house: House, *args: str, **router: list[str]) -> str:
    """What a session says of the router's arguments, before anything starts."""
    file = house.system(router={"args": list(args), **router})
    said = only_sentence(house.run("--topology", "1p1d"))
    assert not house.runs.exists()
    return said.removeprefix(f"{file}: ")


def write_router(house: House, shell: str) -> Path:
    """Make the router of the system a shell script."""
    path = house.path / "my-router"
    path.write_text(f"#!/bin/sh\n{shell}\n")
    path.chmod(0o755)
    house.programs["router"] = str(path)
    return path


def test_the_program_itself_is_asked_for_its_flags(house: House) -> None:
    router = write_router(house, "echo '  --speed {slow,fast}  How fast'")
    assert refused(house, "--speed", "fast", "--log-level", "warn") == (
        f"/router/args/2: --log-level is not a flag of {router}; correct it, or name it in "
        "router.extra_flags if your router has it"
    )
    assert refused(house, "--speed", "warp") == (
        f"/router/args/0: --speed 'warp': {router} takes slow, fast"
    )


@pytest.mark.parametrize("shell", ["exit 1", "echo no options", "printf '\\377'"])
def test_a_program_that_does_not_tell_may_have_the_flags_of_any_release(
    shell: str, house: House
) -> None:
    write_router(house, shell)
    assert refused(house, "--speed", "fast").startswith(
        "/router/args/0: --speed is not a flag of vllm-router 0.1.9 to 0.1.17; "
    )


def test_a_repeated_port_ends_the_session_before_the_program_is_asked(house: House) -> None:
    write_router(house, f"touch {house.path}/asked")
    assert refused(house, "--port=1") == (
        "/router/args/0: --port repeats what the plan sets ([ports] http says it); remove it"
    )
    assert not (house.path / "asked").exists()


def test_a_policy_of_the_system_is_what_the_router_is_started_with(house: House) -> None:
    house.system(router={"args": ["--policy", "power_of_two"]})
    house.run("--topology", "1p1d").assert_outcomes(passed=1, skipped=1)
    (record,) = house.records()
    argv = next(each["argv"] for each in record["processes"] if each["name"] == "router")
    assert argv[-2:] == ["--policy", "power_of_two"]
    assert argv.count("--policy") == 1
    assert record["host"]["router.args"] == '["--policy", "power_of_two"]'


@pytest.mark.slow
def test_another_policy_than_the_baselines_is_named(house: House) -> None:
    house.run("--topology", "1p1d").assert_outcomes(passed=1, skipped=1)
    house.system(router={"args": ["--policy", "power_of_two"]})
    result = house.run("--topology", "1p1d")
    text = result.stdout.str() + result.stderr.str()
    assert 'router.args was not set, is ["--policy", "power_of_two"]' in text
