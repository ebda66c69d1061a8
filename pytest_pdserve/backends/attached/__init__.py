"""The backend ``attached``: an endpoint whose servers already run; only the client starts."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from importlib.util import find_spec
from typing import Annotated

from msgspec import Meta

from pytest_pdserve.backends.allocation import Endpoint
from pytest_pdserve.backends.attached.naming import parse_base_url
from pytest_pdserve.backends.attached.naming import parse_instances
from pytest_pdserve.backends.attached.naming import parse_model
from pytest_pdserve.backends.attached.naming import read_api_key
from pytest_pdserve.backends.backend import Backend
from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.examining.software import program_row
from pytest_pdserve.backends.hosts.facts import program_path
from pytest_pdserve.backends.local.allocation import LocalAllocation
from pytest_pdserve.backends.programs import check_program
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.fabric import FabricState
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.prerequisites import required
from pytest_pdserve.values.prerequisites import unchecked
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.system import ClientKind
from pytest_pdserve.values.system import System
from pytest_pdserve.values.system import Text
from pytest_pdserve.values.topology import Topology

BASE_URL = "--pdserve-base-url"
MODEL = "--pdserve-model"
INSTANCE_URL = "--pdserve-instance-url"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedSpec:
    """The table ``[attached]``: where the endpoint is."""

    base_url: Annotated[str, Meta(pattern=r"^https?://\S+$")] | None = None
    """None uses ``--pdserve-base-url``."""
    model: Text | None = None
    """Name of the model; None uses ``--pdserve-model``, or reads it from the endpoint."""
    instance_urls: tuple[Text, ...] = ()
    """Instances behind the endpoint whose counters can be read, each as ``role=URL``; or
    ``--pdserve-instance-url``."""

    def endpoint(self, api_key: str) -> Endpoint | None:
        """Return the endpoint; None if there is no base URL.

        :raises ConfigError: if a URL or a name is invalid, with a JSON pointer.
        """
        if self.base_url is None:
            return None
        return Endpoint(
            url=parse_base_url(self.base_url, "/attached/base_url:"),
            api_key=api_key,
            model=None if self.model is None else parse_model(self.model, "/attached/model:"),
            instances=parse_instances(self.instance_urls, "/attached/instance_urls:"),
        )


class AttachedAllocation(LocalAllocation):
    """One slot of this machine, for the client of an endpoint."""

    kind = "attached"

    def __init__(self, system: System, request: Request, endpoint: Endpoint) -> None:
        one = replace(system, cluster=replace(system.cluster, nodes=1))
        super().__init__(one, folder=request.folder, progress=request.progress)
        self.endpoint: Endpoint = endpoint

    def find_versions(self) -> dict[str, str]:
        """Return nothing: the packages of this machine do not serve."""
        return {}

    def read_fabric(self) -> Sequence[FabricState]:
        """Return nothing: the interfaces of this machine do not serve."""
        return ()

    def describe_nodes(self) -> dict[str, str]:
        """Return the URL of the endpoint."""
        return {"endpoint": self.endpoint.url}


class AttachedBackend(Backend):
    """Measures servers that already run."""

    name = "attached"
    tables: Mapping[str, type] = {"attached": AttachedSpec}
    unread = (
        *("container", "ports", "router", "kv_transfer", "pd_env", "programs.router"),
        *("transfer", "cluster.spare_nodes"),
        *("cluster.bind_host", "cluster.memory_per_instance_gib", "limits.ready_s"),
    )
    starts_servers = False

    def check_file(self, system: System) -> None:
        """Raise if a URL or a name is invalid."""
        system.table("attached", AttachedSpec).endpoint("")

    def check(self, system: System) -> None:
        """Raise if the system names no endpoint, or the API key is invalid in an HTTP header."""
        endpoint_of(system)

    def client_kind(self, system: System) -> ClientKind:
        """Return the client of the system file; else ``vllm`` if installed, or ``precise``."""
        if system.bench.client is not None:
            return system.bench.client
        installed = system.bench.python or program_path(system.programs.vllm)
        return "vllm" if installed else "precise"

    def check_client(self, system: System) -> None:
        """Raise if the system file requires vLLM's client and vLLM is not installed."""
        if system.bench.client in (None, "precise") or system.bench.python is not None:
            return
        check_program(system, "vllm", needed_for=f"[bench] client = {system.bench.client!r}")

    def serves(self, topology: Topology, system: System) -> None:
        """Raise if the topology has other instances than those that the user named."""
        named = Counter(instance.role for instance in endpoint_of(system).instances)
        needed = {part.role: topology.groups * part.count for part in topology.parts}
        if named and named != needed:
            raise ConfigError(
                f"{INSTANCE_URL} names {_counts_text(named)}, but topology {topology.id!r} has "
                f"{_counts_text(needed)}; name each of its instances once, or none"
            )

    def examine(self, system: System) -> Sequence[Prerequisite]:
        """Return what the client needs on this machine; no request is sent to the endpoint."""
        url = system.table("attached", AttachedSpec).base_url
        advice = "" if url else "Give --pdserve-base-url to pytest, or write [attached] base_url."
        return [
            self._client_row(system),
            unchecked("endpoint", found=url or "none is named", needed="its URL", advice=advice),
        ]

    def _client_row(self, system: System) -> Prerequisite:
        """Return the row of the benchmark client: vLLM's, or ``precise`` if that is missing."""
        if self.client_kind(system) != "precise":
            return program_row("vLLM", system.programs.vllm, key="vllm")
        installed = find_spec("tokenizers") is not None
        return required(
            "client precise",
            found="tokenizers is installed" if installed else "tokenizers is missing",
            needed="tokenizers",
            there=installed,
            advice="Install pytest-pdserve[precise].",
        )

    @contextlib.contextmanager
    def acquire(self, system: System, request: Request) -> Iterator[AttachedAllocation]:
        """Allocate one slot of this machine for the client."""
        allocation = AttachedAllocation(system, request, endpoint_of(system))
        try:
            yield allocation
        finally:
            allocation.release()

    def describe_hardware(self, system: System) -> Mapping[str, str]:
        """Return the URL of the endpoint: the hardware behind it is unknown."""
        return {"endpoint": endpoint_of(system).url}


def endpoint_of(system: System) -> Endpoint:
    """Return the endpoint of *system*.

    :raises ConfigError: if it names none, or the API key is invalid in an HTTP header.
    """
    endpoint = system.table("attached", AttachedSpec).endpoint(read_api_key())
    if endpoint is None:
        raise ConfigError(
            f"system {system.name!r} is of kind 'attached' and names no endpoint; give "
            f"{BASE_URL}, or [attached] base_url in the system file"
        )
    return endpoint


def attached_to(
    system: System, url: str, *, model: str | None = None, instance_urls: Sequence[str] = ()
) -> System:
    """Return *system* with the servers at *url* in place of its own."""
    spec = AttachedSpec(base_url=url, model=model, instance_urls=tuple(instance_urls))
    return replace(
        system,
        cluster=replace(system.cluster, kind="attached"),
        container=ContainerSpec(),  # of the servers; the client runs on this machine as it stands
        simulated=False,
        tables={"attached": spec},
    )


def with_endpoint(
    system: System, url: str | None, model: str | None, instance_urls: Sequence[str]
) -> System:
    """Return *system* with the endpoint of the command-line options.

    :param url: None keeps the URL, model and instances of the system file, except those that
        the other options give.
    :raises ConfigError: if an option is invalid.
    """
    if model is not None:
        parse_model(model, MODEL)
    parse_instances(instance_urls, INSTANCE_URL)
    if url is not None:
        base_url = parse_base_url(url, BASE_URL)
        return attached_to(system, base_url, model=model, instance_urls=instance_urls)
    if model is None and not instance_urls:
        return system
    spec = system.tables.get("attached")
    if not isinstance(spec, AttachedSpec) or spec.base_url is None:
        option = INSTANCE_URL if model is None else MODEL
        raise ConfigError(
            f"{option} needs an endpoint that is up; give {BASE_URL}, or a system of kind "
            f"'attached' whose file names one, not {system.name!r}"
        )
    changed = AttachedSpec(
        base_url=spec.base_url,
        model=model or spec.model,
        instance_urls=tuple(instance_urls) or spec.instance_urls,
    )
    return replace(system, tables={**system.tables, "attached": changed})


def _counts_text(roles: Mapping[str, int]) -> str:
    """Return the number of instances of each role, e.g. ``1 prefill and 3 decode``."""
    return " and ".join(f"{roles[role]} {role}" for role in ROLES if role in roles)
