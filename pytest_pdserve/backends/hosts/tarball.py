"""Reads an image in a tarball: its names and ids, and the decompressed archive.

``image.py`` imports it on nodes, from its own folder; so it supports Python 3.9 and imports the
standard library only.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from typing import Any

CHUNK = 4 << 20
"""Bytes per read."""
GIB = 1 << 30


class Trouble(Exception):
    """Raised when the image cannot be loaded or pulled; the message is shown to the user."""


class Tarball:
    """A file written by ``docker save``, compressed or not."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb"):
                status = self.path.stat()
        except OSError as error:
            raise Trouble(f"image {path} cannot be read: {error.strerror}") from error
        self.size = status.st_size
        self.stamp = [status.st_size, status.st_mtime_ns]
        self.read = 0

    @property
    def progress(self) -> str:
        """How much has been read, as text."""
        return f"{self.read / GIB:.1f} of {self.size / GIB:.1f} GiB read"

    @contextlib.contextmanager
    def unpacked(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start a process whose standard output is the decompressed archive.

        A thread here writes its input, so that :attr:`progress` counts what was read.
        """
        argv = ["cat"] if self.path.suffix == ".tar" else _decompressor()
        self.read = 0
        pipe, silence = subprocess.PIPE, subprocess.DEVNULL
        with child(argv, stdin=pipe, stdout=pipe, stderr=silence) as process:
            feeder = threading.Thread(target=self._feed, args=(process.stdin,), daemon=True)
            feeder.start()
            yield process

    def _feed(self, sink: IO[bytes]) -> None:
        with contextlib.suppress(OSError), self.path.open("rb") as file, sink:
            while chunk := file.read(CHUNK):
                sink.write(chunk)
                self.read += len(chunk)

    def contents(self) -> tuple[list[str], set[str]]:
        """Return the names of the images, and the ids that an engine may give them.

        Both are in ``manifest.json`` and ``index.json``, which ``docker save`` writes after the
        layers; reading stops once both are found, or at the end. The id is the digest of the
        configuration, or with the containerd image store that of the manifest.
        """
        found: dict[str, Any] = {}
        try:
            with self.unpacked() as process:
                with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                    for member in archive:
                        if member.name in ("manifest.json", "index.json"):
                            file = archive.extractfile(member)
                            found[member.name] = json.load(file) if file else None
                        if len(found) == 2:
                            break
            entries = found["manifest.json"]
            names = sorted({name for entry in entries for name in entry["RepoTags"] or ()})
            configs = [entry["Config"] for entry in entries]
        except (tarfile.TarError, ValueError, KeyError, TypeError, EOFError) as error:
            raise Trouble(f"{self.path} is not what docker save writes: {error!r}") from error
        digests = [Path(config).name.partition(".")[0] for config in configs]
        described = (found.get("index.json") or {}).get("manifests", ())
        ids = {f"sha256:{digest}" for digest in digests}
        return names, ids | {str(entry.get("digest")) for entry in described}


@contextlib.contextmanager
def child(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that is killed when the block ends."""
    process = subprocess.Popen(argv, **{"stdin": subprocess.DEVNULL, **options})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _decompressor() -> list[str]:
    for name in ("pigz", "gzip"):
        if shutil.which(name):
            return [name, "-dc"]
    raise Trouble("neither pigz nor gzip is on PATH; install one")
