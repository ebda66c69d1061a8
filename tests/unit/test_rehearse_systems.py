"""The commands of a combination: each server has the program, arguments and model of its side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.backends.planned import plan_topology
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.plan.command import value_of
from pytest_pdserve.session.rehearse_systems import Sides
from pytest_pdserve.values.rehearsal import Combination
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

BASELINES = Path(__file__).parents[2] / "baselines"
HASH = "--kv-transfer-config.kv_connector_extra_config.enforce_handshake_compat"


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    system = load_system("local-cpu", [BASELINES])
    model = replace(system.model, path=str(tmp_path / "1"))
    stacks = {}
    for side in ("A", "B"):
        programs = tmp_path / side / "bin"
        programs.mkdir(parents=True)
        for name in ("python", "vllm", "vllm-router"):
            (programs / name).touch()
        stacks[side] = Stack(
            text=side, python=str(programs / "python"), serve_args=(f"--of-{side}",), digest=side
        )
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    return Sides(
        system=replace(system, model=model),
        stacks={"A": stacks["A"], "B": stacks["B"]},
        models={"A": tmp_path / "1", "B": tmp_path / "2"},
        folder=tmp_path / "models",
    )


def commands(system: System) -> dict[str, tuple[str, ...]]:
    launch = plan_topology(system, Topology.parse("1p1d")).launch
    return {command.name: command.argv for command in launch.commands}


def test_each_server_is_of_its_side(sides: Sides, tmp_path: Path) -> None:
    mixed = Combination(prefill="A", decode="B", router="A")
    planned = commands(replace(sides, models={}).of(mixed))
    for name, side in (("prefill[0]", "A"), ("decode[0]", "B")):
        argv = planned[name]
        assert argv[:3] == (f"{tmp_path}/{side}/bin/vllm", "serve", f"{tmp_path}/1")
        assert [word for word in argv if word.startswith("--of-")] == [f"--of-{side}"]
        assert value_of(argv, HASH) is None
    assert planned["router"][0] == f"{tmp_path}/A/bin/vllm-router"


def test_the_compatibility_hash_is_off_for_both_instances(sides: Sides) -> None:
    off = Combination(prefill="A", decode="B", router="A", hash_checked=False)
    planned = commands(sides.of(off))
    assert {value_of(planned[name], HASH) for name in ("prefill[0]", "decode[0]")} == {"false"}


def test_two_revisions_are_served_under_one_path_and_name(sides: Sides, tmp_path: Path) -> None:
    sides.link_models()
    planned = commands(sides.of(Combination(prefill="B", decode="A", router="A")))
    served = {}
    for name in ("prefill[0]", "decode[0]"):
        env, folder, _, serve, model, *_ = planned[name]
        assert (env, serve, model) == ("env", "serve", "./model")
        assert value_of(planned[name], "--served-model-name") == f"{tmp_path}/1"
        served[name] = Path(folder.removeprefix("--chdir="), model).resolve()
    assert served == {"prefill[0]": tmp_path / "2", "decode[0]": tmp_path / "1"}
