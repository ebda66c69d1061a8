"""The table of instance roles: one row per role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFILL = "prefill"
DECODE = "decode"
AGGREGATED = "aggregated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role of instances."""

    name: str
    """Name in records, logs and system files."""
    letter: str | None = None
    """Letter in a topology's name, e.g. ``p`` in ``1p3d``; None for aggregated instances."""
    kv_role: Literal["kv_producer", "kv_consumer", "kv_both"] | None = None
    """Value in vLLM's ``--kv-transfer-config``; None if it moves no KV cache. Instances with one
    have side-channel ports."""
    router_flag: str | None = None
    """Flag of the router for the URL of each instance; None for ``--worker-urls``."""
    needs: tuple[str, ...] = ()
    """Roles that a group must also have."""
    warmed_with: tuple[str, ...] = ()
    """Roles with whose instances it is connected by a warm-up request."""

    @property
    def pulls_kv(self) -> bool:
        """True if it fetches KV caches and counts the transfers."""
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
"""All roles by name, in their order in a topology's name and in a group."""


def kv_pullers() -> tuple[str, ...]:
    """Return the names of the roles that fetch KV caches."""
    return tuple(name for name, role in ROLES.items() if role.pulls_kv)


def kv_sources() -> tuple[str, ...]:
    """Return the names of the roles from which KV caches are fetched."""
    return tuple(name for name, role in ROLES.items() if role.kv_role == "kv_producer")
