"""An endpoint whose servers run already: the client asks it from this machine."""

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
    """Where the endpoint is."""

    base_url: Annotated[str, Meta(pattern=r"^https?://\S+$")] | None = None
    """Its base URL; None takes ``--pdserve-base-url``."""
    model: Text | None = None
    """Name of its model; None asks the endpoint, or takes ``--pdserve-model``."""
    instance_urls: tuple[Text, ...] = ()
    """Instances behind it whose counters can be asked for, each as ``role=URL``; or
    ``--pdserve-instance-url``."""

    def endpoint(self, api_key: str) -> Endpoint | None:
        """Return the endpoint that this names; None if it names none.

        :raises ConfigError: if a URL or a name cannot be used, with a JSON pointer.
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
    """One slot of this machine for the client of an endpoint."""

    kind = "attached"

    def __init__(self, system: System, request: Request, endpoint: Endpoint) -> None:
        one = replace(system, cluster=replace(system.cluster, nodes=1))
        super().__init__(one, folder=request.folder, progress=request.progress)
        self.endpoint: Endpoint = endpoint

    def find_versions(self) -> dict[str, str]:
        """Nothing: what is installed here does not serve."""
        return {}

    def read_fabric(self) -> Sequence[FabricState]:
        """Nothing: interfaces of this machine do not serve."""
        return ()

    def describe_nodes(self) -> dict[str, str]:
        """The endpoint."""
        return {"endpoint": self.endpoint.url}


class AttachedBackend(Backend):
    """Servers that run already."""

    name = "attached"
    tables: Mapping[str, type] = {"attached": AttachedSpec}
    unread = (
        *("container", "ports", "router", "kv_transfer", "pd_env", "programs.router"),
        "transfer",
        *("cluster.bind_host", "cluster.memory_per_instance_gib", "limits.ready_s"),
    )
    starts_servers = False

    def check_file(self, system: System) -> None:
        """Refuse URLs and names that cannot be used."""
        system.table("attached", AttachedSpec).endpoint("")

    def check(self, system: System) -> None:
        """Refuse a system that names no endpoint, and a key that no header carries."""
        endpoint_of(system)

    def client_kind(self, system: System) -> ClientKind:
        """Return what the system file says; else ``vllm``, or ``precise`` where that is missing."""
        if system.bench.client is not None:
            return system.bench.client
        there = system.bench.python or program_path(system.programs.vllm)
        return "vllm" if there else "precise"

    def check_client(self, system: System) -> None:
        """Refuse a machine without vLLM where its client was asked for."""
        if system.bench.client in (None, "precise") or system.bench.python is not None:
            return
        check_program(system, "vllm", needed_for=f"[bench] client = {system.bench.client!r}")

    def serves(self, topology: Topology, system: System) -> None:
        """Refuse a topology that has other instances than those that were named."""
        named = Counter(instance.role for instance in endpoint_of(system).instances)
        needed = {part.role: topology.groups * part.count for part in topology.parts}
        if named and named != needed:
            raise ConfigError(
                f"{INSTANCE_URL} names {_counts(named)}, but topology {topology.id!r} has "
                f"{_counts(needed)}; name each of its instances once, or none"
            )

    def examine(self, system: System) -> Sequence[Prerequisite]:
        """Return what the client on this machine needs; the endpoint is asked nothing."""
        url = system.table("attached", AttachedSpec).base_url
        advice = "" if url else "Give --pdserve-base-url to pytest, or write [attached] base_url."
        return [
            self._client_row(system),
            unchecked("endpoint", found=url or "none is named", needed="its URL", advice=advice),
        ]

    def _client_row(self, system: System) -> Prerequisite:
        """What of the benchmark client is here: vLLM's, or ours where that is missing."""
        if self.client_kind(system) != "precise":
            return program_row("vLLM", system.programs.vllm, key="vllm")
        there = find_spec("tokenizers") is not None
        return required(
            "client precise",
            found="tokenizers is installed" if there else "tokenizers is missing",
            needed="tokenizers",
            there=there,
            advice="Install pytest-pdserve[precise].",
        )

    @contextlib.contextmanager
    def acquire(self, system: System, request: Request) -> Iterator[AttachedAllocation]:
        """Hold what the client needs of this machine."""
        allocation = AttachedAllocation(system, request, endpoint_of(system))
        try:
            yield allocation
        finally:
            allocation.release()

    def describe_hardware(self, system: System) -> Mapping[str, str]:
        """Return the endpoint: what is behind it is not known."""
        return {"endpoint": endpoint_of(system).url}


def endpoint_of(system: System) -> Endpoint:
    """Return the endpoint of *system*.

    :raises ConfigError: if it names none, or the API key cannot be sent.
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
    """Return *system* as the options name its endpoint.

    :param url: None takes that of the system file, whose model and instances then hold where the
        options do not say another.
    :raises ConfigError: if an option cannot be used.
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


def _counts(roles: Mapping[str, int]) -> str:
    """Return how many instances there are of each role, e.g. ``1 prefill and 3 decode``."""
    return " and ".join(f"{roles[role]} {role}" for role in ROLES if role in roles)
