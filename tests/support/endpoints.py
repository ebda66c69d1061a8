"""An endpoint in the test's own process, which answers rightly or is wrong as a test says."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from typing import Any

MODEL = "house/model"
MIB = b"a" * 2**20
DONE = b"[DONE]"
FAULT = {"error": {"message": "engine stopped", "code": 500}}


class Asked(BaseHTTPRequestHandler):
    """One request, and what it is answered with."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.answer(self)

    def do_POST(self) -> None:
        self.server.answer(self)

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def reply(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def begin(self, kind: str) -> None:
        """Begin an answer that ends with its connection."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def event(self, data: dict[str, Any] | bytes) -> None:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.wfile.write(b"data: " + content + b"\n\n")
        self.wfile.flush()


Reply = Callable[[Asked], None]


class Server(ThreadingHTTPServer):
    """Answers each path by its reply."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, routes: dict[str, Reply], address: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 0), Asked)
        self.routes = routes
        self.over = threading.Event()
        self.left = threading.Event()
        """Set once a client that was sent :func:`trickling` is gone."""
        self.asked: list[str] = []
        self.streamed: list[bool] = []
        self.count = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def answer(self, asked: Asked) -> None:
        self.asked.append(asked.path)
        self.routes.get(asked.path, page(404, b"no such page"))(asked)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone."""


@contextlib.contextmanager
def endpoint(
    routes: dict[str, Reply] | None = None,
    *,
    address: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> Iterator[Server]:
    """Serve until the block is left.

    :param routes: replies by path, in place of those of an endpoint that is right.
    """
    right = {
        "/v1/models": models(MODEL),
        "/health": page(200, b""),
        "/v1/completions": completions(),
    }
    server = Server({**right, **(routes or {})}, address)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


def page(status: int, content: bytes, **headers: str) -> Reply:
    """Answer with that."""
    return lambda asked: asked.reply(status, content, **headers)


def listing(*entries: Any) -> Reply:
    """Answer with a list of models of these entries."""
    return page(200, json.dumps({"object": "list", "data": list(entries)}).encode())


def models(*names: str) -> Reply:
    """Answer with a list of models of these names."""
    return listing(*({"id": name} for name in names))


def redirect(path: str) -> Reply:
    """Send the client to another path, or the same."""
    return page(307, b"", Location=path)


def reset(asked: Asked) -> None:
    """Reset the connection."""
    asked.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    asked.connection.close()
    asked.close_connection = True


def silent(asked: Asked) -> None:
    """Take the request, and answer nothing."""
    asked.server.over.wait()


def dripping(asked: Asked) -> None:
    """Send a header that never ends, a byte at a time."""
    asked.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not asked.server.over.wait(0.01):
        asked.wfile.write(b"a")
        asked.wfile.flush()


def trickling(asked: Asked) -> None:
    """Send a body that never ends, a byte at a time."""
    asked.begin("text/plain")
    try:
        while not asked.server.over.wait(0.01):
            asked.wfile.write(b"a")
            asked.wfile.flush()
    except OSError:
        asked.server.left.set()


def sending(size_mib: int | None) -> Reply:
    """Answer with so many MiB of text without a line's end; None sends until nobody reads."""

    def reply(asked: Asked) -> None:
        asked.begin("text/plain")
        sent = 0
        while size_mib is None or sent < size_mib:
            asked.wfile.write(MIB)
            sent += 1

    return reply


def _words(way: str, count: int, prompt: str) -> list[str]:
    """What is generated for *prompt*."""
    alike = {"cached": " bado", "same_token": "!", "empty_text": ""}
    if way in alike:
        return [alike[way]] * count
    seed = sum(map(ord, prompt))
    words = [f" w{(seed * 31 + number) % 997}" for number in range(count)]
    return words[: count // 2] if way == "cut_text" else words


def completions(way: str = "") -> Reply:
    """Answer completions; *way* says in which way wrongly."""

    def reply(asked: Asked) -> None:
        server, body = asked.server, asked.body()
        with server.lock:
            server.count += 1
            number = server.count
            server.streamed.append(bool(body.get("stream")))
        tokens, prompt = int(body["max_tokens"]), str(body["prompt"])
        words = _words(way, tokens, prompt)
        sent = len(prompt.split()) * (5 if way == "prompt_x5" else 1)
        usage = {"prompt_tokens": sent, "completion_tokens": tokens}
        if not body.get("stream"):
            choice = {"index": 0, "text": "".join(words), "finish_reason": "length"}
            asked.reply(200, json.dumps({"choices": [choice], "usage": usage}).encode())
        elif way == "redirect loop":
            redirect(asked.path)(asked)
        elif way == "refuse_busy" and number % 2 and number > 2:
            asked.reply(503, b'{"error": {"message": "queue full"}}')
        else:
            _stream(asked, way, words, usage, late=number > 4 and number % 4 == 0)

    return reply


def _stream(asked: Asked, way: str, words: list[str], usage: dict[str, int], *, late: bool) -> None:
    asked.begin("text/event-stream")
    if way == "garbage":
        asked.wfile.write(b"\x00\xff<html>\x1b[31m\n\n" * 5)
        return
    if way == "one chunk of 10 MB":
        words = ["a" * 10_000_000]
    for number, word in enumerate(words):
        if number == len(words) // 2 and (way == "stops" or (way == "error_mid" and late)):
            if way == "error_mid":
                asked.event(FAULT)
            return
        asked.event({"choices": [{"index": 0, "text": word}]})
    if way == "error_end" and late:
        asked.event(FAULT)
    if way == "length_stop":
        asked.event({"choices": [{"index": 0, "text": "", "finish_reason": "error"}]})
    while way == "endless" and not asked.server.over.wait(0.001):
        asked.event({"choices": [{"index": 0, "text": " on"}]})
    asked.event({"choices": [], "usage": usage})
    asked.event(DONE)
