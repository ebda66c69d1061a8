"""Fields of the package's dataclasses: type, default, and the docstring below each."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import json
import re
import textwrap
import types
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import MISSING
from dataclasses import dataclass
from typing import Annotated
from typing import Any
from typing import Literal
from typing import Union
from typing import get_args
from typing import get_origin
from typing import get_type_hints

from msgspec import Meta

_UNITS = {
    "_s": "s",
    "_ms": "ms",
    "_us": "µs",
    "_min": "min",
    "_gib": "GiB",
    "_mib": "MiB",
    "_gb_s": "GB/s",
    "_tok_s": "tok/s",
    "_rps": "requests/s",
    "_lens": "tokens",
    "_len": "tokens",
    "_bytes": "bytes",
}
_NAMES = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldInfo:
    """A field of a dataclass as the reference shows it."""

    name: str
    kind: str
    """Its type in words, with its range."""
    default: str
    """As JSON; ``required`` or empty (None)."""
    unit: str
    """By the end of its name; empty if it has none."""
    text: str
    """Its docstring; empty if it has none."""
    type: Any
    """Its type, without Annotated and None."""


@functools.cache
def attribute_docs(kind: type) -> Mapping[str, str]:
    """Return the docstring below each attribute of a class, by the attribute's name."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for node, following in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign):
            target: ast.expr = node.target
        elif isinstance(node, ast.Assign):
            target = node.targets[0]
        else:
            continue
        is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if is_text and isinstance(target, ast.Name):
            found[target.id] = str(following.value.value)  # type: ignore[attr-defined]
    return found


def fields_of(kind: type) -> Iterator[FieldInfo]:
    """Yield every field of a dataclass, in its order."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        yield FieldInfo(
            name=field.name,
            kind=words(hint),
            default=default_of(field),
            unit=unit_of(field.name),
            text=attribute_docs(kind).get(field.name, ""),
            type=bare(hint),
        )


def unit_of(name: str) -> str:
    """Return the unit of the longest known ending of a field's name; empty if there is none."""
    return _UNITS.get(max(filter(name.endswith, _UNITS), key=len, default=""), "")


def default_of(field: dataclasses.Field[Any]) -> str:
    """Return a default as JSON, ``required``, or nothing where it is None or empty."""
    if field.default is not MISSING:
        value = field.default
    elif field.default_factory is not MISSING:
        value = field.default_factory()
    else:
        return "required"
    if value is None or dataclasses.is_dataclass(value) or value in ((), {}):
        return ""
    try:
        return f"`{json.dumps(value, ensure_ascii=False)}`"
    except TypeError:
        return f"`{value}`"


def bare(hint: Any) -> Any:
    """Return a type without its bounds and without None."""
    if get_origin(hint) is Annotated:
        return bare(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        options = [each for each in get_args(hint) if each is not type(None)]
        return bare(options[0]) if len(options) == 1 else hint
    return hint


def words(hint: Any) -> str:
    """Return a type in words: ``number, more than 0, at most 10``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [
            text for meta in arguments[1:] if isinstance(meta, Meta) for text in _bounds(meta)
        ]
        return ", ".join([words(arguments[0]), *bounds])
    if origin in (Union, types.UnionType):
        return " or ".join(words(each) for each in arguments if each is not type(None))
    if origin is Literal:
        return " or ".join(f'`"{each}"`' for each in arguments)
    if origin is tuple:
        return f"list of {words(arguments[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return f"table of {words(arguments[1])}"
    if dataclasses.is_dataclass(hint):
        return "table"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def _bounds(meta: Meta) -> Iterator[str]:
    """Yield what bounds a value; that a text is not empty goes without saying."""
    for sign, bound in (("more than", meta.gt), ("at least", meta.ge), ("at most", meta.le)):
        if bound is not None:
            yield f"{sign} {bound:,}"
    if meta.pattern is not None and re.search("A-Za-z_", meta.pattern):
        yield "a variable's name"
