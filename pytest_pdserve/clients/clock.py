"""Arrival times of bytes: the kernel's receive time, or else the time at which they were read.

A busy program reads late. The kernel stamps each packet when it arrives (``SO_TIMESTAMPING``,
software receive time), so a late read does not make a server look slow.
"""

from __future__ import annotations

import socket
import struct
import time

_SO_TIMESTAMPING = 37
_RX_SOFTWARE, _SOFTWARE = 1 << 3, 1 << 4
_TIMES = struct.Struct("qqqqqq")
"""``struct scm_timestamping``: three times of two 64-bit numbers; the first is software time."""
_ANCILLARY = socket.CMSG_SPACE(_TIMES.size)
READ_BYTES = 1 << 16


def now_ns() -> int:
    """Return the time, ns, on the clock with which the kernel stamps packets."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def enable_timestamps(connection: socket.socket) -> bool:
    """Make the kernel stamp the packets of *connection*; return whether it can."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _RX_SOFTWARE | _SOFTWARE)
    except OSError:
        return False
    return True


def receive(connection: socket.socket) -> tuple[bytes, int]:
    """Return the bytes that have arrived, and the kernel's time of the last packet, ns.

    The time is 0 if the kernel gives none.

    :raises BlockingIOError: if nothing has arrived.
    :raises OSError: if the connection is broken.
    """
    data, ancillary, _, _ = connection.recvmsg(READ_BYTES, _ANCILLARY)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPING and len(content) >= _TIMES.size:
            seconds, nanoseconds, *_ = _TIMES.unpack_from(content)
            return data, seconds * 1_000_000_000 + nanoseconds
    return data, 0
