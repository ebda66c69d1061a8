"""Commands of servers: the article's five experiments on its kind of cluster, and variations.

``p5-efa`` is the shipped system file. Every word of every argument list and every variable counts.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pdserve.backends.local.allocation import slot_cpus
from pytest_pdserve.backends.local.allocation import slots as slots_of
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.placement import place
from pytest_pdserve.plan.ports import assign_ports
from pytest_pdserve.plan.ports import in_memory_claim
from pytest_pdserve.plan.router import router_command
from pytest_pdserve.plan.vllm import instance_commands
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.system import RouterSpec
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

MODEL = "/fsx/models/deepseek-ai/DeepSeek-V2-Lite"
SERVE = f"vllm serve {MODEL} --gpu-memory-utilization 0.9"
IMAGE = (
    ("FI_PROVIDER", "efa"),
    ("FI_EFA_FORK_SAFE", "1"),
    ("FI_EFA_USE_DEVICE_RDMA", "1"),
    ("FI_LOG_LEVEL", "warn"),
    ("UCX_TLS", "^cuda_ipc"),
    ("UCX_NET_DEVICES", "all"),
    ("VLLM_USE_DEEP_GEMM", "1"),
    ("VLLM_ENGINE_READY_TIMEOUT_S", "3600"),
)


def planned(topology: str, system: System) -> tuple[tuple[Command, ...], Command | None]:
    """The instances' commands and the router's, with no port taken."""
    hosts = {host.name: host for host in backend_of(system).hosts(system)}
    placement = place(
        Topology.parse(topology),
        tuple(hosts),
        system.cluster.gpus_per_node,
        default_tp=system.tensor_parallel,
    )
    claim = in_memory_claim(one_machine=system.cluster.shared_host)
    ports = assign_ports(placement, system.ports, claim)
    return (
        instance_commands(placement, system, hosts=hosts, ports=ports),
        router_command(placement, system, hosts=hosts, ports=ports),
    )


def listed(commands: tuple[Command, ...]) -> list[str]:
    return [f"{c.name} on {c.node}: {' '.join(c.argv)}" for c in commands]


def network(node: int) -> tuple[tuple[str, str], ...]:
    return (
        ("NCCL_SOCKET_IFNAME", f"{{node{node}.interface}}"),
        ("GLOO_SOCKET_IFNAME", f"{{node{node}.interface}}"),
        ("VLLM_HOST_IP", f"{{node{node}.address}}"),
    )


def side_channel(node: int) -> tuple[tuple[str, str], ...]:
    return (
        ("VLLM_NIXL_SIDE_CHANNEL_HOST", f"{{node{node}.address}}"),
        ("VLLM_NIXL_SIDE_CHANNEL_PORT", "5600"),
    )


def head(node: int, port: int, tail: str = "") -> str:
    return f"{SERVE} --host {{node{node}.address}} --port {port} --tensor-parallel-size 8{tail}"


def headless(rank: int, tail: str) -> str:
    return f"{SERVE} --headless --data-parallel-start-rank {rank} --tensor-parallel-size 8{tail}"


def group(size: int, node: int, rpc: int) -> str:
    return (
        f" --data-parallel-size {size} --data-parallel-size-local 1"
        f" --data-parallel-address {{node{node}.address}} --data-parallel-rpc-port {rpc}"
    )


def transfer(kv_role: str, node: int) -> str:
    return head(
        node,
        8000 + node,
        " --kv-transfer-config.kv_connector NixlConnector"
        f" --kv-transfer-config.kv_role {kv_role}"
        " --kv-transfer-config.kv_load_failure_policy fail"
        " --kv-transfer-config.kv_connector_extra_config.backends+ LIBFABRIC",
    )


def urls(option: str, *ports: int, first: int = 0) -> str:
    return " ".join(
        f"{option}http://{{node{node}.address}}:{port}" for node, port in enumerate(ports, first)
    )


def router(policy: str, port: int, engines: int = 1) -> str:
    return (
        f"vllm-router --policy {policy} --intra-node-data-parallel-size {engines}"
        f" --host {{node0.address}} --port {port}"
        f" --prometheus-host {{node0.address}} --prometheus-port {port + 1}"
    )


DP4, FIRST, SECOND = group(4, 0, 13345), group(2, 0, 13345), group(2, 2, 13346)
INSTANCES = {
    "dp": [
        f"aggregated[0] on node0: {head(0, 8000, DP4)}",
        f"aggregated[0]/rank1 on node1: {headless(1, DP4)}",
        f"aggregated[0]/rank2 on node2: {headless(2, DP4)}",
        f"aggregated[0]/rank3 on node3: {headless(3, DP4)}",
    ],
    "route2": [
        f"aggregated[0] on node0: {head(0, 8000, FIRST)}",
        f"aggregated[0]/rank1 on node1: {headless(1, FIRST)}",
        f"aggregated[1] on node2: {head(2, 8001, SECOND)}",
        f"aggregated[1]/rank1 on node3: {headless(1, SECOND)}",
    ],
    "route4": [
        f"aggregated[0] on node0: {head(0, 8000)}",
        f"aggregated[1] on node1: {head(1, 8001)}",
        f"aggregated[2] on node2: {head(2, 8002)}",
        f"aggregated[3] on node3: {head(3, 8003)}",
    ],
    "1p3d": [
        f"prefill[0] on node0: {transfer('kv_producer', 0)}",
        f"decode[0] on node1: {transfer('kv_consumer', 1)}",
        f"decode[1] on node2: {transfer('kv_consumer', 2)}",
        f"decode[2] on node3: {transfer('kv_consumer', 3)}",
    ],
    "2p2d": [
        f"prefill[0] on node0: {transfer('kv_producer', 0)}",
        f"prefill[1] on node1: {transfer('kv_producer', 1)}",
        f"decode[0] on node2: {transfer('kv_consumer', 2)}",
        f"decode[1] on node3: {transfer('kv_consumer', 3)}",
    ],
}
PD = "consistent_hash --vllm-pd-disaggregation"
ROUTERS = {
    "dp": None,
    "route2": router(
        "round_robin --worker-urls http://{node0.address}:8000 http://{node2.address}:8001", 8002
    ),
    "route4": router(f"round_robin --worker-urls {urls('', 8000, 8001, 8002, 8003)}", 8004),
    "1p3d": router(
        f"{PD} {urls('--prefill ', 8000)} {urls('--decode ', 8001, 8002, 8003, first=1)}", 8001
    ),
    "2p2d": router(
        f"{PD} {urls('--prefill ', 8000, 8001)} {urls('--decode ', 8002, 8003, first=2)}", 8001
    ),
}
FIVE = pytest.mark.parametrize("topology", list(INSTANCES))


@FIVE
def test_instances_of_the_articles_experiments(topology: str, p5_efa: System) -> None:
    instances, _ = planned(topology, p5_efa)
    assert listed(instances) == INSTANCES[topology]


@FIVE
def test_environment_of_the_articles_experiments(topology: str, p5_efa: System) -> None:
    instances, front = planned(topology, p5_efa)
    moves = Topology.parse(topology).disaggregated
    assert [c.env for c in instances] == [
        network(node) + IMAGE + (side_channel(node) if moves else ()) for node in range(4)
    ]
    assert {c.secrets for c in instances} == {("VLLM_API_KEY",)}
    assert front is None or (front.env, front.secrets) == ((), ("OPENAI_API_KEY",))


@FIVE
def test_routers_of_the_articles_experiments(topology: str, p5_efa: System) -> None:
    _, front = planned(topology, p5_efa)
    assert (front and " ".join(front.argv)) == ROUTERS[topology]
    assert front is None or front.node == "node0"


def test_half_a_nodes_gpus_per_engine_makes_two_engines_a_node(p5_efa: System) -> None:
    instances, _ = planned("dp-tp4", p5_efa)
    parallel = (
        "--tensor-parallel-size 4 --data-parallel-size 8 --data-parallel-size-local 2"
        " --data-parallel-address {node0.address} --data-parallel-rpc-port 13345"
    )
    assert [" ".join(c.argv).removeprefix(f"{SERVE} ") for c in instances] == [
        f"--host {{node0.address}} --port 8000 {parallel}",
        f"--headless --data-parallel-start-rank 2 {parallel}",
        f"--headless --data-parallel-start-rank 4 {parallel}",
        f"--headless --data-parallel-start-rank 6 {parallel}",
    ]


def test_disaggregated_instances_run_the_engines_of_their_node(p5_efa: System) -> None:
    instances, front = planned("2p2d-tp4", p5_efa)
    assert " ".join(instances[2].argv) == (
        f"{SERVE} --host {{node2.address}} --port 8002"
        " --tensor-parallel-size 4 --data-parallel-size 2"
        " --kv-transfer-config.kv_connector NixlConnector"
        " --kv-transfer-config.kv_role kv_consumer"
        " --kv-transfer-config.kv_load_failure_policy fail"
        " --kv-transfer-config.kv_connector_extra_config.backends+ LIBFABRIC"
    )
    assert front is not None
    assert " ".join(front.argv) == router(
        f"{PD} {urls('--prefill ', 8000, 8001)} {urls('--decode ', 8002, 8003, first=2)}",
        8001,
        engines=2,
    )


def test_the_router_cannot_front_engines_of_two_numbers(p5_efa: System) -> None:
    with pytest.raises(PlacementError) as refused:
        planned("1p3d-tp4x8", p5_efa)
    assert str(refused.value) == (
        "topology '1p3d-tp4x8' has 1 and 2 engines per node, but vllm-router takes one "
        "--intra-node-data-parallel-size for all"
    )


LOCAL_SERVE = (
    "vllm serve tiny --enforce-eager --dtype float32 --max-model-len 1024"
    " --num-gpu-blocks-override 96 --no-enable-log-requests"
)
LOCAL_ENV = (
    ("NCCL_SOCKET_IFNAME", "lo"),
    ("GLOO_SOCKET_IFNAME", "lo"),
    ("VLLM_HOST_IP", "127.0.0.1"),
    ("HF_HUB_OFFLINE", "1"),
    ("VLLM_NO_USAGE_STATS", "1"),
    ("VLLM_CPU_KVCACHE_SPACE", "1"),
    ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    ("OMP_NUM_THREADS", "1"),
)


@pytest.fixture
def slots(local_cpu: System) -> System:
    """``local-cpu`` as it stands; the arguments of its instances pinned, as they may be tuned."""
    serve_args = tuple(LOCAL_SERVE.split()[3:])
    return replace(local_cpu, model=replace(local_cpu.model, serve_args=serve_args))


def test_data_parallel_on_one_machine(slots: System) -> None:
    instances, front = planned("dp", slots)
    tail = (
        "--tensor-parallel-size 1 --data-parallel-size 4 --data-parallel-size-local 1"
        " --data-parallel-address 127.0.0.1 --data-parallel-rpc-port 25000"
    )
    ranks = [
        f"aggregated[0]/rank{n} on local{n}: {LOCAL_SERVE} --headless"
        f" --data-parallel-start-rank {n} {tail}"
        for n in (1, 2, 3)
    ]
    assert front is None
    assert listed(instances) == [
        f"aggregated[0] on local0: {LOCAL_SERVE} --host 127.0.0.1 --port 21000 {tail}",
        *ranks,
    ]
    assert {c.env for c in instances} == {LOCAL_ENV}


def test_prefill_and_decode_on_one_machine(slots: System) -> None:
    instances, front = planned("1p3d", slots)
    kv = (
        "--kv-transfer-config.kv_load_failure_policy fail"
        " --kv-transfer-config.kv_connector_extra_config.backends+ UCX"
        " --kv-transfer-config.kv_buffer_device cpu"
    )
    roles = ("prefill[0]", "producer"), ("decode[0]", "consumer"), ("decode[1]", "consumer")
    assert listed(instances) == [
        f"{name} on local{n}: {LOCAL_SERVE} --host 127.0.0.1 --port {21000 + n}"
        " --tensor-parallel-size 1 --kv-transfer-config.kv_connector NixlConnector"
        f" --kv-transfer-config.kv_role kv_{role} {kv}"
        for n, (name, role) in enumerate((*roles, ("decode[2]", "consumer")))
    ]
    assert [c.env for c in instances] == [
        (
            *LOCAL_ENV,
            ("VLLM_NIXL_SIDE_CHANNEL_HOST", "127.0.0.1"),
            ("VLLM_NIXL_SIDE_CHANNEL_PORT", str(23000 + n)),
            ("UCX_TLS", "tcp"),
            ("PDSERVE_NIXL_PROGRESS_DELAY_US", "100"),
        )
        for n in range(4)
    ]
    assert front is not None
    assert " ".join(front.argv) == (
        f"vllm-router --policy {PD} --prefill http://127.0.0.1:21000"
        " --decode http://127.0.0.1:21001 --decode http://127.0.0.1:21002"
        " --decode http://127.0.0.1:21003 --intra-node-data-parallel-size 1"
        " --host 127.0.0.1 --port 21004 --prometheus-host 127.0.0.1 --prometheus-port 21005"
    )


def test_a_system_files_own_words_come_last(p5_efa: System) -> None:
    system = replace(p5_efa, router=RouterSpec(args=("--log-level", "warn")))
    _, front = planned("1p3d", system)
    assert front is not None
    assert front.argv[-2:] == ("--log-level", "warn")


def test_a_command_is_shown_as_a_person_would_type_it() -> None:
    command = Command(
        name="decode[1]/rank2",
        node="node2",
        argv=("vllm", "serve", "my model", "--port", "8000", "--headless"),
        env=(("UCX_TLS", "^cuda_ipc"),),
        secrets=("VLLM_API_KEY",),
    )
    assert command.render() == (
        "UCX_TLS='^cuda_ipc' \\\n"
        "    VLLM_API_KEY=<session API key> \\\n"
        "    vllm serve 'my model' \\\n"
        "    --port 8000 \\\n"
        "    --headless"
    )
    assert command.log_name == "decode-1-rank2.log"


@pytest.mark.parametrize(
    ("cores", "slots", "shares"),
    [
        (9, 4, ((1, 2), (3, 4), (5, 6), (7, 8))),
        (8, 4, ((), (), (), ())),
        (16, 2, ((1, 2, 3, 4, 5, 6, 7), (8, 9, 10, 11, 12, 13, 14))),
        (0, 4, ((), (), (), ())),
        (8, 0, ()),
    ],
)
def test_cores_are_shared_out_and_the_first_is_left_to_the_client(
    cores: int, slots: int, shares: tuple[tuple[int, ...], ...]
) -> None:
    assert slot_cpus(cores, slots) == shares


def test_slots_of_this_machine_are_known_before_they_are_had(local_cpu: System) -> None:
    hosts = slots_of(local_cpu, cores=9)
    assert [(h.name, h.address, h.interface, h.cpus) for h in hosts[:2]] == [
        ("local0", "127.0.0.1", "lo", (1, 2)),
        ("local1", "127.0.0.1", "lo", (3, 4)),
    ]
