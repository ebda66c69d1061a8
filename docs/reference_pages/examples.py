"""An example of every key of ``system.toml``: a shipped file's, else that of ``examples.toml``."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

SHIPPED = Path(__file__).parents[2] / "baselines"
OWN = Path(__file__).with_name("examples.toml")
TOP_LEVEL = ("env", "pd_env")
"""Tables that are keys of the top level: their entries are the user's own names."""
_LONGEST = 70


@functools.cache
def examples() -> Mapping[tuple[str, str], Any]:
    """Return an example of each key, by table (empty at the top level) and key.

    Of the values that shipped files have, the shortest: what is long says no more.
    """
    found: dict[tuple[str, str], Any] = dict(_entries("", _parsed(OWN)))
    shipped: dict[tuple[str, str], list[Any]] = {}
    for path in sorted(SHIPPED.glob("*/system.toml")):
        for place, value in _entries("", _parsed(path)):
            shipped.setdefault(place, []).append(value)
    for place, values in shipped.items():
        found[place] = min(map(_shortened, values), key=lambda value: len(as_toml(value)))
    return MappingProxyType(found)


def own_examples() -> frozenset[tuple[str, str]]:
    """Return the table and key of each example of ``examples.toml``."""
    return frozenset(place for place, _ in _entries("", _parsed(OWN)))


def shipped_keys() -> frozenset[tuple[str, str]]:
    """Return the table and key of each key that a shipped file uses."""
    paths = SHIPPED.glob("*/system.toml")
    return frozenset(place for path in paths for place, _ in _entries("", _parsed(path)))


def as_toml(value: Any) -> str:
    """Return a value as TOML has it on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {as_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else json.dumps(name)


def _entries(table: str, data: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield every key that is no table; a table within a table may be a value too."""
    for name, value in data.items():
        yield (table, name), value
        if isinstance(value, Mapping) and name not in TOP_LEVEL:
            inner = "<role>" if name in ("role", "prefill", "decode", "aggregated") else name
            yield from _entries(f"{table}.{inner}" if table else inner, value)


def _shortened(value: Any) -> Any:
    """Return a long table without all but its first entry."""
    if isinstance(value, Mapping) and value and len(as_toml(value)) > _LONGEST:
        name, first = next(iter(value.items()))
        return {name: first}
    return value


def _parsed(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
