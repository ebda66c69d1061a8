"""What ``pdserve plan`` prints is what runs, command by command."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.planned import plan_topology
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.plan.command import Command
from pytest_pdserve.values.topology import Topology
from tests.support.house import House

DOCKER = '''#!{python} -IS
"""A stand-in for a container engine: runs what it is told to, without a container."""
import json, os, pathlib, subprocess, sys
args = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(args) + "\\n")
if args[:2] == ["image", "inspect"]:
    print(json.dumps([{{"Id": "sha256:0a", "RepoDigests": []}}]))
if args[0] != "run":
    sys.exit(0)
words = iter(args[1:])
for word in words:
    if word == "--env":
        name, has, value = next(words).partition("=")
        if has:
            os.environ[name] = value
    elif word == "--entrypoint":
        program, image = next(words), next(words)
        break
os.execvp(program, [program, *words])
'''


def comparable(argv: Sequence[str], env: Sequence[tuple[str, str]], run: str) -> tuple[Any, ...]:
    """A command without what only a session knows: its folder, its label."""

    def plain(text: str) -> str:
        text = text.replace(run, "{run folder}")
        text = re.sub(
            r"(pdserve[-.](?:run=)?)[0-9]{8}T[0-9]{6}-stub(-\d+)?-[0-9a-f]{4}", r"\1{run}", text
        )
        return text.replace("pdserve-run-", "pdserve-{run}-")

    words = list(argv)
    if "--seed" in words:
        words[words.index("--seed") + 1] = "{seed}"
    return tuple(map(plain, words)), tuple(sorted((k, plain(v)) for k, v in env))


def planned(house: House, topology: str) -> dict[str, Command]:
    system = load_system("stub", [house.path / "baselines"])
    return {c.name: c for c in plan_topology(system, Topology.parse(topology)).commands}


def check(house: House, topology: str) -> None:
    """Compare every process of the one record with what was planned."""
    (record,) = house.records()
    run = str(house.runs / record["session"]["id"])
    commands = planned(house, topology)
    ran = {each["name"]: each for each in record["processes"]}
    assert ran.keys() == commands.keys()
    for name, each in ran.items():
        command = commands[name]
        assert each["node"] == command.node
        assert comparable(each["argv"], list(each["env"].items()), run) == comparable(
            command.argv, command.env, "{run folder}"
        )


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "topology", ["dp", pytest.param("route2", marks=pytest.mark.slow), "1p3d", "2x1p1d"]
)
def test_on_this_machine(house: House, topology: str) -> None:
    house.suites("sweep")
    house.run("--topology", topology).assert_outcomes(passed=1, skipped=1)
    check(house, topology)


@pytest.mark.slow
def test_in_containers_of_this_machine(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = house.path / "bin"
    folder.mkdir()
    log = house.path / "docker.jsonl"
    engine = folder / "docker"
    engine.write_text(DOCKER.format(python=sys.executable, log=str(log)))
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin")
    house.system(container={"kind": "docker", "image": "nixl:1", "devices": [], "gpus": ""})
    house.suites("sweep")
    house.run("--topology", "1p1d").assert_outcomes(passed=1, skipped=1)
    check(house, "1p1d")
    (record,) = house.records()
    assert record["cluster"]["container"] == "docker"
    assert all(each["argv"][:2] == ["docker", "run"] for each in record["processes"])
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    names = {word for args in asked if args[0] == "run" for word in args if "pdserve-" in word}
    removed = {args[-1] for args in asked if args[:2] == ["rm", "--force"]}
    assert removed >= {name for name in names if name.startswith("pdserve-")}
