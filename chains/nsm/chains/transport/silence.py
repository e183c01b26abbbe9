"""Notices callers whose process hangs: their sockets stay open, and the kernel answers TCP's probes for them.

A caller that has sent nothing for a while gets a PING of HTTP/2, which a process that works answers (RFC 9113 6.7).
Only servers send them: those of gRPC in Go disconnect clients that send more than one in five minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Protocol

QUIET, PATIENCE = 15.0, 30.0
"""Seconds of silence before a PING, and then until the connection ends: a process may be stopped for a moment."""
LOOK = 5.0
"""Seconds between two looks at all connections."""


class Quiet(Protocol):
    """A connection that may be silent."""

    heard: float
    """When something arrived last (`time.monotonic`)."""
    pinged: float
    """When it was sent a PING last."""

    @property
    def is_held_up(self) -> bool:
        """Whether it is not read at the moment, so that nothing can arrive."""
        ...

    def ping(self) -> None:
        """Send a PING."""
        ...

    def abort(self, reason: str) -> None:
        """End it at once."""
        ...


class Silence:
    """Looks after the connections of one server."""

    def __init__(self) -> None:
        self._looked, self._since = monotonic(), monotonic()

    def look(self, connections: Iterable[Quiet]) -> None:
        """Send PINGs to those that are silent, and end those that do not answer.

        If this process itself did not run for some time, no answer could arrive: all get their time again.
        """
        now = monotonic()
        if now - self._looked > 2 * LOOK:
            self._since = now
        self._looked = now
        for connection in connections:
            if connection.is_held_up:
                continue
            if connection.pinged <= connection.heard or connection.pinged < self._since:
                if now - connection.heard >= QUIET:
                    connection.pinged = now
                    connection.ping()
            elif now - connection.pinged >= PATIENCE:
                connection.abort(f"it has not responded for {now - connection.heard:.0f} s")
