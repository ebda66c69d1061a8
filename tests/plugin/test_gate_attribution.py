"""``pdserve gate --attribute`` of stub engines in environments that uv builds, end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import pytest

from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.gate import GateResult
from pytest_pdserve.values.gate import GateVerdict
from tests.support.gates import cut_off
from tests.support.gates import gates
from tests.support.gates import result_in
from tests.support.gates import run_gate
from tests.support.gates import state_in
from tests.support.house import WORKER
from tests.support.house import House
from tests.support.stacks import OLDER
from tests.support.stacks import VERSIONS
from tests.support.stacks import add_client
from tests.support.stacks import make_environment
from tests.support.stacks import write_stub_wheels

pytestmark = pytest.mark.slow
ARGUMENT = "--max-num-batched-tokens=64"
SLOW_MS = 250
"""Delay of a request: 25 times what it takes otherwise, so that a busy machine cannot hide it."""
SPAN = 330
"""Ports: a start takes four, and gives none back before the gate ends."""
Faults = Mapping[str, Any]
Attribute = Callable[..., GateResult]


def pinned(*names: str, versions: Mapping[str, str] = VERSIONS) -> str:
    """Return the text of a stack with these distributions."""
    return " ".join(f"{name}=={versions[name]}" for name in names)


@pytest.fixture
def attribute(house: House, monkeypatch: pytest.MonkeyPatch) -> Attribute:
    """Run a NO-GO between the older and the newer versions of some components."""
    for name, value in {
        "UV_OFFLINE": "1",
        "UV_NO_INDEX": "1",
        "UV_CACHE_DIR": str(house.path / "uv"),
        "XDG_CACHE_HOME": str(house.path / "cache"),
        "PIP_FIND_LINKS": "",
    }.items():
        monkeypatch.setenv(name, value)
    rules, wheels = house.path / "rules.json", house.path / "wheels"
    write_stub_wheels(wheels, rules)
    base = make_environment(house.path / "base", OLDER)
    add_client(base)
    house.system(
        cluster={"nodes": 2},
        ports={"http": 30000 + WORKER * SPAN, "span": SPAN},
        programs={"vllm": f"{base}/bin/vllm", "router": f"{base}/bin/vllm-router"},
        stack={"find_links": [str(wheels)]},
        sweep={"num_prompts": 2, "max_concurrency": 1},
    )
    policy = house.path / "policy.toml"
    policy.write_text("schema_version = 1\n[margins]\nmean_ttft_ms = 1.0\n")

    def run(
        topology: str, *differ: str, faults: Mapping[str, list[tuple[list[str], Faults]]]
    ) -> GateResult:
        rules.write_text(json.dumps(faults))
        names = [name for name in differ if name in VERSIONS]
        argument = f" serve-args:{ARGUMENT}" if "serve_args" in differ else ""
        old = pinned(*names, versions=OLDER)
        sides = ("--baseline", old, "--candidate", f"{pinned(*names)}{argument}")
        words = ("--system", "stub", "--topology", topology, "--policy", policy, "--attribute")
        assert run_gate(*sides, *words) == ExitCode.FAIL
        result = result_in(gates(house.runs)[-1])
        assert result.verdict is GateVerdict.NO_GO
        assert set(result.components) == set(differ)
        return result

    return run


NEW_NIXL = f"nixl=={VERSIONS['nixl']}"
NEW_ROUTER = f"vllm-router=={VERSIONS['vllm-router']}"
NEW_VLLM = f"vllm=={VERSIONS['vllm']}"


@pytest.mark.parametrize(
    ("differ", "faults", "component"),
    [
        (("nixl", "vllm-router"), {"vllm": [([NEW_NIXL], {"fetch_ms": SLOW_MS})]}, "nixl"),
        (
            ("vllm-router", "serve_args"),
            {"vllm-router": [([NEW_ROUTER], {"delay_ms": SLOW_MS})]},
            "vllm-router",
        ),
        (
            ("vllm-router", "serve_args"),
            {"vllm": [([ARGUMENT], {"first_ms": SLOW_MS})]},
            "serve_args",
        ),
        (("nixl", "vllm-router"), {"vllm": [([NEW_NIXL], {"wrong_transfer": True})]}, "nixl"),
    ],
    ids=["slow transfers", "a slow router", "a smaller token budget", "corrupt KV caches"],
)
def test_a_fault_of_one_component_is_no_go_and_names_it(
    attribute: Attribute, differ: tuple[str, ...], faults: Any, component: str
) -> None:
    found = attribute("1p1d", *differ, faults=faults).attribution
    assert found is not None
    assert (found.component, found.blocks) == (component, 3)
    assert found.why == (
        f"{component} makes B worse: A with B's {component} is worse, and B with A's {component} "
        "is not"
    )


def test_a_search_that_was_cut_off_goes_on_and_measures_a_torn_block_again(
    attribute: Attribute, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    differ, faults = ("nixl", "vllm-router"), {"wrong_transfer": True}
    whole = attribute("1p1d", *differ, faults={"vllm": [([NEW_NIXL], faults)]})
    (folder,) = gates(house.runs)
    starts = state_in(folder).starts
    swaps = ("", "A+nixl", "A+vllm-router", "B-nixl")
    assert [s.step.swap for s in starts] == [name for name in swaps for _ in range(4)]
    cut_off(folder, 10)
    for name in (*starts[8].records, *starts[9].records):
        record = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**record, "nodes": ["gone"]}))
    capsys.readouterr()
    assert run_gate("--resume", folder) == ExitCode.FAIL
    assert "A+vllm-router was begun on gone, which this session" in capsys.readouterr().err
    assert [s.step for s in state_in(folder).starts] == [s.step for s in starts]
    assert result_in(folder).attribution == whole.attribution

    cut_off(folder, 8)
    assert run_gate("--resume", folder, "--budget", "0.001min") == ExitCode.FAIL
    found = result_in(folder).attribution
    assert found is not None
    assert (found.component, found.blocks) == (None, 1)
    assert "the budget of 8blocks,0.001min does not cover another block" in found.why
    assert len(state_in(folder).starts) == 8


def test_components_that_are_slow_only_together_are_not_named(attribute: Attribute) -> None:
    together = [([NEW_VLLM, ARGUMENT], {"first_ms": SLOW_MS})]
    found = attribute("dp", "vllm", "serve_args", faults={"vllm": together}).attribution
    assert found is not None
    assert (found.component, found.blocks) == (None, 2)
    assert found.why == "none of vllm, serve_args alone makes A as bad as B"
