"""Secrets of this process's environment, taken out of what is written and of servers' logs."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path

from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.secrets import Redactor

_MAX_LINES = 1000
"""Lines that are looked at together: a private key has several."""


_COMPRESSED = ".parquet"
"""No text; what it holds was redacted before."""
_passed: set[str] = set()
"""Names of variables that a system passes through. Like the environment that they stand in, they
are the process's own."""


def keep_secret(names: Iterable[str]) -> None:
    """Treat variables of this process as secrets from now on, whatever they are called."""
    _passed.update(names)


def environment_redactor() -> Redactor:
    """Return what redacts the secrets of this process's environment.

    These are all variables with the name of a secret, and all that were passed through.
    """
    return Redactor.of(os.environ, _passed)


def redact_file(path: Path) -> None:
    """Take secrets out of a text file that its writer has closed, and leave others as they are.

    :raises StoreError: if it holds a secret and cannot be written.
    """
    redactor = environment_redactor()
    try:
        if all(redactor.text(part) == part for part in _parts(path)):
            return
    except OSError:  # not there, or not readable: then nobody reads a secret in it either
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.writelines(map(redactor.text, _parts(path)))
        shutil.copymode(path, partial)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreError(
            f"{path} holds a secret that cannot be taken out: {error.strerror}; remove the file"
        ) from error


@contextlib.contextmanager
def redacting_files(folder: Path) -> Iterator[None]:
    """On leaving, take secrets out of every file below *folder*, whoever wrote it.

    Logs are redacted as soon as their processes are ended one by one; what is ended with its
    session, as after a signal, is left.

    :raises StoreError: if one holds a secret and cannot be written.
    """
    try:
        yield
    finally:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != _COMPRESSED:
                redact_file(path)


def _parts(path: Path) -> Iterator[str]:
    """Yield a file's text, many lines at a time."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        part: list[str] = []
        for line in file:
            part.append(line)
            if len(part) == _MAX_LINES:
                yield "".join(part)
                part = []
        yield "".join(part)
