"""Plan transfers without a model: pairs of nodes, transfer shapes, commands of the agents."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Mapping
from collections.abc import Sequence

from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.command import value_of
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.plan.vllm import gpu_env
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.model import KvShape
from pytest_pdserve.values.roles import kv_pullers
from pytest_pdserve.values.roles import kv_sources
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.transfer import Memory
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import TransferBackend
from pytest_pdserve.values.transfer import TransferCase
from pytest_pdserve.values.transfer import TransferShape

_GPU_BLOCK, _CPU_BLOCK = 16, 128
"""Default tokens of a block in vLLM 0.32: on GPUs, and on CPUs with key and value heads."""
_LATENT_CPU_BLOCK = 16
"""The same on CPUs with multi-head latent attention."""


def transfer_cases(system: System) -> tuple[TransferCase, ...]:
    """Return the transfers to measure between nodes of *system*: prompts first, then sizes.

    Without ``prompt_lens`` in the system file, prompts are the sweep's shortest and longest.
    """
    spec, points = system.transfer, system.sweep.points()
    swept = [p.workload.input_len for p in points if isinstance(p.workload.input_len, int)]
    lengths = spec.prompt_lens or tuple(sorted({min(swept), max(swept)} if swept else ()))
    whats = [*((tokens, None) for tokens in lengths), *((None, mib) for mib in spec.sizes_mib)]
    return tuple(
        TransferCase(prompt_tokens=tokens, mib=mib, in_flight=number)
        for tokens, mib in whats
        for number in spec.in_flight
    )


def preflight_case(system: System, *, prompts: bool) -> TransferCase:
    """Return the transfer that a session measures before it starts instances.

    It is the longest prompt, one transfer at a time.

    :param prompts: whether the model's KV cache is known; if not, it is the largest size.
    """
    longest = max(each.prompt_tokens or 0 for each in transfer_cases(system))
    if prompts and longest:
        return TransferCase(prompt_tokens=longest)
    return TransferCase(mib=max(system.transfer.sizes_mib))


def shape_of(
    case: TransferCase, system: System, kv: KvShape | None, *, topology: Topology | None = None
) -> TransferShape:
    """Return the shape of one transfer between two tensor-parallel ranks.

    A prompt has a descriptor for each region of each block, as in vLLM's NIXL connector; a size
    has one descriptor.

    :param kv: KV cache of the model; None if not known.
    :param topology: whose ranks; None for topologies without a ``-tp`` suffix.
    :raises ConfigError: if *case* is a prompt and *kv* is None.
    """
    if case.prompt_tokens is None:
        count, size = 1, (case.mib or 1) * 2**20
    elif kv is None:
        raise ConfigError(
            f"the KV cache of model {system.model.path!r} is unknown on this machine, so the "
            "transfers of its prompts are not known either; name a folder with a config.json in "
            f"[model] path of {system.source}, or choose sizes with --case, e.g. --case 16MiB"
        )
    else:
        block = block_size(system, kv)
        parts = kv.parts(tensor_parallel(system, topology))
        count = math.ceil(case.prompt_tokens / block) * kv.regions
        size = max(block * kv.bytes_per_token // kv.regions // parts, 1)
    return TransferShape(
        id=case.id, descriptors=count, descriptor_bytes=size, in_flight=case.in_flight
    )


def block_size(system: System, kv: KvShape) -> int:
    """Return the tokens of a KV-cache block: from the system file, else vLLM's default."""
    if system.transfer.block_size is not None:
        return system.transfer.block_size
    for role in kv_pullers():
        size = value_of(system.serve_args(role), "--block-size")
        if size is not None and size.isdecimal() and int(size) > 0:
            return int(size)
    if memory_of(system) != "DRAM":
        return _GPU_BLOCK
    return _LATENT_CPU_BLOCK if kv.heads is None else _CPU_BLOCK


def tensor_parallel(system: System, topology: Topology | None = None) -> int:
    """Return the GPUs per engine of *topology*; None is any without a ``-tp`` suffix.

    Where its roles differ, it is the larger number: vLLM's NIXL connector then reads the pieces
    that a rank of the larger engine holds.
    """
    default = system.tensor_parallel or system.cluster.gpus_per_node
    return max(part.tp or default for part in topology.parts) if topology else default


def memory_of(system: System) -> Memory | None:
    """Return NIXL's memory type of KV caches; None if it depends on whether a node has CUDA."""
    if system.kv_transfer.buffer_device == "cpu" or system.cluster.device == "cpu":
        return "DRAM"
    return "VRAM" if system.cluster.device == "gpu" else None


def transfer_backends(system: System) -> tuple[TransferBackend, ...]:
    """Return the NIXL backends to measure."""
    return system.transfer.backends or (system.kv_transfer.backend,)


def all_pairs(nodes: Sequence[str]) -> tuple[Pair, ...]:
    """Return all pairs of *nodes*, in both directions."""
    return tuple(
        Pair(reader=reader, source=source) for reader, source in itertools.permutations(nodes, 2)
    )


def named_pairs(texts: Sequence[str], nodes: Sequence[str]) -> tuple[Pair, ...]:
    """Return the pairs named by ``--pair A,B``, each in both directions.

    :param texts: two nodes each, by name or by position from 0.
    :raises ConfigError: if a text does not name two nodes of *nodes*.
    """
    pairs: dict[Pair, None] = {}
    for text in texts:
        two = tuple(_node(word.strip(), nodes) for word in text.split(","))
        if len(two) != 2 or None in two or two[0] == two[1]:
            raise ConfigError(
                f"--pair {text!r:.80}: expected two of the nodes {', '.join(nodes)}, by name or by "
                "position from 0, e.g. --pair 0,1"
            )
        pairs |= dict.fromkeys(all_pairs([name for name in two if name is not None]))
    return tuple(pairs)


def check_positions(texts: Sequence[str], system: System) -> None:
    """Raise if a text of ``--pair A,B`` cannot name two nodes of *system*.

    Names are checked once the nodes are known, by :func:`named_pairs`.

    :raises ConfigError: if it has not two parts, or a position is too large.
    """
    count = system.cluster.held_nodes
    for text in texts:
        words = [word.strip() for word in text.split(",")]
        large = [word for word in words if word.isdecimal() and int(word[:9]) >= count]
        if len(words) != 2 or words[0] == words[1] or large:
            raise ConfigError(
                f"--pair {text!r:.80}: expected two of the {count} nodes of system "
                f"{system.name!r}, by name or by position from 0 to {count - 1}, e.g. --pair 0,1"
            )


def _node(word: str, nodes: Sequence[str]) -> str | None:
    if word in nodes:
        return word
    return nodes[int(word)] if word.isdecimal() and int(word[:9]) < len(nodes) else None


def topology_pairs(placement: Placement) -> tuple[Pair, ...]:
    """Return the pairs of nodes in a placed topology: each decode reads from each prefill."""
    return tuple(
        dict.fromkeys(
            Pair(reader=reader.node, source=source.node)
            for reader in (i for role in kv_pullers() for i in placement.of(role))
            for source in (i for role in kv_sources() for i in placement.of(role))
            if reader.node != source.node
        )
    )


def pair_rounds(pairs: Sequence[Pair], *, one_machine: bool) -> tuple[tuple[Pair, ...], ...]:
    """Return *pairs* divided into rounds; the pairs of a round are measured at once.

    No node is in two pairs of a round.

    :param one_machine: whether all nodes share cores and memory, so that each round has one pair.
    """
    rounds: list[list[Pair]] = []
    for pair in pairs:
        for each in rounds:
            busy = {node for other in each for node in (other.reader, other.source)}
            if not one_machine and busy.isdisjoint((pair.reader, pair.source)):
                each.append(pair)
                break
        else:
            rounds.append([pair])
    return tuple(map(tuple, rounds))


def agent_command(
    system: System, host: Host, *, backend: TransferBackend, script: str, folder: str
) -> Command:
    """Return the command of the NIXL agent of one node, in the environment of its instances.

    :param script: path of ``transfer/agent.py`` on the node.
    :param folder: folder of its orders.
    """
    contained = system.container.contained
    python = "python3" if contained else sys.executable
    program = () if contained else ("--program", system.programs.vllm)
    env = transfer_env(system, host)
    return Command(
        name=f"agent[{host.name}]",
        node=host.name,
        argv=(python, script, *program, folder),
        env=tuple(env.items()),
        passed=system.pass_env,
    )


def transfer_env(system: System, host: Host) -> dict[str, str]:
    """Return the environment of NIXL on a node, the same as in its instances."""
    return {**gpu_env(host), **system.env, **dict(host.transfer_env), **system.pd_env}


def provider_asked(system: System) -> str:
    """Return the libfabric provider set by the system file; default: EFA's."""
    return {**system.env, **system.pd_env}.get("FI_PROVIDER") or "efa"


def provider_of(backend: TransferBackend, env: Mapping[str, str]) -> str:
    """Return the variable for a backend's transport as ``NAME=value``; empty if not set."""
    name = "UCX_TLS" if backend == "UCX" else "FI_PROVIDER"
    return f"{name}={env[name]}" if name in env else ""


def provider_in(system: System, role: str, environ: Mapping[str, str] | None = None) -> str:
    """Return :func:`provider_of` in the environment of instances of *role*.

    :param environ: environment that they inherit; None for nothing.
    """
    own = {**system.env, **system.pd_env, **system.role_env(role)}
    return provider_of(system.kv_transfer.backend, {**(environ or {}), **own})


def running_cases(system: System) -> tuple[TransferCase, ...]:
    """Return the prompts with which pairs of a running deployment are measured: short and long.

    They are the shortest and the longest of :func:`transfer_cases`; for a single length, also half.

    :raises ConfigError: if the system file gives no length.
    """
    lengths = {each.prompt_tokens for each in transfer_cases(system) if each.prompt_tokens}
    if not lengths:
        raise ConfigError(
            f"[transfer] of {system.source} sets a minimum speed, but neither its prompt_lens nor "
            "[sweep] gives a prompt length to measure it with; set prompt_lens"
        )
    longest, shortest = max(lengths), min(lengths)
    short = shortest if shortest < longest else max(longest // 2, 1)
    return tuple(TransferCase(prompt_tokens=tokens) for tokens in sorted({short, longest}))


def repeat_command(system: System, pair: Pair, backend: TransferBackend) -> str:
    """Return the command that measures only *pair* again, in both directions."""
    return (
        f"pdserve transfer --system {system.name} --backends {backend} "
        f"--pair {pair.reader},{pair.source}"
    )
