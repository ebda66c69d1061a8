"""Which address servers listen on, and where clients find them."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_pdserve.plan.host import Host
from pytest_pdserve.values.system import System

ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound
"""What ``[cluster] bind_host`` says for every address of a node."""


def listening_address(host: Host, system: System) -> str:
    """Return what servers on *host* listen on: its own address, unless the system says another."""
    return system.cluster.bind_host or host.address


def client_addresses(hosts: Mapping[str, Host], system: System) -> dict[str, str]:
    """Return the address of each host, by name, at which clients find its servers."""
    bound = {name: listening_address(host, system) for name, host in hosts.items()}
    return {
        name: hosts[name].address if address in ALL_ADDRESSES else address
        for name, address in bound.items()
    }
