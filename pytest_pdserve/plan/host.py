"""A node, as far as planning needs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A node of an allocation."""

    name: str
    """Name in the allocation."""
    address: str
    """IPv4 address (or name) at which other nodes reach it."""
    interface: str
    """Network interface of that address, for NCCL and Gloo."""
    cpus: tuple[int, ...] = ()
    """Cores to which its processes are pinned; empty for no pinning."""
    devices: tuple[str, ...] = ()
    """Its device files for containers, e.g. ``/dev/infiniband/uverbs0``."""
    gpus: tuple[str, ...] = ()
    """Value of ``CUDA_VISIBLE_DEVICES`` for its instances; empty does not set it."""
    transfer_env: tuple[tuple[str, str], ...] = ()
    """Environment of instances that move KV caches: paths of NIXL's and libfabric's libraries;
    empty does not set them."""
    compile_cache: str = ""
    """Folder for compiled kernels; empty for vLLM's default."""
