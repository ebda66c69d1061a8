"""A connection that is opened before the load starts, and carries one request after another."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult

import httptools

from pytest_pdserve.clients import clock
from pytest_pdserve.clients.answer import Answer

_CONNECT_S = 30.0
_RECONNECT_S = 5.0
_INTERIM = range(100, 200)
Peer = tuple[int, Any]
"""Address family and address of a server."""


@dataclass(slots=True, kw_only=True)
class Sent:
    """One request that was sent, and its answer."""

    index: int
    """Position among all requests."""
    due_ns: int
    """When it was due."""
    ready_ns: int
    """When it could be written: it was due, and a connection was free."""
    written_ns: int
    """When it was written."""
    answer: Answer
    max_bytes: int
    """Maximum size of the answer, above which it counts as endless."""


class Connection:
    """A non-blocking connection; the server answers one request at a time on it."""

    def __init__(self, url: SplitResult, peer: Peer | None = None) -> None:
        """Connect; if the server's address is given, without waiting for the connection.

        :param peer: address of the server, from an earlier connection. With TLS, this waits for
            the handshake even so.
        :raises OSError: if the server cannot be reached.
        """
        secure = url.scheme == "https"
        begins = peer is not None and not secure
        plain = _begin(peer) if begins and peer else _connect(url, again=peer is not None)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer: Peer = peer or (plain.family, plain.getpeername())
        self.stamped = not secure and clock.enable_timestamps(plain)
        self.socket = plain
        if secure:
            context = ssl.create_default_context()
            self.socket = context.wrap_socket(plain, server_hostname=url.hostname)
        self.socket.setblocking(False)
        self.fd = self.socket.fileno()
        self.sent: Sent | None = None
        """The current request; None if the connection is free."""
        self.unwritten = b""
        """The part of the request that is not sent yet."""
        self.complete = True
        """True if the answer has ended."""
        self.open = True
        self.free_ns = 0
        """When the end of the last answer arrived."""
        self.late_ns = 0
        """Time between arrival and read of the last bytes; 0 if the kernel gives no times."""
        self.at_ns = 0
        """Arrival of the last bytes."""
        self.reads = 0
        self._unsent = False
        """True if no byte of the request has been sent yet."""
        self._answer_bytes = 0
        self._parser = httptools.HttpResponseParser(self)

    def usable(self) -> bool:
        """Return whether the server has neither closed the idle connection nor sent anything."""
        return self.open and (isinstance(self.socket, ssl.SSLSocket) or self._silent())

    def _silent(self) -> bool:
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def write(self, request: bytes, sent: Sent) -> None:
        """Send a request; its time starts when the kernel accepts the first bytes."""
        self.sent, self.complete, self.unwritten = sent, False, request
        self._unsent, self._answer_bytes = True, 0
        self.write_more()

    def write_more(self) -> None:
        """Send as many bytes as the kernel accepts."""
        if self._unsent and self.sent is not None:
            self.sent.written_ns = clock.now_ns()
        try:
            count = self.socket.send(self.unwritten)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return
        except OSError as error:
            what = "the server cannot be reached" if self._unsent else "the request cannot be sent"
            self._break(f"{what}: {error.strerror or error}")
            return
        self._unsent = False
        self.unwritten = self.unwritten[count:]

    def read(self, floor_ns: int) -> None:
        """Read and parse the bytes that have arrived.

        :param floor_ns: a time at which none of them had arrived yet.
        """
        try:
            data, stamp_ns = self._receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            self._break(f"the connection broke: {error.strerror or error}")
            return
        now = clock.now_ns()
        self.reads += 1
        self.late_ns = now - stamp_ns if stamp_ns else 0
        self.at_ns = stamp_ns or now
        if not data:
            self._closed()
            return
        before = len(self.sent.answer.chunks_ns) if self.sent is not None else 0
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(f"not an HTTP response: {str(error) or type(error).__name__}")
        self._limit_size(len(data))
        self._note_uncertain(before, floor_ns, by_kernel=stamp_ns > 0)

    def _receive(self) -> tuple[bytes, int]:
        if self.stamped:
            return clock.receive(self.socket)
        return self.socket.recv(clock.READ_BYTES), 0

    def _limit_size(self, more: int) -> None:
        """End an answer that exceeds its maximum size."""
        self._answer_bytes += more
        if self.sent is not None and self._answer_bytes > self.sent.max_bytes:
            limit = self.sent.max_bytes
            self._break(f"the answer exceeds {limit} bytes, the maximum for its tokens")

    def _note_uncertain(self, before: int, floor_ns: int, *, by_kernel: bool) -> None:
        """Store which chunks of this read may have arrived earlier than its time.

        The kernel gives the time of the last packet of a read; without it no time is certain.
        """
        if self.sent is None:
            return
        answer = self.sent.answer
        uncertain = len(answer.chunks_ns) - before - by_kernel
        if uncertain > 0 and self.at_ns > floor_ns:
            answer.uncertain.append((before, uncertain, self.at_ns - floor_ns))

    def _closed(self) -> None:
        """Handle that the server closed: the end of an answer without a length, or an error."""
        if self.sent is not None and self.sent.answer.done and not self.complete:
            self.open = False
            self._end()
        else:
            self._break("the server closed the connection before the answer was complete")

    def _break(self, why: str) -> None:
        self.open = False
        if self.sent is not None and not self.complete:
            answer = self.sent.answer
            if answer.status == 200:
                answer.fail(f"{why}, after {len(answer.chunks_ns)} chunks")
            self._end()

    def give_up(self, why: str) -> None:
        """Close the connection; a request without a complete answer fails."""
        self._break(why)
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.open = False
        with contextlib.suppress(OSError):
            self.socket.close()

    def _end(self) -> None:
        if self.sent is not None and not self.complete:
            self.sent.answer.end()
        self.complete, self.free_ns = True, self.at_ns

    # Callbacks of httptools.

    def on_message_begin(self) -> None:
        """Handle the begin of an answer; without a request, the connection becomes useless."""
        if self.complete:
            self.open = False

    def on_headers_complete(self) -> None:
        """Store the status."""
        if self.sent is not None and not self.complete:
            self.sent.answer.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body to the answer."""
        if self.sent is not None and not self.complete:
            self.sent.answer.feed(body, self.at_ns)

    def on_message_complete(self) -> None:
        """Handle the end of an answer, which may be an interim one (``100 Continue``)."""
        if self.sent is not None and self.sent.answer.status in _INTERIM:
            return
        self._end()
        if not self._parser.should_keep_alive():
            self.open = False


def _connect(url: SplitResult, *, again: bool) -> socket.socket:
    port = url.port or (443 if url.scheme == "https" else 80)
    wait_s = _RECONNECT_S if again else _CONNECT_S
    return socket.create_connection((url.hostname or "", port), timeout=wait_s)


def _begin(peer: Peer) -> socket.socket:
    """Start to connect; the kernel continues while other answers are read."""
    family, address = peer
    plain = socket.socket(family)
    plain.setblocking(False)
    code = plain.connect_ex(address)
    if code not in (0, errno.EINPROGRESS):
        plain.close()
        raise OSError(code, os.strerror(code))
    return plain
