"""Addresses on which servers listen, and at which clients reach them."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_pdserve.plan.host import Host
from pytest_pdserve.values.system import System

ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound
"""Values of ``[cluster] bind_host`` for all addresses of a node."""


def listening_address(host: Host, system: System) -> str:
    """Return the address on which servers on *host* listen: ``bind_host``, else the host's own."""
    return system.cluster.bind_host or host.address


def client_addresses(hosts: Mapping[str, Host], system: System) -> dict[str, str]:
    """Return, by host name, the address at which clients reach its servers."""
    bound = {name: listening_address(host, system) for name, host in hosts.items()}
    return {
        name: hosts[name].address if address in ALL_ADDRESSES else address
        for name, address in bound.items()
    }
