"""The node's side of an image in a tarball: its names and ids, and the archive, unpacked.

For any Python from 3.9 on, with the standard library alone: ``image.py`` imports it from its own
folder on a node.
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
"""Bytes that are read at once."""
GIB = 1 << 30


class Trouble(Exception):
    """Raised when the image cannot be made present; the message is for people."""


class Tarball:
    """What ``docker save`` wrote, compressed or not."""

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
        """How much of it has been read."""
        return f"{self.read / GIB:.1f} of {self.size / GIB:.1f} GiB read"

    @contextlib.contextmanager
    def unpacked(self) -> Iterator[subprocess.Popen[bytes]]:
        """A process whose standard output is the archive, fed from here so that reading shows."""
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
        """Names of its images, and the ids that an engine may give them.

        Both lie in ``manifest.json`` and ``index.json``, which ``docker save`` puts behind the
        layers; reading stops once both are seen, or at the end. The id is the digest of the
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
    """A process that does not outlive the block."""
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
