"""Read and write files: errors name the file, and no file is ever half written."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_pdserve.results.reading import read_text
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError

INTEGERS = range(-(2**63), 2**63)
"""Integers that TOML guarantees to represent."""
MAX_TOML_MIB = 1
"""Maximum size of a TOML file; 1 MiB takes seconds to read."""
MAX_JSON_MIB = 64
"""Maximum size of a stored JSON file; a baseline of 1,000 cells and 20 nights has 5 MB."""
_MAX_DOTS = 1000
"""Maximum dots in one line of TOML: a key of n parts takes n squared steps to read."""
_LONE = re.compile("[\ud800-\udfff]")


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; reject nan, and null characters, which no program argument can hold.

    :raises ConfigError: if it cannot be read or is malformed; the message has file and line.
    """

    def number(text: str) -> float:
        if math.isnan(value := float(text)):
            raise ConfigError(f"{path} holds {text}, expected a number")
        return value

    text = read_text(path, MAX_TOML_MIB)
    for place, line in enumerate(text.splitlines(), 1):
        if line.count(".") > _MAX_DOTS:
            raise ConfigError(f"{path} is not valid TOML: line {place} has over {_MAX_DOTS} dots")
    try:
        data = tomllib.loads(text, parse_float=number)
    except ValueError as error:  # besides TOMLDecodeError, an integer of too many digits
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not valid TOML: nested too deeply") from error
    for where, value in _entries(data):
        if isinstance(value, str) and "\0" in value:
            raise ConfigError(f"{path}: {pointer_text(where)}: text with a null character")
    return data


def load_json(
    path: Path,
    *,
    odd_number: Callable[[str], Any] | None = None,
    max_mib: int = MAX_JSON_MIB,
) -> Any:
    """Read a JSON file; reject duplicate keys, and NaN and infinities without *odd_number*.

    :param odd_number: converts ``NaN``, ``Infinity`` and numbers too large for a float; None
        rejects them.
    :raises ConfigError: if it cannot be read or is malformed; the message has file and line.
    """
    text = read_text(path, max_mib)
    with naming_json_errors(path):
        return json.loads(text, **json_hooks(path, odd_number))


def json_hooks(source: object, odd_number: Callable[[str], Any] | None) -> dict[str, Any]:
    """Return the hooks of a JSON decoder that rejects what :func:`load_json` rejects.

    :param source: the file, for messages.
    """

    def refuse(text: str) -> None:
        raise ConfigError(f"{source} holds {text}, expected a finite number")

    odd = odd_number or refuse

    def number(text: str) -> Any:
        return value if math.isfinite(value := float(text)) else odd(text)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, count in counts.items() if count > 1)
            raise ConfigError(f"{source} has the key {twice!r:.80} twice in one object")
        return result

    return {"parse_constant": odd, "parse_float": number, "object_pairs_hook": unique}


@contextlib.contextmanager
def naming_json_errors(source: object) -> Iterator[None]:
    """Turn errors of a JSON decoder into a ConfigError that names *source*.

    :raises ConfigError: for any of them.
    """
    try:
        yield
    except ValueError as error:  # besides JSONDecodeError, an integer of too many digits
        raise ConfigError(f"{source} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{source} is not valid JSON: nested too deeply") from error


def _entries(data: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield *data* and everything in it, with its path."""
    left: list[tuple[tuple[Any, ...], Any]] = [((), data)]
    while left:
        path, value = left.pop()
        yield path, value
        if isinstance(value, dict):
            left += (((*path, key), entry) for key, entry in value.items())
        elif isinstance(value, list):
            left += (((*path, index), entry) for index, entry in enumerate(value))


def check_values(data: Any, source: object) -> None:
    """Reject integers of more than 64 bits, and text that is not UTF-8.

    :raises ConfigError: with file and JSON pointer.
    """
    for path, value in _entries(data):
        if isinstance(value, int) and value not in INTEGERS:
            bits = value.bit_length()
            raise ConfigError(
                f"{source}: {pointer_text(path)}: an integer of {bits} bits, expected at most 64"
            )
        if _LONE.search(f"{value if isinstance(value, str) else ''}{path[-1] if path else ''}"):
            raise ConfigError(
                f"{source}: {pointer_text(path)}: text that is not UTF-8: a lone surrogate"
            )


def pointer_text(path: Iterable[Any]) -> str:
    """Return a JSON pointer on one line, whatever the keys are."""
    parts = map(str, path)
    return "/" + "/".join(part if part.isprintable() else ascii(part)[1:-1] for part in parts)


def write_json(path: Path, data: Mapping[str, Any], *, otherwise: str = "") -> None:
    """Write *data* to *path* atomically, as JSON.

    :param otherwise: as of :func:`write_bytes`.
    :raises StoreError: if it cannot be written.
    """
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode(), otherwise=otherwise)


def write_bytes(path: Path, content: bytes, *, otherwise: str = "") -> None:
    """Write *content* to *path* atomically: to a temporary file next to it, then rename.

    :param otherwise: advice for a write error, beside freeing space; empty advises to make the
        folder writable.
    :raises StoreError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror}; free space, or "
            + (otherwise or f"make {path.parent} writable")
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
