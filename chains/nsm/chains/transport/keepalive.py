"""Ends TCP connections whose peer is gone, and keeps those whose peer is alive but does not read.

The kernel ends a connection when its peer acknowledges nothing (`TCP_USER_TIMEOUT`), but counts the time during which
the peer's window is closed too, although that peer answers each probe. So the kernel is given a long time, and
`TCP_INFO` of each connection is checked regularly for something sent that was not acknowledged.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading

GONE_AFTER = 10.0
"""Seconds without any acknowledgement after which a peer counts as gone; the next two checks may add `2 * CHECK`."""
STALLED_AFTER = 60.0
"""Seconds for which a peer may leave data unread that waits for it."""
CHECK = 2.0
"""Seconds between checks."""
_IDLE, _INTERVAL = 5, 2
"""Seconds without traffic after which the kernel sends a probe, and between those that are not answered."""
_SLACK = 1.0
"""Seconds: what was sent so much later than the last acknowledgement arrived should have been acknowledged."""

_INFO = struct.Struct("=24xI16xI4xII84xI")
"""Of `struct tcp_info` (linux/tcp.h): unacknowledged segments, milliseconds since data was last sent, since data and
since an acknowledgement was last received, and bytes that were not sent yet."""


def set_timeouts(sock: socket.socket) -> None:
    """Have the kernel probe the peer of an idle connection, and leave the end to `Keepalive`, for a time."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * STALLED_AFTER))


def is_silent(sock: socket.socket, seconds: float) -> bool:
    """Whether nothing has come from the peer for `seconds`, although it should have answered.

    That also holds for the moment between a segment and its acknowledgement; a peer that is silent twice in a row is
    gone. One whose window is closed is not silent: it acknowledges probes, which are rare.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError:  # it is closed already
        return False
    unacknowledged, since_sent, since_data, since_acknowledged, unsent = _INFO.unpack(info)
    since_received = min(since_data, since_acknowledged)
    if since_received < 1000 * seconds:
        return False
    if unacknowledged:
        return bool(since_sent + 1000 * _SLACK < since_received)
    return not unsent


class Keepalive:
    """The TCP connections of one event loop, and one timer for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._connections: dict[asyncio.Transport, socket.socket] = {}
        self._silent: set[asyncio.Transport] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, transport: asyncio.Transport) -> None:
        """Abort this connection when its peer is gone."""
        sock = transport.get_extra_info("socket")
        set_timeouts(sock)
        self._connections[transport] = sock
        if self._timer is None:
            self._timer = self.loop.call_later(CHECK, self._check)

    def discard(self, transport: asyncio.Transport) -> None:
        """The connection ended."""
        self._connections.pop(transport, None)
        self._silent.discard(transport)
        if not self._connections and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        silent = {transport for transport, sock in self._connections.items() if is_silent(sock, GONE_AFTER)}
        gone, self._silent = silent & self._silent, silent
        self._timer = self.loop.call_later(CHECK, self._check)
        for transport in gone:
            transport.abort()


def keepalive() -> Keepalive:
    """That of the running loop."""
    loop = asyncio.get_running_loop()
    if getattr(_thread, "keepalive", None) is None or _thread.keepalive.loop is not loop:
        _thread.keepalive = Keepalive(loop)
    found: Keepalive = _thread.keepalive
    return found


_thread = threading.local()
