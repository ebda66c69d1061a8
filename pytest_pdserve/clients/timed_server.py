"""A server of completions that sends chunks on a schedule, and reports when it sent them.

    python timed_server.py PORT FIRST_MS GAP_MS TOKENS

Works like ``timed_server.c``, with asyncio and the standard library only: for machines without a
compiler, and to check the compiled one. Every POST is answered with TOKENS chunks, of chat if its
path is that of chat: the first FIRST_MS after the complete request was read, each later one GAP_MS
after the previous one. ``GET /truth`` returns one line per request: arrival, first chunk, last
chunk (ns, CLOCK_REALTIME) and number of chunks; and deletes them. It listens on loopback only. A
busy server sends late, and its times show that; with more than about 100 streams it uses as much
CPU time as a client.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_WORD = (
    b'data: {"id":"cmpl-1","object":"text_completion","model":"timed",'
    b'"choices":[{"index":0,"text":" word","finish_reason":%s}]}\n\n'
)
_CHAT_WORD = (
    b'data: {"id":"cmpl-1","object":"chat.completion.chunk","model":"timed",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":%s}]}\n\n'
)
_USAGE = (
    b'data: {"id":"cmpl-1","object":"text_completion","model":"timed","choices":[],'
    b'"usage":{"completion_tokens":%d}}\n\ndata: [DONE]\n\n'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When the chunks of an answer are due."""

    first_s: float
    gap_s: float
    tokens: int


@dataclass(slots=True, kw_only=True)
class Truth:
    """The real times of one request and its chunks, ns."""

    arrival: int
    word: bytes
    """Format of a chunk, of completions or of chat."""
    first: int = 0
    last: int = 0
    chunks: int = 0


def http_chunk(content: bytes) -> bytes:
    """Return *content* as one part of a chunked HTTP body."""
    return b"%x\r\n%s\r\n" % (len(content), content)


class TimedConnection(asyncio.Protocol):
    """One connection of the server."""

    def __init__(self, schedule: Schedule, truths: list[Truth]) -> None:
        self._schedule, self._truths = schedule, truths
        self._loop = asyncio.get_running_loop()
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Stop sending."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer every complete request."""
        arrival, due = time.time_ns(), self._loop.time() + self._schedule.first_s
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            whole = end + 4 + _content_length(head)
            if len(self._data) < whole:
                return
            self._data = self._data[whole:]
            if head.startswith(b"GET "):
                self._send_truths(head.startswith(b"GET /truth"))
                continue
            chat = b"/chat/" in head.partition(b"\r\n")[0]
            truth = Truth(arrival=arrival, word=_CHAT_WORD if chat else _WORD)
            self._truths.append(truth)
            self._loop.call_at(due, self._send, truth, due)

    def _send_truths(self, truth: bool) -> None:
        """Answer a GET: with the times if *truth*, else with an empty body."""
        lines = [f"{t.arrival} {t.first} {t.last} {t.chunks}\n" for t in self._truths if truth]
        body = "".join(lines).encode()
        if truth:
            self._truths.clear()
        if self._transport is not None:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            self._transport.write(body)

    def _send(self, truth: Truth, due: float) -> None:
        """Send the chunk that is due, and schedule the next one."""
        if self._transport is None:
            return
        tokens = self._schedule.tokens
        truth.chunks += 1
        last = truth.chunks == tokens
        content = http_chunk(truth.word % (b'"length"' if last else b"null"))
        if last:
            content += http_chunk(_USAGE % tokens) + b"0\r\n\r\n"
        truth.last = time.time_ns()
        truth.first = truth.first or truth.last
        self._transport.write(HEAD + content if truth.chunks == 1 else content)
        if not last:
            due += self._schedule.gap_s
            self._loop.call_at(due, self._send, truth, due)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def serve(port: int, schedule: Schedule) -> None:
    """Serve on loopback until cancelled."""
    truths: list[Truth] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: TimedConnection(schedule, truths), "127.0.0.1", port, backlog=8192
    )
    async with server:
        await server.serve_forever()


def main(argv: list[str]) -> int:
    """Serve until this process gets a signal."""
    if len(argv) != 4:
        sys.stderr.write("usage: timed_server.py PORT FIRST_MS GAP_MS TOKENS\n")
        return 2
    schedule = Schedule(
        first_s=float(argv[1]) / 1e3, gap_s=float(argv[2]) / 1e3, tokens=int(argv[3])
    )
    asyncio.run(serve(int(argv[0]), schedule))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
