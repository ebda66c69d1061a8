"""Build the ``vllm serve`` command of every instance."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pytest_pdserve.plan.addresses import listening_address
from pytest_pdserve.plan.capture import capture_args
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.placement import Instance
from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.plan.ports import InstancePorts
from pytest_pdserve.plan.ports import Ports
from pytest_pdserve.values.system import System

API_KEY_VARIABLE = "VLLM_API_KEY"
"""Variable of the API key; as an argument, ``ps`` would show it."""
GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""Variable of the GPUs that a process uses."""

REVISION = "model"
"""Name of the model in a revision's folder, so that instances of two revisions have the same
model path, which vLLM compares."""


def instance_commands(
    placement: Placement, system: System, *, hosts: Mapping[str, Host], ports: Ports
) -> tuple[Command, ...]:
    """Return the commands of all instances, heads before their headless ranks."""
    heads = {i.group: i for i in placement.endpoints}
    return tuple(
        _instance_command(
            instance,
            system,
            host=hosts[instance.node],
            head=hosts[heads[instance.group].node],
            ports=ports.instances[instance.name],
        )
        for instance in placement.instances
    )


def _instance_command(
    instance: Instance, system: System, *, host: Host, head: Host, ports: InstancePorts
) -> Command:
    argv = _serve(instance.role.name, system)
    argv += system.serve_args(instance.role.name)
    argv += capture_args(system, instance.role.name)
    if instance.headless:
        argv += ["--headless", "--data-parallel-start-rank", str(instance.dp_start)]
    else:
        argv += ["--host", listening_address(host, system), "--port", str(ports.http)]
    argv += ["--tensor-parallel-size", str(instance.tp)]
    argv += _data_parallel(instance, head, ports)
    argv += _kv_transfer(instance, system)
    env = {
        "NCCL_SOCKET_IFNAME": host.interface,
        "GLOO_SOCKET_IFNAME": host.interface,
        "VLLM_HOST_IP": host.address,
        **gpu_env(host),
        **system.env,
    }
    if ports.side_channel is not None:
        env |= {
            "VLLM_NIXL_SIDE_CHANNEL_HOST": host.address,
            "VLLM_NIXL_SIDE_CHANNEL_PORT": str(ports.side_channel),
            **dict(host.transfer_env),
            **system.pd_env,
        }
    env |= system.role_env(instance.role.name)
    return Command(
        name=instance.name,
        role=instance.role.name,
        node=instance.node,
        argv=tuple(argv),
        env=tuple(env.items()),
        secrets=(API_KEY_VARIABLE,),
        passed=system.pass_env,
        ports=_listened_on(instance, ports),
    )


def _serve(role: str, system: System) -> list[str]:
    """Return program, ``serve`` and model; a revision is started in its folder."""
    program, revision = system.program(role), system.revision(role)
    if revision is None:
        return [program, "serve", system.model.path]
    named = ("--served-model-name", system.model.path)
    return ["env", f"--chdir={revision}", program, "serve", f"./{REVISION}", *named]


def gpu_env(host: Host) -> dict[str, str]:
    """Return the environment for the GPUs and the compile cache of *host*."""
    env: dict[str, str] = {}
    if host.gpus:
        # By default, CUDA orders GPUs by speed, and NVML by PCI bus.
        env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", GPUS_VARIABLE: ",".join(host.gpus)}
    if host.compile_cache:
        env["VLLM_CACHE_ROOT"] = f"{host.compile_cache}/vllm"
        env["TRITON_CACHE_DIR"] = f"{host.compile_cache}/triton"
    return env


def _listened_on(instance: Instance, ports: InstancePorts) -> tuple[int, ...]:
    """Return all ports of an instance; none for a headless rank, whose head listens."""
    listened = [ports.http] if ports.http is not None else []
    if ports.rpc is not None and not instance.headless:
        listened.append(ports.rpc)
    if ports.side_channel is not None:
        width = instance.dp_local * instance.tp
        listened += range(ports.side_channel, ports.side_channel + width)
    return tuple(listened)


def _data_parallel(instance: Instance, head: Host, ports: InstancePorts) -> list[str]:
    if instance.dp_size == 1:
        return []
    argv = ["--data-parallel-size", str(instance.dp_size)]
    if instance.spans_nodes:
        argv += [
            *("--data-parallel-size-local", str(instance.dp_local)),
            *("--data-parallel-address", head.address),
            *("--data-parallel-rpc-port", str(ports.rpc)),
        ]
    return argv


def _kv_transfer(instance: Instance, system: System) -> list[str]:
    if instance.role.kv_role is None:
        return []
    transfer = system.kv_transfer
    option = "--kv-transfer-config"
    argv = [
        *(f"{option}.kv_connector", transfer.connector),
        *(f"{option}.kv_role", instance.role.kv_role),
        *(f"{option}.kv_load_failure_policy", transfer.load_failure_policy),
        *(f"{option}.kv_connector_extra_config.backends+", transfer.backend),
    ]
    if transfer.buffer_device is not None:
        argv += [f"{option}.kv_buffer_device", transfer.buffer_device]
    for key, value in system.kv_extra_config(instance.role.name).items():
        text = value if isinstance(value, str) else json.dumps(value)
        argv += [f"{option}.kv_connector_extra_config.{key}", text]
    return argv
