"""Sends requests when they are due, and reads answers as they arrive: one thread, one epoll."""

from __future__ import annotations

import gc
import resource
import select
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult

from pytest_pdserve.clients import clock
from pytest_pdserve.clients.answer import Answer
from pytest_pdserve.clients.connection import Connection
from pytest_pdserve.clients.connection import Sent

_IDLE_S = 1.0
_SPIN_S = 0.0005
"""How long before a request is due the loop stops to sleep: epoll wakes up late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What happened while the requests were sent and answered."""

    sent: tuple[Sent, ...]
    """Every request, in order of sending."""
    began_ns: int
    """When the first was due."""
    ended_ns: int
    """When the last answer had been read."""
    cpu_s: float
    """CPU time of this process meanwhile."""
    late_s: tuple[float, ...]
    """Seconds that each read had waited in the kernel; empty without the kernel's times."""
    by_kernel: float
    """Share of reads that the kernel gave the time of."""


def open_connections(url: SplitResult, number: int) -> list[Connection]:
    """Open *number* connections, so that none is opened while the clock runs.

    :raises OSError: if the server cannot be reached, or this process may not open so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number + 64:
        wanted = number + 64 if hard == resource.RLIM_INFINITY else min(number + 64, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    made: list[Connection] = []
    try:
        for _ in range(number):
            made.append(Connection(url))
    except OSError:
        for connection in made:
            connection.close()
        raise
    return made


def send(
    requests: Sequence[bytes],
    due_s: Sequence[float],
    *,
    url: SplitResult,
    connections: Sequence[Connection],
) -> Sending:
    """Send every request when it is due and a connection is free, and read all answers.

    The collector of cycles is off meanwhile: it would stop the clock's reader for milliseconds.

    :param requests: whole HTTP requests.
    :param due_s: when each is due, seconds from the start, rising.
    :param connections: open ones; their number is the most that is in flight.
    """
    gc.collect()
    gc.disable()
    try:
        return _Loop(requests, due_s, url, connections).run()
    finally:
        gc.enable()


class _Loop:
    def __init__(
        self,
        requests: Sequence[bytes],
        due_s: Sequence[float],
        url: SplitResult,
        connections: Sequence[Connection],
    ) -> None:
        self._requests, self._due_s, self._url = requests, due_s, url
        self._free = deque(connections)
        self._busy: dict[int, Connection] = {}
        self._epoll = select.epoll()
        self._next = 0
        self._sent: list[Sent] = []
        self._late_ns: list[int] = []
        self._reads = self._by_kernel = 0
        self._began = 0

    def run(self) -> Sending:
        used = time.process_time()
        self._began = clock.now_ns()
        while self._next < len(self._requests) or self._busy:
            self._send_due()
            for fd, event in self._epoll.poll(self._wait_s()):
                self._serve(self._busy[fd], event)
        ended = clock.now_ns()
        self._epoll.close()
        for connection in self._free:
            connection.close()
        return Sending(
            sent=tuple(self._sent),
            began_ns=self._began,
            ended_ns=ended,
            cpu_s=time.process_time() - used,
            late_s=tuple(late / 1e9 for late in self._late_ns),
            by_kernel=self._by_kernel / self._reads if self._reads else 0.0,
        )

    def _wait_s(self) -> float:
        """Seconds to sleep at most: until the next request is due, if a connection is free."""
        if self._next >= len(self._requests) or not self._free:
            return _IDLE_S
        due = self._due_s[self._next] - (clock.now_ns() - self._began) / 1e9
        return 0.0 if due < _SPIN_S else min(due - _SPIN_S, _IDLE_S)

    def _send_due(self) -> None:
        while self._next < len(self._requests) and self._free:
            due_ns = self._began + int(self._due_s[self._next] * 1e9)
            if due_ns > clock.now_ns():
                return
            sent = Sent(index=self._next, due_ns=due_ns, written_ns=0, answer=Answer())
            self._sent.append(sent)
            self._next += 1
            connection = self._usable(self._free.popleft(), sent)
            if connection.open:
                self._epoll.register(connection.fd, select.EPOLLIN)
                self._busy[connection.fd] = connection
                connection.write(self._requests[sent.index], sent)
                self._after(connection)
            else:
                self._free.append(connection)

    def _usable(self, connection: Connection, sent: Sent) -> Connection:
        """The connection, or a new one if the server has closed it; closed if it cannot be had."""
        if connection.usable():
            return connection
        connection.close()
        try:
            return Connection(self._url)
        except OSError as error:
            sent.written_ns = clock.now_ns()
            sent.answer.fail(f"the server cannot be reached: {error.strerror or error}")
            return connection

    def _serve(self, connection: Connection, event: int) -> None:
        if event & select.EPOLLOUT:
            connection.write_more()
        if event & ~select.EPOLLOUT:
            reads = connection.reads
            connection.read()
            if connection.reads > reads:
                self._reads += 1
                if connection.late_ns:
                    self._by_kernel += 1
                    self._late_ns.append(connection.late_ns)
        self._after(connection)

    def _after(self, connection: Connection) -> None:
        """See what a connection waits for, or free it."""
        if connection.complete:
            self._epoll.unregister(connection.fd)
            del self._busy[connection.fd]
            if not connection.open:
                connection.close()
            connection.sent = None
            self._free.append(connection)
        elif connection.unwritten:
            self._epoll.modify(connection.fd, select.EPOLLIN | select.EPOLLOUT)
        else:
            self._epoll.modify(connection.fd, select.EPOLLIN)
