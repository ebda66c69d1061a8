"""What planning must know of a node."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A node as its allocation sees it."""

    name: str
    """Name by which the allocation knows it."""
    address: str
    """IPv4 address (or name) that other nodes reach it by."""
    interface: str
    """Network interface of that address, for NCCL and Gloo."""
    cpus: tuple[int, ...] = ()
    """Cores its processes are pinned to; empty is no pinning."""
    devices: tuple[str, ...] = ()
    """Device files that a container needs and this node has, e.g. ``/dev/infiniband/uverbs0``."""
    gpus: tuple[str, ...] = ()
    """GPUs that its instances see, as ``CUDA_VISIBLE_DEVICES`` names them; empty leaves it to
    vLLM."""
    transfer_env: tuple[tuple[str, str], ...] = ()
    """Environment of instances that move KV caches: where this node has the libraries for it;
    empty leaves it to the environment."""
    compile_cache: str = ""
    """Folder in which compiled kernels are kept between starts; empty leaves it to vLLM."""
