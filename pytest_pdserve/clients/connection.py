"""A connection that is open before the clock starts, and carries one request after the other."""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import SplitResult

import httptools

from pytest_pdserve.clients import clock
from pytest_pdserve.clients.answer import Answer

_CONNECT_S = 30.0


@dataclass(slots=True, kw_only=True)
class Sent:
    """One request on its way."""

    index: int
    """Place among all requests."""
    due_ns: int
    """When it should have been written."""
    written_ns: int
    """When it was."""
    answer: Answer


class Connection:
    """A non-blocking connection; the server answers one request at a time on it."""

    def __init__(self, url: SplitResult) -> None:
        """Connect.

        :raises OSError: if the server cannot be reached.
        """
        port = url.port or (443 if url.scheme == "https" else 80)
        plain = socket.create_connection((url.hostname or "", port), timeout=_CONNECT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stamped = url.scheme != "https" and clock.ask_for_times(plain)
        self.socket = plain
        if url.scheme == "https":
            context = ssl.create_default_context()
            self.socket = context.wrap_socket(plain, server_hostname=url.hostname)
        self.socket.setblocking(False)
        self.fd = self.socket.fileno()
        self.sent: Sent | None = None
        """The request that is being answered."""
        self.unwritten = b""
        """What the kernel has not taken yet of it."""
        self.complete = False
        """Whether its answer has ended."""
        self.open = True
        self.late_ns = 0
        """How long what was read last had waited to be read; 0 if the kernel gives no times."""
        self.by_kernel = 0
        """Reads that the kernel gave the time of."""
        self.reads = 0
        self._now = 0
        self._parser = httptools.HttpResponseParser(self)

    def usable(self) -> bool:
        """Whether the server has not closed it while it was idle."""
        return self.open and (isinstance(self.socket, ssl.SSLSocket) or self._silent())

    def _silent(self) -> bool:
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def write(self, request: bytes, sent: Sent) -> None:
        """Send a request; its clock starts here."""
        self.sent, self.complete, self.unwritten = sent, False, request
        sent.written_ns = clock.now_ns()
        self.write_more()

    def write_more(self) -> None:
        """Give the kernel what it takes."""
        try:
            count = self.socket.send(self.unwritten)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._break(f"cannot be sent: {error.strerror or error}")
            return
        self.unwritten = self.unwritten[count:]

    def read(self) -> None:
        """Take what has arrived."""
        try:
            data, at_ns = self._receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            self._break(f"the connection broke: {error.strerror or error}")
            return
        now = clock.now_ns()
        self.reads += 1
        self.by_kernel += at_ns > 0
        self.late_ns = now - at_ns if at_ns else 0
        self._now = at_ns or now
        if not data:
            self._break("the server closed the connection before the answer was complete")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._break(f"no HTTP: {error}")

    def _receive(self) -> tuple[bytes, int]:
        if self.stamped:
            return clock.receive(self.socket)
        return self.socket.recv(clock.READ_BYTES), 0

    def _break(self, why: str) -> None:
        self.open = False
        if self.sent is not None and not self.complete:
            chunks = len(self.sent.answer.chunks_ns)
            self.sent.answer.fail(f"{why}, after {chunks} chunks")
            self.complete = True

    def close(self) -> None:
        """Close it."""
        self.open = False
        with contextlib.suppress(OSError):
            self.socket.close()

    # What httptools calls.

    def on_headers_complete(self) -> None:
        """Take the status."""
        if self.sent is not None:
            self.sent.answer.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if self.sent is not None:
            self.sent.answer.feed(body, self._now)

    def on_message_complete(self) -> None:
        """The answer has ended."""
        if self.sent is not None:
            self.sent.answer.end()
        self.complete = True
        if not self._parser.should_keep_alive():
            self.open = False
