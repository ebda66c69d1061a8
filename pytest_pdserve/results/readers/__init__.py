"""Readers of results that other tools wrote, in one module for each format.

A module has ``TEXT`` (the format, for messages), ``reads(row)`` (whether one result, an object, is
of its format) and ``read(row)``, which returns a
:class:`~pytest_pdserve.results.foreign.ForeignRun`. The module of a tool that writes folders also
has ``files_in(folder)``.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from pytest_pdserve.results.documents import Row
from pytest_pdserve.results.foreign import ForeignRun
from pytest_pdserve.values.errors import ConfigError

LAST = "vllm"
"""The reader that is tried last: other formats are derived from its format."""


def readers() -> dict[str, ModuleType]:
    """Return the module of every format by name, in the order in which they are tried."""
    names = sorted((each.name for each in pkgutil.iter_modules(__path__)), key=lambda n: n == LAST)
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def read_row(row: Row) -> ForeignRun:
    """Read one result with the reader that knows its format.

    :raises ConfigError: if none does, or the result cannot be used.
    """
    found = next((module for module in readers().values() if module.reads(row.data)), None)
    if found is None:
        formats = "; ".join(module.TEXT for module in readers().values())
        names = ", ".join(name for name in list(row.data)[:6])
        raise ConfigError(
            f"{row.where}: an object of {names or 'nothing'} is not a result that can be imported; "
            f"expected one of: {formats}"
        )
    run: ForeignRun = found.read(row)
    return run
