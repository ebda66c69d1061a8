"""Roles of instances: one row says all that the product knows of a role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFILL = "prefill"
DECODE = "decode"
AGGREGATED = "aggregated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What an instance does for a request."""

    name: str
    """Name in records, logs and system files."""
    letter: str | None = None
    """Letter in a topology's name, as the ``p`` of ``1p3d``; None for instances that do all."""
    kv_role: Literal["kv_producer", "kv_consumer", "kv_both"] | None = None
    """Name in vLLM's ``--kv-transfer-config``; None where no KV cache moves. An instance that moves
    one has side-channel ports."""
    router_flag: str | None = None
    """Flag by which the router is told of each instance; None for ``--worker-urls``."""
    needs: tuple[str, ...] = ()
    """Roles without which it cannot serve."""
    warmed_with: tuple[str, ...] = ()
    """Roles whose every instance it is connected to before anything is measured."""

    @property
    def pulls_kv(self) -> bool:
        """Whether it fetches KV caches, and counts the transfers."""
        return self.kv_role in ("kv_consumer", "kv_both")


ROLES: dict[str, Role] = {
    role.name: role
    for role in (
        Role(name=AGGREGATED),
        Role(
            name=PREFILL,
            letter="p",
            kv_role="kv_producer",
            router_flag="--prefill",
            needs=(DECODE,),
        ),
        Role(
            name=DECODE,
            letter="d",
            kv_role="kv_consumer",
            router_flag="--decode",
            needs=(PREFILL,),
            warmed_with=(PREFILL,),
        ),
    )
}
"""Every role by name, in the order in which a topology's name and a group have them."""


def kv_pullers() -> tuple[str, ...]:
    """Return the names of the roles that fetch KV caches."""
    return tuple(name for name, role in ROLES.items() if role.pulls_kv)


def kv_sources() -> tuple[str, ...]:
    """Return the names of the roles that keep KV caches for others to fetch."""
    return tuple(name for name, role in ROLES.items() if role.kv_role == "kv_producer")
