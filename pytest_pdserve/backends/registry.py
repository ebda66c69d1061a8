"""All backends by name: those of this package, and those of entry points."""

from __future__ import annotations

import functools
import importlib

from pytest_pdserve.backends.backend import Backend
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.extensions import BACKENDS_GROUP
from pytest_pdserve.values.extensions import load_extensions
from pytest_pdserve.values.system import UNNAMED_CLIENT
from pytest_pdserve.values.system import ClientKind
from pytest_pdserve.values.system import System

OWN = {
    "local": "pytest_pdserve.backends.local:LocalBackend",
    "slurm": "pytest_pdserve.backends.slurm:SlurmBackend",
    "attached": "pytest_pdserve.backends.attached:AttachedBackend",
    "simulated": "pytest_pdserve.simulation:SimulatedBackend",
}
"""Class of each built-in backend, imported on first use: ``simulation`` is a higher layer."""


@functools.cache
def backends() -> tuple[str, ...]:
    """Return the names of all backends.

    :raises ConfigError: if an entry point cannot be loaded, or has a name that is taken.
    """
    return (*OWN, *_added())


@functools.cache
def find_backend(name: str) -> Backend:
    """Return the backend called *name*.

    :raises ConfigError: if no backend has that name.
    """
    if name in OWN:
        module, _, attribute = OWN[name].partition(":")
        backend: type[Backend] = getattr(importlib.import_module(module), attribute)
        return backend()
    added = _added()
    if name not in added:
        raise ConfigError(
            f"/cluster/kind: {name!r} is not a backend; known are {', '.join(backends())}"
        )
    return added[name]


def backend_of(system: System) -> Backend:
    """Return the backend that serves *system*.

    :raises ConfigError: if the backend is unknown, or not given, as in a system of figures.
    """
    if system.cluster.kind is None:
        raise ConfigError(
            f"system {system.name!r} has no [cluster] kind, so nothing can be measured on it"
            + (
                f"; it consists of figures: run pytest suites/claims --system {system.name}"
                if system.figures
                else ""
            )
        )
    return find_backend(system.cluster.kind)


@functools.cache
def _added() -> dict[str, Backend]:
    added = {}
    for name, kind in load_extensions(BACKENDS_GROUP).items():
        if not (isinstance(kind, type) and issubclass(kind, Backend)):
            raise ConfigError(
                f"entry point {name!r} of group {BACKENDS_GROUP!r} is not a subclass of "
                "pytest_pdserve.Backend"
            )
        if name in OWN:
            raise ConfigError(
                f"entry point {name!r} of group {BACKENDS_GROUP!r} has the name of a backend of "
                "pytest-pdserve; give it another"
            )
        added[name] = kind()
    return added


def client_kind(system: System) -> ClientKind:
    """Return the kind of the benchmark client of *system*; unnamed for a system of figures."""
    return backend_of(system).client_kind(system) if system.cluster.kind else UNNAMED_CLIENT
