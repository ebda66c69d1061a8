"""Check an endpoint that is already up, and find out which model it serves."""

from __future__ import annotations

import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from pytest_pdserve.backends.allocation import Endpoint
from pytest_pdserve.plan.command import value_of
from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import AnswerLimits
from pytest_pdserve.serving.answers import Response
from pytest_pdserve.serving.answers import printable
from pytest_pdserve.serving.answers import read_answer
from pytest_pdserve.serving.model import is_made_here
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.serving.warmup import prompts
from pytest_pdserve.values.errors import NotReadyError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

_LIMITS = AnswerLimits(time_s=10.0)
_COMPLETIONS = "/v1/completions"
_NAMED = 5
"""Largest number of models that a message lists."""
_NOT_LISTED = (
    httpx.codes.NOT_FOUND,
    httpx.codes.METHOD_NOT_ALLOWED,
    httpx.codes.NOT_IMPLEMENTED,
)
"""Statuses of servers without ``/v1/models``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model as ``/v1/models`` lists it."""

    name: str
    root: str | None = None
    """Folder or hub name that the server loaded it from; None if it is not listed."""


def find_model(client: httpx.Client, endpoint: Endpoint, system: System) -> ServedModel:
    """Return the model to measure, under the name that the endpoint uses.

    The endpoint is asked once, without waiting. If it lists several models, the system's own is
    chosen; if it has no list of models, it is assumed to serve the system's own.

    :raises NotReadyError: with URL, status and cause, if the endpoint cannot be measured.
    """
    target, own = f"{endpoint.url}/v1/models", system.model.path
    wanted = endpoint.model or value_of(system.bench.args, "--served-model-name")
    try:
        response = read_answer(client, "GET", target, limits=_LIMITS)
        silent = response.status in _NOT_LISTED
        listed = None if silent else _models(response.checked().json(), target)
        if listed is None:
            _check_health(client, endpoint, response)
            return ServedModel(name=wanted or own)
    except AnswerError as error:
        raise NotReadyError(f"{error}{_advice(error, endpoint)}") from error
    return _choose(listed, wanted, own, target)


def _models(data: Any, target: str) -> Sequence[ServedModel] | None:
    """Return the models of a list, in its order; None if *data* is not a list of models.

    :raises NotReadyError: if an entry is not a model.
    """
    entries = data.get("data") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        return None
    models = []
    for entry in entries:
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.isprintable() or not name:
            text = printable(repr(entry))
            raise NotReadyError(f"{target} lists {text}; expected an object with an 'id'")
        root = entry.get("root")
        models.append(ServedModel(name=name, root=root if isinstance(root, str) else None))
    return models


def _check_health(client: httpx.Client, endpoint: Endpoint, response: Response) -> None:
    """Check ``/health`` of an endpoint that lists no models.

    :raises NotReadyError: if it is not healthy.
    """
    target = f"{endpoint.url}/health"
    try:
        read_answer(client, "GET", target, limits=_LIMITS).checked()
    except AnswerError as error:
        raise NotReadyError(
            f"{response.url} {response.outcome}, and {target} {error.why}; expected a list of "
            "models: give the URL without /v1"
        ) from error


def _choose(
    listed: Sequence[ServedModel], wanted: str | None, own: str, target: str
) -> ServedModel:
    """Return the *wanted* model, or the only one, or the system's *own*.

    :raises NotReadyError: if it is not listed, or there are several others.
    """
    if wanted is None and len(listed) == 1:
        return listed[0]
    for model in listed:
        if model.name == (wanted or own):
            return model
    shown = ", ".join(printable(model.name) for model in listed[:_NAMED])
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    found = f"{target} lists {shown}{more}" if listed else f"{target} lists no model"
    if wanted is not None:
        raise NotReadyError(f"{found}; expected {wanted!r}, which was asked for")
    raise NotReadyError(f"{found}; choose one with --pdserve-model" if listed else found)


def _advice(error: AnswerError, endpoint: Endpoint) -> str:
    """Return a hint for the message of *error*; empty if there is none."""
    if error.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        if endpoint.api_key:
            return "; the key in PDSERVE_API_KEY is not accepted"
        return "; it requires an API key: set PDSERVE_API_KEY"
    parts = urlsplit(endpoint.url)
    proxied = parts.scheme in urllib.request.getproxies()
    if proxied and not urllib.request.proxy_bypass(parts.netloc):
        return f" (sent through the proxy of {parts.scheme.upper()}_PROXY; see NO_PROXY)"
    return ""


def check_answers(completions: Completions, endpoint: Endpoint, system: System) -> None:
    """Request one token, so that a rejected key or model is reported before the client runs.

    Does nothing if the client uses another path than ``/v1/completions``.

    :raises NotReadyError: with URL, status and cause.
    """
    if value_of(system.bench.args, "--endpoint") not in (None, _COMPLETIONS):
        return
    try:
        completions.text(endpoint.url, next(prompts()), tokens=1)
    except AnswerError as error:
        raise NotReadyError(f"{error}{_advice(error, endpoint)}") from error


def with_served_model(system: System, served: ServedModel) -> tuple[System, str | None]:
    """Return *system* with the endpoint's model in place of its own, if they differ.

    :returns: also the tokenizer of the prompts, if it may not be the model's own; else None. It is
        the system's: the endpoint's name of a model may be neither a folder nor a hub name.
    """
    own, args = system.model.path, system.bench.args
    if served.name == own:
        return system, None
    ours = is_made_here(system) and Path(served.name).name == Path(own).name
    if ours or served.root == own:
        args = (*args, "--served-model-name", served.name)
        return replace(system, bench=replace(system.bench, args=args)), None
    foreign = None
    if value_of(args, "--tokenizer") is None:
        here = [name for name in (served.root, served.name) if name and _has_tokenizer(name)]
        foreign = None if here else own
        args = (*args, "--tokenizer", here[0] if here else own)
    model = replace(system.model, path=served.name)
    return replace(system, model=model, bench=replace(system.bench, args=args)), foreign


def _has_tokenizer(model: str) -> bool:
    """Return whether a model's name is a folder of this machine that has its tokenizer."""
    return any((Path(model) / f"tokenizer{end}").is_file() for end in (".json", "_config.json"))


def named_servers(endpoint: Endpoint, topology: Topology, system: System) -> tuple[Server, ...]:
    """Return the instances named by ``--pdserve-instance-url``, as servers without a process."""
    sizes = {part.role: part.tp for part in topology.parts}
    default = system.tensor_parallel or system.cluster.gpus_per_node
    seen: Counter[str] = Counter()
    servers = []
    for instance in endpoint.instances:
        name = f"{instance.role}[{seen[instance.role]}]"
        seen[instance.role] += 1
        ranks = sizes.get(instance.role) or default
        servers.append(
            Server(name=name, role=instance.role, url=instance.url, process=None, ranks=ranks)
        )
    return tuple(servers)
