"""Read files of other tools within limits of size, depth, rows and names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from pytest_pdserve.results.files import INTEGERS
from pytest_pdserve.results.files import json_hooks
from pytest_pdserve.results.files import naming_json_errors
from pytest_pdserve.results.files import pointer_text
from pytest_pdserve.results.reading import decode
from pytest_pdserve.results.reading import read_bytes
from pytest_pdserve.values.errors import ConfigError

MAX_MIB = 128
"""Maximum size of a JSON file; 10,000 requests of 256 tokens with all gaps take half of it."""
MAX_YAML_MIB = 1
"""Maximum size of a YAML file, which takes 4 s to read; reports have 26 kB."""
MAX_ROWS = 1000
"""Maximum number of results in one file."""
MAX_DEPTH = 40
"""Maximum nesting of objects and lists."""
MAX_NAME = 200
"""Maximum characters of a name."""
_YAML = (".yaml", ".yml")
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}
_SPACE = re.compile(r"[ \t\r\n]*")
_LONE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One result of a file: an object."""

    where: str
    """The file, and the row if it has several; for messages."""
    data: Mapping[str, Any]
    """Its values; numbers outside JSON, such as NaN, are text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFiles:
    """The results in an output folder of a tool."""

    results: tuple[Path, ...]
    """Result files, at least one."""
    left_out: tuple[str, ...]
    """Files that are not results, and why, a sentence each."""


def load_rows(path: Path) -> list[Row]:
    """Read the objects of a JSON or YAML file: one, a list, JSON lines, or one after the other.

    :raises ConfigError: if it cannot be read, is malformed, or is beyond a limit.
    """
    text = _read_text(path)
    if not text.strip():
        raise ConfigError(f"{path} is empty: expected a result in JSON or YAML")
    if path.suffix.lower() in _YAML and text.lstrip()[0] not in "{[":
        values = [_load_yaml(text, path)]
    else:
        values = _load_json(text, path)
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if len(values) > MAX_ROWS:
        raise ConfigError(
            f"{path} has more than {MAX_ROWS} results, expected at most that many in one file"
        )
    if not values:
        raise ConfigError(f"{path} has no result: its list is empty")
    names = [str(path)] if len(values) == 1 else [f"{path} row {n + 1}" for n in range(len(values))]
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, dict):
            raise ConfigError(f"{name}: is {_kind(value)}, expected an object of names and values")
        _check(value, name)
    return [Row(where=name, data=value) for name, value in zip(names, values, strict=True)]


def _read_text(path: Path) -> str:
    max_mib = MAX_YAML_MIB if path.suffix.lower() in _YAML else MAX_MIB
    data = read_bytes(path, max_mib)
    for start, kind in _COMPRESSED.items():
        if data.startswith(start):
            raise ConfigError(f"{path} is compressed ({kind}): decompress it first")
    return decode(data, path)


def _load_json(text: str, path: Path) -> list[Any]:
    """Parse the JSON values that follow each other in *text*."""
    hooks = json_hooks(path, str)
    del hooks["parse_float"]  # ten times as fast without; _check rejects infinite numbers
    decoder = json.JSONDecoder(**hooks)
    values: list[Any] = []
    place = _after_space(text, 0)
    with naming_json_errors(path):
        while place < len(text) and len(values) <= MAX_ROWS:
            value, place = decoder.raw_decode(text, place)
            values.append(value)
            place = _after_space(text, place)
    return values


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _load_yaml(text: str, path: Path) -> Any:
    """Parse one YAML document of plain values; an alias could make a small file huge."""
    import yaml

    safe = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    def construct_mapping(self: Any, node: Any, deep: bool = False) -> Any:
        counts = Counter(self.construct_object(key, deep=True) for key, _ in node.value)
        twice = next((name for name, count in counts.items() if count > 1), None)
        if twice is not None:
            raise ConfigError(f"{path} has the key {twice!r:.80} twice in one object")
        return safe.construct_mapping(self, node, deep=deep)

    resolvers = {  # times stay text
        first: [(tag, regexp) for tag, regexp in each if not tag.endswith(":timestamp")]
        for first, each in safe.yaml_implicit_resolvers.items()
    }
    own = {"construct_mapping": construct_mapping, "yaml_implicit_resolvers": resolvers}
    try:
        _check_events(yaml, yaml.parse(text, Loader=safe), path)
        return _plain(yaml.load(text, Loader=type("Loader", (safe,), own)), path)  # noqa: S506
    except (yaml.YAMLError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not valid YAML: {reason:.300}") from error


def _check_events(yaml: Any, events: Iterator[Any], path: Path) -> None:
    """Reject deep nesting, aliases and further documents before anything is built."""
    depth = documents = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(
                f"{path} has the alias *{event.anchor:.60}: write out what it stands for"
            )
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{path}: more than {MAX_DEPTH} nested objects and lists")
        if documents > 1:
            raise ConfigError(f"{path} has several documents: expected one")


def _plain(value: Any, path: Path) -> Any:
    """Return *value* as JSON would have it: names are text, and so are NaN and infinities."""
    if isinstance(value, dict):
        return {str(name): _plain(each, path) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, path) for each in value]
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise ConfigError(f"{path} holds {_kind(value)}: expected names, numbers and text only")


def _kind(value: Any) -> str:
    names = {"NoneType": "null", "bool": "true or false", "int": "a number", "float": "a number"}
    kind = type(value).__name__
    return {**names, "str": "text", "list": "a list"}.get(kind, kind)


def _check(data: Mapping[str, Any], where: str) -> None:
    """Reject deep nesting, and names and values that cannot be shown or stored.

    :raises ConfigError: with the JSON pointer.
    """
    left: list[tuple[tuple[Any, ...], Any]] = [((), data)]
    while left:
        path, value = left.pop()
        if len(path) >= MAX_DEPTH:
            raise ConfigError(f"{where}: more than {MAX_DEPTH} nested objects and lists")
        if isinstance(value, list) and {*map(type, value)} == {float} and isfinite(sum(value)):
            continue  # the many gaps between tokens
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in entries:
            if isinstance(key, str) and not (len(key) <= MAX_NAME and key.isprintable()):
                raise ConfigError(
                    f"{where}: {pointer_text((*path, key[:60]))}: expected a name of at most "
                    f"{MAX_NAME} characters that can be shown"
                )
            if isinstance(each, dict | list):
                left.append(((*path, key), each))
            elif fault := _fault(each):
                raise ConfigError(f"{where}: {pointer_text((*path, key))}: {fault}")


def _fault(value: Any) -> str:
    """Return why a single value cannot be stored; empty if it can."""
    if isinstance(value, float):
        return "" if isfinite(value) else "a number too large to hold"
    if isinstance(value, int) and value not in INTEGERS:
        return f"an integer of {value.bit_length()} bits, expected at most 64"
    if isinstance(value, str) and not value.isascii() and _LONE.search(value):
        return "text that is not UTF-8: a lone surrogate"
    return ""
