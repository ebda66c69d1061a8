"""Read regular files of limited size, as UTF-8 text."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pytest_pdserve.values.errors import ConfigError

_KINDS = {
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
_MARK = b"\xef\xbb\xbf"


def is_there(path: Path) -> bool:
    """Tell whether *path* has an entry, even one that cannot be read.

    A broken link, a loop of links and a folder without permission count: reading the file then
    reports what is wrong with it. ``Path.exists`` would return False.
    """
    try:
        os.lstat(path)
    except ValueError:  # a null character
        return False
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    return True


def read_text(path: Path, max_mib: int) -> str:
    """Read a regular file as UTF-8 text.

    :raises ConfigError: as :func:`read_bytes`, and if it is not UTF-8 or has a byte order mark.
    """
    return decode(read_bytes(path, max_mib), path)


def decode(data: bytes, path: Path) -> str:
    """Return the content of a file as text.

    :raises ConfigError: if it is not UTF-8, or has a byte order mark.
    """
    if data.startswith(_MARK):
        raise ConfigError(f"{path} begins with a byte order mark: save it as UTF-8 without one")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start}") from error


def read_bytes(path: Path, max_mib: int) -> bytes:
    """Read a regular file; never wait for a pipe or a device.

    :raises ConfigError: if it is not a regular file, cannot be read, or has more than *max_mib*.
    """
    max_bytes = max_mib * 2**20
    try:
        _check_regular(os.stat(path), path)
        # A pipe that took the file's place since is opened without waiting for its other end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            _check_regular(status, path)
            data = file.read(max_bytes + 1) if status.st_size <= max_bytes else None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
    except ValueError as error:  # a null character in the name
        raise ConfigError(f"{str(path)!r} cannot be read: {os.strerror(errno.EINVAL)}") from error
    if data is None or len(data) > max_bytes:
        size = "more" if data is not None else f"{status.st_size / 2**20:.1f} MiB"
        raise ConfigError(f"{path} has {size}: expected at most {max_mib} MiB")
    return data


def _check_regular(status: os.stat_result, path: Path) -> None:
    for is_kind, kind in _KINDS.items():
        if is_kind(status.st_mode):
            raise ConfigError(f"{path} is {kind}: expected a file")
