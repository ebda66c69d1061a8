"""Every key of ``system.toml``."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any
from typing import get_args

from docs.reference_pages.examples import as_toml
from docs.reference_pages.examples import examples
from docs.reference_pages.fields import FieldInfo
from docs.reference_pages.fields import fields_of
from docs.reference_pages.markdown import code
from docs.reference_pages.markdown import inline
from docs.reference_pages.markdown import table
from pytest_pdserve.backends.registry import OWN
from pytest_pdserve.backends.registry import find_backend
from pytest_pdserve.results.kinds import SYSTEM
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.system import System

_HEADS = ("key", "type, unit", "default", "example", "meaning")
_NOT_IN_FILE = {*SYSTEM.placed, "simulated", "tables", "name", "source"}
_BY_ROLE = "roles"


def system_page() -> str:
    """Return the page of all keys of a system file."""
    own = [field for field in fields_of(System) if field.name not in _NOT_IN_FILE]
    tables = {field.name: field for field in own if dataclasses.is_dataclass(field.type)}
    top = [["`schema_version`", "`1`", "required", "`1`", "Version of the file's format."]]
    top += [_row("", field) for field in own if field.name not in tables]
    parts = [
        "# Keys of `system.toml`\n",
        "`baselines/<system>/system.toml` describes the machines, the model and the arguments that topologies run on. "
        "[Systems](../systems.md) explains the tables. Each example is a value of its key, from a shipped file where one uses the key; the [JSON schema](schema/system.schema.json) is what a file is "
        "checked against. A key without a default may be left out unless it is required; where a meaning names None, that is a key that is left out.\n",
        "## Top level\n",
        table(_HEADS, top),
    ]
    for name, field in tables.items():
        parts += _sections(name, field.type)
    for backend in OWN:
        for name, kind in find_backend(backend).tables.items():
            parts += _sections(name, kind, f"Only of systems of kind `{backend}`.")
    return "\n".join(parts)


def _sections(name: str, kind: Any, more: str = "") -> Iterator[str]:
    """Yield the section of a table, then those of the tables in it."""
    anchor = name.replace(".", "-").replace("<", "").replace(">", "")
    yield f"## `[{name}]` {{#{anchor}}}\n"
    yield f"{inline(inspect.getdoc(kind))} {more}".strip() + "\n"
    nested: dict[str, Any] = {}
    rows = []
    for field in fields_of(kind):
        if field.name == _BY_ROLE:
            nested[f"{name}.<role>"] = get_args(field.type)[1]
        elif dataclasses.is_dataclass(field.type):
            nested[f"{name}.{field.name}"] = field.type
        else:
            rows.append(_row(name, field))
    yield table(_HEADS, rows)
    for inner, inner_kind in nested.items():
        roles = ", ".join(code(role) for role in ROLES) if "<role>" in inner else ""
        yield from _sections(inner, inner_kind, f"A role is one of {roles}." if roles else "")


def _row(table: str, field: FieldInfo) -> list[str]:
    unit = f"; {field.unit}" if field.unit else ""
    example = code(as_toml(examples()[table, field.name]))
    kind = f"{field.kind}{unit}"
    return [code(field.name), kind, field.default, example, inline(field.text)]
