"""Whether anything changed in a namespace's links, addresses, routes or rules."""

from __future__ import annotations

import socket

_ROUTE = 0
_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV4_RULE, _IPV6_ADDRESS, _IPV6_ROUTE, _IPV6_RULE = 1, 5, 7, 8, 9, 11, 19
_GROUPS = sum(
    1 << (group - 1)
    for group in (_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV4_RULE, _IPV6_ADDRESS, _IPV6_ROUTE, _IPV6_RULE)
)
_BUFFER = 1 << 16


class Changes:
    """Made in the namespace of the calling thread.

    The kernel queues its news before a change is complete, so data that was read after the last check without news is
    still true.
    """

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _ROUTE)
        self._sock.bind((0, _GROUPS))
        self._sock.setblocking(False)

    def look(self) -> bool:
        """Whether there was a change since the last check."""
        changed = False
        while True:
            try:
                self._sock.recv(_BUFFER)
            except BlockingIOError:
                return changed
            except OSError:  # ENOBUFS: there were more than the queue holds
                pass
            changed = True

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
