"""A package index on loopback with wheels that hold nothing but metadata."""

from __future__ import annotations

import contextlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from typing import Any


class PackageIndex(ThreadingHTTPServer):
    """The simple API (PEP 503) for the releases that a test adds."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.wheels: dict[str, dict[str, bytes]] = {}
        self.yanked: set[str] = set()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple"

    def add(self, name: str, *versions: str, requires: str = "", yanked: bool = False) -> None:
        """Release versions of a distribution."""
        for version in versions:
            file, content = _wheel(name, version, requires)
            self.wheels.setdefault(name, {})[file] = content
            self.yanked |= {file} if yanked else set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PackageIndex

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        index = self.server
        index.asked.append(self.path)
        parts = [part for part in self.path.split("/") if part]
        if len(parts) == 2 and parts[1] in index.wheels:
            lines = [_link(index, file) for file in index.wheels[parts[1]]]
            self._reply(200, "\n".join(lines).encode(), "text/html")
        elif parts[0] == "files" and (content := _find(index, parts[1])):
            self._reply(200, content, "application/octet-stream")
        else:
            self._reply(404, b"not found", "text/plain")

    def do_HEAD(self) -> None:
        self._reply(404, b"", "text/plain")

    def _reply(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _link(index: PackageIndex, file: str) -> str:
    yanked = ' data-yanked="broken"' if file in index.yanked else ""
    return f'<a href="/files/{file}"{yanked}>{file}</a><br>'


def _find(index: PackageIndex, file: str) -> bytes | None:
    return next((own[file] for own in index.wheels.values() if file in own), None)


def _wheel(name: str, version: str, requires: str) -> tuple[str, bytes]:
    """Return name and content of a wheel."""
    stem = f"{name.replace('-', '_')}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requires}"] if requires else []
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        folder = f"{stem}.dist-info"
        wheel.writestr(f"{folder}/METADATA", "\n".join(lines) + "\n")
        wheel.writestr(
            f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{folder}/RECORD", "")
    return f"{stem}-py3-none-any.whl", content.getvalue()


@contextlib.contextmanager
def package_index() -> Iterator[PackageIndex]:
    """Serve until the block is left."""
    server = PackageIndex()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
