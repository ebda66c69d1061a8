"""When bytes arrived: the kernel's own time of a receive, or else this program's.

A busy program reads late. The kernel stamps each packet when it comes in (``SO_TIMESTAMPING``,
software receive time), so a late reader does not make a server late.
"""

from __future__ import annotations

import socket
import struct
import time

_SO_TIMESTAMPING = 37
_RX_SOFTWARE, _SOFTWARE = 1 << 3, 1 << 4
_TIMES = struct.Struct("qqqqqq")
"""``struct scm_timestamping``: three times of two 64-bit numbers; the first is the software one."""
_ANCILLARY = socket.CMSG_SPACE(_TIMES.size)
READ_BYTES = 1 << 16


def now_ns() -> int:
    """Nanoseconds of the clock that the kernel stamps packets with."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def ask_for_times(connection: socket.socket) -> bool:
    """Have the kernel stamp what *connection* receives; tell whether it can."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _RX_SOFTWARE | _SOFTWARE)
    except OSError:
        return False
    return True


def receive(connection: socket.socket) -> tuple[bytes, int]:
    """Read what has arrived, and the kernel's time of the last of it, ns; 0 if it gives none.

    :raises BlockingIOError: if nothing has.
    :raises OSError: if the connection is broken.
    """
    data, ancillary, _, _ = connection.recvmsg(READ_BYTES, _ANCILLARY)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPING and len(content) >= _TIMES.size:
            seconds, nanoseconds, *_ = _TIMES.unpack_from(content)
            return data, seconds * 1_000_000_000 + nanoseconds
    return data, 0
