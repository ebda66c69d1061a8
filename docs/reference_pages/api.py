"""The public names of ``pytest_pdserve``."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import pytest_pdserve
from docs.reference_pages.fields import attribute_docs
from docs.reference_pages.fields import default_of
from docs.reference_pages.markdown import code
from docs.reference_pages.markdown import inline
from docs.reference_pages.markdown import table


def names_page() -> str:
    """Return the page of public names."""
    parts = [
        "# Public Python names\n",
        "All are imported from `pytest_pdserve`. [Public names, and what may change](../api.md) says where you meet each and when it may change.\n",
    ]
    for name in sorted(pytest_pdserve.__all__):
        found = getattr(pytest_pdserve, name)
        parts += [f"## {name}\n", f"{inline(inspect.getdoc(found))}\n"]
        if dataclasses.is_dataclass(found):
            parts.append(_fields(found))
        if inspect.isclass(found):
            rows = list(_methods(found))
            parts += [table(["method or property", "meaning"], rows)] if rows else []
        else:
            parts.append(f"```python\n{name}{inspect.signature(found)}\n```\n")
    return "\n".join(parts)


def _fields(kind: Any) -> str:
    docs = attribute_docs(kind)
    rows = [
        [code(f.name), code(f.type), default_of(f), inline(docs.get(f.name))]
        for f in dataclasses.fields(kind)
    ]
    return table(["field", "type", "default", "meaning"], rows)


def _methods(kind: type) -> Iterator[list[str]]:
    """Yield what a class defines itself and does not begin with an underscore."""
    for name, value in sorted(vars(kind).items()):
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            yield [code(name), inline(inspect.getdoc(value))]
        elif isinstance(value, classmethod | staticmethod) or inspect.isfunction(value):
            function = getattr(kind, name)
            parameters = [p for p in inspect.signature(function).parameters if p != "self"]
            yield [code(f"{name}({', '.join(parameters)})"), inline(inspect.getdoc(function))]
