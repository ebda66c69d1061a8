"""Sends requests when they are due, and reads answers as they arrive, in one thread."""

from __future__ import annotations

import gc
import resource
import select
import time
from array import array
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
"""Time before a request is due in which the loop does not sleep, as epoll wakes up late."""
_SLEPT_NS = 50_000
"""If epoll took longer, no event was ready and it slept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits after which a load ends in any case."""

    time_s: float
    """Time from the start after which requests without a complete answer fail, seconds."""
    answer_bytes: int
    """Maximum size of an answer, above which it counts as endless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """Result of sending a load."""

    sent: tuple[Sent, ...]
    """All requests, in order of sending."""
    began_ns: int
    """When the first request was due."""
    ended_ns: int
    """When the last chunk arrived."""
    cpu_s: float
    """CPU time of this process during the load."""
    late_ns: Sequence[int]
    """Time between arrival and read of each read; empty without the kernel's times."""
    by_kernel: float
    """Share of reads for which the kernel gave the time, 0 to 1."""
    step_ns: int
    """By how much the clock was set or slewed during the load."""


def open_connections(url: SplitResult, number: int) -> list[Connection]:
    """Open *number* connections before the load starts.

    :raises OSError: if the server cannot be reached, or the limit of open files is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number + 64:
        wanted = number + 64 if hard == resource.RLIM_INFINITY else min(number + 64, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    connections: list[Connection] = []
    try:
        for _ in range(number):
            connections.append(Connection(url))
    except OSError:
        for connection in connections:
            connection.close()
        raise
    return connections


def send(
    requests: Sequence[bytes],
    due_s: Sequence[float],
    *,
    url: SplitResult,
    connections: Sequence[Connection],
    bounds: Bounds,
) -> Sending:
    """Send every request when it is due and a connection is free, and read all answers.

    The garbage collector is off meanwhile: it would delay reads by milliseconds.

    :param requests: complete HTTP requests.
    :param due_s: when each is due, seconds from the start, in ascending order.
    :param connections: open ones, closed afterwards; their number limits the requests in flight.
    """
    loop = _Loop(requests, due_s, url=url, connections=connections, bounds=bounds)
    gc.collect()
    gc.disable()
    try:
        return loop.run()
    finally:
        gc.enable()
        loop.close()


class _Loop:
    def __init__(
        self,
        requests: Sequence[bytes],
        due_s: Sequence[float],
        *,
        url: SplitResult,
        connections: Sequence[Connection],
        bounds: Bounds,
    ) -> None:
        self._requests, self._due_s, self._url, self._bounds = requests, due_s, url, bounds
        self._free = deque(connections)
        self._busy: dict[int, Connection] = {}
        self._epoll = select.epoll()
        self._max_events = max(1, len(connections))
        self._next = 0
        self._sent: list[Sent] = []
        self._late_ns = array("q")
        self._reads = 0
        self._began = 0
        self._deadline = 0.0
        self._wakes, self._wake_ns = 0, 0

    def run(self) -> Sending:
        used, steady = time.process_time(), time.monotonic_ns()
        self._began = clock.now_ns()
        self._deadline = time.monotonic() + self._bounds.time_s
        self._run_until_answered()
        ended = clock.now_ns()
        last = (each.answer.chunks_ns[-1] for each in self._sent if each.answer.chunks_ns)
        return Sending(
            sent=tuple(self._sent),
            began_ns=self._began,
            ended_ns=max(last, default=ended),
            cpu_s=time.process_time() - used,
            late_ns=self._late_ns,
            by_kernel=len(self._late_ns) / self._reads if self._reads else 0.0,
            step_ns=(ended - self._began) - (time.monotonic_ns() - steady),
        )

    def close(self) -> None:
        self._epoll.close()
        for connection in (*self._free, *self._busy.values()):
            connection.close()

    def _run_until_answered(self) -> None:
        returned = self._began
        while self._next < len(self._requests) or self._busy:
            if time.monotonic() >= self._deadline:
                self._give_up()
                return
            self._send_due()
            wait_s, before, entered = self._wait_s(), returned, clock.now_ns()
            events = self._epoll.poll(wait_s, self._max_events)
            returned = clock.now_ns()
            slept = returned - entered > _SLEPT_NS
            # The event that woke this thread had not arrived before; without sleep, no event of
            # this poll had arrived at the one before.
            floor_ns = returned - self._mean_wake_ns() if slept else before
            for fd, event in events:
                connection = self._busy[fd]
                self._serve(connection, event, floor_ns)
                if slept and len(events) == 1 and connection.late_ns:
                    self._wakes += 1
                    self._wake_ns += max(0, returned - connection.at_ns)

    def _mean_wake_ns(self) -> int:
        return self._wake_ns // self._wakes if self._wakes else 0

    def _wait_s(self) -> float:
        """Return the longest sleep, seconds: until the next request is due, if one can be sent."""
        left = min(max(0.0, self._deadline - time.monotonic()), _IDLE_S)
        if self._next >= len(self._requests) or not self._free:
            return left
        due = self._due_s[self._next] - (clock.now_ns() - self._began) / 1e9
        return 0.0 if due < _SPIN_S else min(due - _SPIN_S, left)

    def _send_due(self) -> None:
        while self._next < len(self._requests) and self._free:
            due_ns = self._began + int(self._due_s[self._next] * 1e9)
            if due_ns > clock.now_ns():
                return
            connection = self._free.popleft()
            sent = self._begin(due_ns, max(due_ns, connection.free_ns))
            connection = self._usable(connection, sent)
            if connection.open:
                self._epoll.register(connection.fd, select.EPOLLIN)
                self._busy[connection.fd] = connection
                connection.write(self._requests[sent.index], sent)
                self._after(connection)
            else:
                self._free.append(connection)

    def _begin(self, due_ns: int, ready_ns: int) -> Sent:
        sent = Sent(
            index=self._next,
            due_ns=due_ns,
            ready_ns=ready_ns,
            written_ns=clock.now_ns(),
            answer=Answer(),
            max_bytes=self._bounds.answer_bytes,
        )
        self._sent.append(sent)
        self._next += 1
        return sent

    def _usable(self, connection: Connection, sent: Sent) -> Connection:
        """Return the connection, or a new one if the server has closed it.

        If that fails, the request fails, and the connection is closed.
        """
        if connection.usable():
            return connection
        connection.close()
        try:
            return Connection(self._url, connection.peer)
        except OSError as error:
            sent.answer.fail(f"the server cannot be reached: {error.strerror or error}")
            return connection

    def _serve(self, connection: Connection, event: int, floor_ns: int) -> None:
        connection.late_ns = 0
        if event & select.EPOLLOUT:
            connection.write_more()
        if event & ~select.EPOLLOUT and not connection.complete:
            reads = connection.reads
            connection.read(floor_ns)
            self._reads += connection.reads - reads
            if connection.late_ns:
                self._late_ns.append(connection.late_ns)
        self._after(connection)

    def _after(self, connection: Connection) -> None:
        """Register the events for which a connection waits, or free it."""
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

    def _give_up(self) -> None:
        """End the load at its time limit: requests without a complete answer fail."""
        limit = f"the time limit of {self._bounds.time_s:g} s"
        for connection in self._busy.values():
            connection.give_up(f"no complete answer within {limit}")
        while self._next < len(self._requests):
            due_ns = self._began + int(self._due_s[self._next] * 1e9)
            self._begin(due_ns, due_ns).answer.fail(f"not sent within {limit}")
