"""Arguments of ``vllm serve`` in a system file that repeat what the plan sets."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from pytest_pdserve.backends.planned import plan_topology
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.plan.serve_flags import WRITTEN
from pytest_pdserve.plan.serve_flags import WRITTEN_FOR_TRANSFER
from pytest_pdserve.plan.serve_flags import flag_name
from pytest_pdserve.plan.serve_flags import repeated_serve_args
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.topology import Topology
from tests.support.systems import LEAST
from tests.support.systems import loaded
from tests.support.systems import refused

ALL_WRITTEN = (*WRITTEN, *WRITTEN_FOR_TRANSFER)


def words(text: str) -> str:
    """*text* as a TOML list."""
    return str(text.split())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--port 1", "0: --port repeats what the plan sets ([ports] http says it); remove it"),
        ("--dtype auto --port=1", "2: --port repeats what the plan sets ([ports] http says it); "),
        ("--host 0.0.0.0", "0: --host repeats what the plan sets ([cluster] bind_host says it); "),
        ("--uds /tmp/s", "0: --uds repeats what the plan sets by --host ([cluster] bind_host "),
        ("--model other", "0: --model repeats what the plan sets ([model] path says it); "),
        (
            "-tp 2",
            "0: -tp repeats what the plan sets by --tensor-parallel-size (tensor_parallel or the "
            "topology's name says it, e.g. 1p3d-tp4); remove it",
        ),
        ("-tp=2", "0: -tp repeats what the plan sets by --tensor-parallel-size (tensor_parallel "),
        ("--tensor_parallel_size 2", "0: --tensor-parallel-size repeats what the plan sets (tens"),
        ("--tensor-par 2", "0: --tensor-par repeats what the plan sets by --tensor-parallel-size "),
        ("-dp 2", "0: -dp repeats what the plan sets by --data-parallel-size (the topology and "),
        ("-dpl 2", "0: -dpl repeats what the plan sets by --data-parallel-size-local (the topo"),
        ("-dpa h", "0: -dpa repeats what the plan sets by --data-parallel-address (the topology "),
        ("-dpp 9", "0: -dpp repeats what the plan sets by --data-parallel-rpc-port ([ports] rpc "),
        ("-dpr 1", "0: -dpr repeats what the plan sets by --data-parallel-start-rank (the topo"),
        ("--headless", "0: --headless repeats what the plan sets (the topology and [cluster] say "),
        (
            "--kv-transfer-config.kv_role kv_both",
            "0: --kv-transfer-config.kv_role repeats what the plan sets (the role of the instance "
            "says it); remove it",
        ),
        (
            "--kv_transfer_config.kv_connector=X",
            "0: --kv-transfer-config.kv_connector repeats what the plan sets ([kv_transfer] conn",
        ),
        (
            "--kv-transfer-config.kv_connector_extra_config.backends+ UCX",
            "0: --kv-transfer-config.kv_connector_extra_config.backends repeats what the plan sets "
            "by --kv-transfer-config.kv_connector_extra_config ([kv_transfer] backend and ",
        ),
        ("--kv-transfer-config {}", "0: --kv-transfer-config repeats what the plan sets by --kv-"),
        ("--kv-tr.kv_role kv_both", "0: --kv-tr.kv_role repeats what the plan sets by --kv-tran"),
        ("--api-key=none", "0: gives the secret --api-key a value: remove it, the session makes "),
    ],
)
def test_a_flag_that_the_plan_sets_is_refused_with_its_place(
    args: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine" / "system.toml"
    text = f"{LEAST}serve_args = {words(args)}\n"
    assert refused(tmp_path, text).startswith(f"{file}: /model/serve_args/{said}")


def test_arguments_of_a_role_are_looked_at_too(tmp_path: Path) -> None:
    text = f"{LEAST}[model.decode]\nserve_args = {words('--max-num-seqs 64 --port 1')}\n"
    assert ": /model/decode/serve_args/2: --port repeats " in refused(tmp_path, text)


@pytest.mark.parametrize(
    "args",
    [
        "--max-num-seqs 64 --gpu-memory-utilization 0.9",
        "--enforce-eager -O3 --max-model-len -1",
        "--kv-cache-dtype fp8 --kv-events-config {}",
        "--kv-transfer-config.kv_port 14580",
        "--data-parallel-backend ray --decode-context-parallel-size 2 -pp 1",
        "--hf-token --hf-overrides {}",
    ],
)
def test_other_flags_are_the_users(args: str, tmp_path: Path) -> None:
    text = f"{LEAST}serve_args = {words(args)}\n"
    assert loaded(tmp_path, text).model.serve_args == tuple(args.split())


def test_instances_that_move_no_kv_cache_may_have_a_connector_of_their_own(tmp_path: Path) -> None:
    args = words("--kv-transfer-config.kv_connector OffloadingConnector")
    system = loaded(tmp_path, f"{LEAST}[model.aggregated]\nserve_args = {args}\n")
    assert system.serve_args("aggregated")[1] == "OffloadingConnector"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[kv_transfer.aggregated]\nextra_config = { kv_lease_duration = 1 }\n",
            "/kv_transfer/aggregated: is not read: aggregated instances move no KV cache; "
            "remove it",
        ),
        (
            '[kv_transfer]\nextra_config = { backends = "UCX" }\n',
            "/kv_transfer/extra_config/backends: is set by the plan, from [kv_transfer] backend; "
            "remove it",
        ),
        (
            '[kv_transfer.decode]\nextra_config = { backends = "UCX" }\n',
            "/kv_transfer/decode/extra_config/backends: is set by the plan, from [kv_transfer] "
            "backend; remove it",
        ),
    ],
    ids=["a role that moves none", "the backend", "the backend of a role"],
)
def test_what_the_connector_never_reads_is_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine" / "system.toml"
    assert refused(tmp_path, LEAST + text) == f"{file}: {said}"


@pytest.mark.parametrize("topology", ["dp", "route2", "1p3d", "2x1p1d"])
@pytest.mark.parametrize("name", ["p5-efa", "local-cpu"])
def test_every_flag_that_is_planned_is_known_as_the_plans(name: str, topology: str) -> None:
    system = load_system(name, SHIPPED)
    own = set(system.model.serve_args)
    for command in plan_topology(system, Topology.parse(topology)).launch.instances:
        words = command.argv[command.argv.index("serve") :]
        flags = {word for word in words if word.startswith("-")} - own
        role = command.name.partition("[")[0]
        assert flags
        assert {word for word in flags if not list(repeated_serve_args([word], role))} == set()


def vllm_flags() -> dict[str, tuple[str, ...]]:
    """Every option of the installed ``vllm serve``, with all its names; read, not imported."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed")
    found: dict[str, tuple[str, ...]] = {}
    package = Path(spec.origin).parent
    for path in (package / "engine" / "arg_utils.py", *package.rglob("entrypoints/**/cli_args.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                names = [each.value for each in node.args if isinstance(each, ast.Constant)]
                found |= {str(name): tuple(map(str, names)) for name in names}
    return found


def test_every_alias_of_the_installed_vllm_is_known() -> None:
    installed = vllm_flags()
    assert "-tp" in installed
    for written in WRITTEN:
        names = {*installed.get(written.flag, ())}
        assert names <= {written.flag, *written.aliases}
        assert {"--host", "--uds"} >= {*written.aliases} - names


def test_no_other_flag_of_the_installed_vllm_is_taken_for_the_plans() -> None:
    plans = {name for each in ALL_WRITTEN for name in (each.flag.partition(".")[0], *each.aliases)}
    others = [name for name in vllm_flags() if name.startswith("-") and name not in plans]
    assert len(others) > 50
    assert [name for name in others for _ in repeated_serve_args([name])] == []


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("--port=1", "--port"),
        ("--tensor_parallel_size", "--tensor-parallel-size"),
        ("--a_b.c_d+", "--a-b.c_d"),
        ("--port 1", "--port"),
        ("-1", ""),
        ("kv_both", ""),
        ("", ""),
    ],
)
def test_a_word_is_read_as_vllm_reads_it(word: str, name: str) -> None:
    assert flag_name(word) == name


def test_only_roles_that_move_a_kv_cache_have_a_connector_from_the_plan() -> None:
    flag = "--kv-transfer-config.kv_role"
    moves = {name for name in ROLES if list(repeated_serve_args([flag], name))}
    assert moves == {"prefill", "decode"}
