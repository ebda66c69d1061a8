"""Reads and checks system files."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.backend import Backend
from pytest_pdserve.backends.registry import backends
from pytest_pdserve.backends.registry import find_backend
from pytest_pdserve.plan.router_flags import repeated_router_args
from pytest_pdserve.plan.serve_flags import WrittenFlag
from pytest_pdserve.plan.serve_flags import repeated_serve_args
from pytest_pdserve.results.files import check_values
from pytest_pdserve.results.files import load_toml
from pytest_pdserve.results.files import pointer_text
from pytest_pdserve.results.kinds import SYSTEM
from pytest_pdserve.results.kinds import parse_table
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.results.redaction import keep_secret
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.secrets_in_files import secrets_in
from pytest_pdserve.values.system import Judgement
from pytest_pdserve.values.system import System

_UNREAD_OF_FIGURES = (
    *("container", "ports", "router", "bench", "env", "pd_env", "pass_env", "programs", "limits"),
    *("transfer", "cluster.bind_host", "cluster.spare_nodes"),
)
"""Keys that a system of figures does not read: it starts no server."""
_SET_BY_PLAN = "is set by the plan, from [kv_transfer] backend"


def load_system(name: str, folders: Sequence[Path]) -> System:
    """Read the system called *name*.

    :raises ConfigError: if no folder has it, or its file is malformed.
    """
    if Path(name).name != name or name == "..":
        raise ConfigError(f"system {name!r:.80} is not the name of a folder of baselines/")
    for folder in folders:
        path = folder / name / "system.toml"
        if is_there(path):
            return _read(path, name)
    names = sorted(
        {file.parent.name for folder in folders for file in folder.glob("*/system.toml")}
    )
    raise ConfigError(
        f"system {name!r} is unknown; known are {', '.join(names) or 'none'} "
        f"({', '.join(f'{folder}/<system>/system.toml' for folder in folders)})"
    )


def _read(path: Path, name: str) -> System:
    data = load_toml(path)
    check_values(data, path)
    for place, problem in secrets_in(data):
        raise ConfigError(f"{path}: {pointer_text(place)}: {problem}")
    backend = _backend(data, path)
    own: dict[str, Any] = {}
    _check_tables(data, backend, path)
    _check_unread(data, backend, path)
    if backend is not None:
        for table, kind in backend.tables.items():
            own[table] = _table(data.pop(table, {}), kind, path, table)
    simulated = backend is not None and backend.simulated
    system = SYSTEM.parse(data, path, name=name, source=str(path), simulated=simulated, tables=own)
    _check_floors(system.judgement, path)
    for pointer, problem in (*_repeated_args(system), *_useless_role_keys(system)):
        raise ConfigError(f"{path}: {pointer}: {problem}; remove it")
    try:
        system.check()
        if backend is not None:
            backend.check_file(system)
            if system.figures is not None:
                raise ConfigError(
                    "/figures: is read where [cluster] has no 'kind': a system is measured, or "
                    "its figures are judged; remove one of the two"
                )
        _check_sharing(system)
        _check_libraries(system, backend)
        if system.cluster.kind is None and system.figures is None:
            raise ConfigError(
                f"/cluster: needs 'kind', one of {', '.join(backends())}, or the file needs "
                "'figures'"
            )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    keep_secret(system.pass_env)
    return system


def _backend(data: Mapping[str, Any], path: Path) -> Backend | None:
    """Return the backend that a file names; None if ``kind`` is missing or not a string."""
    cluster = data.get("cluster")
    kind = cluster.get("kind") if isinstance(cluster, dict) else None
    if not isinstance(kind, str):
        return None
    try:
        return find_backend(kind)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check_unread(data: Mapping[str, Any], backend: Backend | None, path: Path) -> None:
    """Raise if the file has keys that its backend, or a system of figures, does not read."""
    chosen = f"is {backend.name!r}" if backend else "is not given"
    of_figures = _UNREAD_OF_FIGURES if "figures" in data else ()
    for key in backend.unread if backend else of_figures:
        table, _, name = key.partition(".")
        there = data.get(table)
        if there is not None and (not name or (isinstance(there, dict) and name in there)):
            raise ConfigError(
                f"{path}: /{key.replace('.', '/')}: is not read where [cluster] kind {chosen}; "
                "remove it"
            )


def _check_tables(data: Mapping[str, Any], backend: Backend | None, path: Path) -> None:
    """Raise if the file has tables that only other backends read."""
    own = backend.tables if backend else {}
    chosen = f"not {backend.name!r}" if backend else "and none is given"
    for other in backends():
        for table in find_backend(other).tables:
            if table in data and table not in own:
                raise ConfigError(
                    f"{path}: /{table}: is read where [cluster] kind is {other!r}, {chosen}; "
                    "remove it"
                )


def _table(data: Any, kind: type, path: Path, name: str) -> Any:
    complete = getattr(kind, "complete", None)
    if complete is not None and isinstance(data, dict):
        data = complete(data)
    return parse_table(kind, data, path, name)


def _repeated_args(system: System) -> Iterator[tuple[str, str]]:
    """Yield the JSON pointer of each argument that the plan sets itself, and the error."""
    lists = {"/model/serve_args": (None, system.model.serve_args)} | {
        f"/model/{role}/serve_args": (role, own.serve_args)
        for role, own in system.model.roles.items()
    }
    for place, (role, args) in lists.items():
        for position, name, written in repeated_serve_args(args, role):
            yield f"{place}/{position}", _repeated_text(name, written)
    for position, name, written in repeated_router_args(system.router.args):
        yield f"/router/args/{position}", _repeated_text(name, written)


def _repeated_text(name: str, written: WrittenFlag) -> str:
    by = "" if written.flag == name else f" by {written.flag}"
    return f"{name} repeats what the plan sets{by} ({written.instead})"


def _useless_role_keys(system: System) -> Iterator[tuple[str, str]]:
    """Yield the JSON pointer of each ``[kv_transfer]`` key without effect, and the error."""
    for role, own in system.kv_transfer.roles.items():
        if ROLES[role].kv_role is None:
            yield f"/kv_transfer/{role}", f"is not read: {role} instances move no KV cache"
        if "backends" in own.extra_config:
            yield f"/kv_transfer/{role}/extra_config/backends", _SET_BY_PLAN
    if "backends" in system.kv_transfer.extra_config:
        yield "/kv_transfer/extra_config/backends", _SET_BY_PLAN


def _check_floors(judgement: Judgement, path: Path) -> None:
    for table in ("floors", "sees"):
        for name in getattr(judgement, table):
            if name not in METRICS.times:
                raise ConfigError(
                    f"{path}: /judgement/{table}/{name}: is not a judged metric; these are "
                    f"{', '.join(METRICS.times)}"
                )


def _check_libraries(system: System, backend: Backend | None) -> None:
    """Raise if the file names libraries of this machine, but servers do not run from it."""
    here = backend is not None and backend.serves_from_here and not system.container.contained
    if system.kv_transfer.libraries is not None and not here:
        raise ConfigError(
            "/kv_transfer/libraries: is only for servers that run from the environment of this "
            "Python; remove it: nodes and images have libraries of their own"
        )


def sharing_engines(system: System) -> System:
    """Return *system* with ``share_engines`` set: topologies share running instances.

    :raises ConfigError: if the session starts no instances.
    """
    shared = replace(system, cluster=replace(system.cluster, share_engines=True))
    _check_sharing(shared)
    return shared


def _check_sharing(system: System) -> None:
    """Raise if ``share_engines`` is set, but the session does not start the instances."""
    backend = find_backend(system.cluster.kind) if system.cluster.kind else None
    if system.cluster.share_engines and (
        backend is None or backend.deployer is not None or not backend.starts_servers
    ):
        raise ConfigError(
            "[cluster] share_engines (--pdserve-share-engines) is for systems whose instances the "
            f"session starts; {system.name!r} is not one"
        )
