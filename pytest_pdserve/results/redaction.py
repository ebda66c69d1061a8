"""Remove the secrets of this process's environment from written files and server logs."""

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
"""Lines that are searched together: a private key spans several."""


_COMPRESSED = ".parquet"
"""Not text; its content was redacted before it was written."""
_passed: set[str] = set()
"""Names of variables that a system passes through. Global, as the environment is."""


def keep_secret(names: Iterable[str]) -> None:
    """Treat variables of this process as secrets from now on, whatever their names."""
    _passed.update(names)


def environment_redactor() -> Redactor:
    """Return a redactor of the secrets in this process's environment.

    Secrets are all variables with the name of a secret, and all that were passed through.
    """
    return Redactor.of(os.environ, _passed)


def redact_file(path: Path) -> None:
    """Remove secrets from a text file that its writer has closed; leave other files unchanged.

    :raises StoreError: if it holds a secret and cannot be written.
    """
    redactor = environment_redactor()
    try:
        if all(redactor.text(part) == part for part in _parts(path)):
            return
    except OSError:  # missing or unreadable: it exposes no secret
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
            f"{path} contains a secret that cannot be removed: {error.strerror}; remove the file"
        ) from error


@contextlib.contextmanager
def redacting_files(folder: Path) -> Iterator[None]:
    """Remove secrets from every file below *folder* when the context ends.

    Logs are redacted when their process is stopped. This covers the logs of processes that end with
    their session, e.g. after a signal.

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
