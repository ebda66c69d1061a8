"""An endpoint whose servers run already: the client asks it from this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Annotated

from msgspec import Meta

from pytest_pdserve.backends.allocation import Endpoint
from pytest_pdserve.backends.backend import Backend
from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.examining.software import program_row
from pytest_pdserve.backends.local.allocation import LocalAllocation
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.prerequisites import unchecked
from pytest_pdserve.values.system import System

API_KEY_VARIABLE = "PDSERVE_API_KEY"
"""Where the endpoint's key is read from; no file and no argument ever holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedSpec:
    """Where the endpoint is."""

    base_url: Annotated[str, Meta(pattern=r"^https?://\S+$")] | None = None
    """Its base URL; None takes ``--pdserve-base-url``."""


class AttachedAllocation(LocalAllocation):
    """One slot of this machine for the client of an endpoint."""

    kind = "attached"

    def __init__(self, system: System, request: Request, url: str) -> None:
        one = replace(system, cluster=replace(system.cluster, nodes=1))
        super().__init__(one, folder=request.folder, progress=request.progress)
        self.endpoint: Endpoint = Endpoint(url=url, api_key=os.environ.get(API_KEY_VARIABLE, ""))

    def find_versions(self) -> dict[str, str]:
        """Nothing: what is installed here does not serve."""
        return {}

    def describe_nodes(self) -> dict[str, str]:
        """The endpoint."""
        return {"endpoint": self.endpoint.url}


class AttachedBackend(Backend):
    """Servers that run already."""

    name = "attached"
    tables: Mapping[str, type] = {"attached": AttachedSpec}
    unread = ("container",)
    starts_servers = False

    def check(self, system: System) -> None:
        """Refuse a system that names no endpoint."""
        url_of(system)

    def examine(self, system: System) -> Sequence[Prerequisite]:
        """Return what the client on this machine needs; the endpoint is asked nothing."""
        url = system.table("attached", AttachedSpec).base_url
        advice = "" if url else "Give --pdserve-base-url to pytest, or write [attached] base_url."
        return [
            program_row("vLLM", system.programs.vllm, key="vllm"),
            unchecked("endpoint", found=url or "none is named", needed="its URL", advice=advice),
        ]

    @contextlib.contextmanager
    def acquire(self, system: System, request: Request) -> Iterator[AttachedAllocation]:
        """Hold what the client needs of this machine."""
        allocation = AttachedAllocation(system, request, url_of(system))
        try:
            yield allocation
        finally:
            allocation.release()

    def describe_hardware(self, system: System) -> Mapping[str, str]:
        """Return the endpoint: what is behind it is not known."""
        return {"endpoint": url_of(system)}


def url_of(system: System) -> str:
    """Return the endpoint of *system*.

    :raises ConfigError: if it names none.
    """
    url = system.table("attached", AttachedSpec).base_url
    if url is None:
        raise ConfigError(
            f"system {system.name!r} is of kind 'attached' and names no endpoint; give "
            "--pdserve-base-url, or [attached] base_url in the system file"
        )
    return url


def attached_to(system: System, url: str) -> System:
    """Return *system* with the servers at *url* in place of its own."""
    return replace(
        system,
        cluster=replace(system.cluster, kind="attached"),
        container=ContainerSpec(),  # of the servers; the client runs on this machine as it stands
        simulated=False,
        tables={"attached": AttachedSpec(base_url=url)},
    )
