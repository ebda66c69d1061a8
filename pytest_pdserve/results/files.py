"""Reading and writing files so that a mistake names its file, and nothing is ever half-written."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import tomllib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError

INTEGERS = range(-(2**63), 2**63)
"""What TOML promises to hold, and far more than anything is counted to here."""
_LONE = re.compile("[\ud800-\udfff]")


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, refusing nan.

    :raises ConfigError: if it cannot be read or is malformed; the message has file and line.
    """

    def number(text: str) -> float:
        if math.isnan(value := float(text)):
            raise ConfigError(f"{path} holds {text}, which says nothing")
        return value

    try:
        return tomllib.loads(_read(path), parse_float=number)
    except ValueError as error:  # besides TOMLDecodeError, an integer of too many digits
        raise ConfigError(f"{path} is no valid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is no valid TOML: nested too deeply") from error


def load_json(path: Path, *, odd_number: Callable[[str], Any] | None = None) -> Any:
    """Read a JSON file, refusing duplicate keys and, unless told otherwise, NaN and infinities.

    :param odd_number: makes a value of ``NaN``, ``Infinity`` and what is too large for a float.
    :raises ConfigError: if it cannot be read or is malformed; the message has file and line.
    """

    def refuse(text: str) -> None:
        raise ConfigError(f"{path} holds {text}, which is no number that JSON can hold")

    odd = odd_number or refuse

    def number(text: str) -> Any:
        return value if math.isfinite(value := float(text)) else odd(text)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ConfigError(f"{path} has the key {twice!r} twice in one object")
        return dict(pairs)

    try:
        return json.loads(
            _read(path), parse_constant=odd, parse_float=number, object_pairs_hook=unique
        )
    except ValueError as error:  # besides JSONDecodeError, an integer of too many digits
        raise ConfigError(f"{path} is no valid JSON: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is no valid JSON: nested too deeply") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start}") from error


def check_values(data: Any, source: object) -> None:
    """Refuse integers that no float can hold, and text that cannot be written or shown.

    :raises ConfigError: with file and JSON pointer.
    """
    left: list[tuple[tuple[Any, ...], Any]] = [((), data)]
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            left += (((*path, key), entry) for key, entry in value.items())
        elif isinstance(value, list):
            left += (((*path, index), entry) for index, entry in enumerate(value))
        elif isinstance(value, int) and value not in INTEGERS:
            bits = value.bit_length()
            raise ConfigError(
                f"{source}: {pointer_text(path)}: an integer of {bits} bits; 64 are the most"
            )
        if _LONE.search(f"{value if isinstance(value, str) else ''}{path[-1] if path else ''}"):
            raise ConfigError(
                f"{source}: {pointer_text(path)}: text that is no UTF-8: a lone surrogate"
            )


def pointer_text(path: Iterable[Any]) -> str:
    """Return a JSON pointer on one line, whatever the keys are."""
    parts = map(str, path)
    return "/" + "/".join(part if part.isprintable() else ascii(part)[1:-1] for part in parts)


def write_json(path: Path, data: Mapping[str, Any], *, otherwise: str = "") -> None:
    """Write *data* to *path* whole or not at all.

    :param otherwise: as of :func:`write_bytes`.
    :raises StoreError: if it cannot be written.
    """
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode(), otherwise=otherwise)


def write_bytes(path: Path, content: bytes, *, otherwise: str = "") -> None:
    """Write *content* to *path* whole or not at all, through a neighbour that is renamed.

    :param otherwise: what can be done about a disk that does not take it, beside freeing space;
        empty where the file has this one place.
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
