"""Liveness check: a component is alive if it closes a connection on which the caller sends nothing.

This shows that its event loop runs, and nothing else: it needs no identity, makes no call and leaves no log line. A
probe is a process of its own, so only the standard library is imported.
"""

from __future__ import annotations

import contextlib
import socket


def check_alive(url: str, seconds: float) -> None:
    """Return if the component at `url` closes the connection in time. Raises OSError, or ValueError for a bad `url`."""
    with _connected(url, seconds) as sock, contextlib.suppress(ConnectionResetError):  # closed by a reset, which counts
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass


def _connected(url: str, seconds: float) -> socket.socket:
    scheme, separator, rest = url.rpartition("://")
    if scheme == "unix" or (not separator and rest.startswith("/")):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(seconds)
            sock.connect(rest)
        except BaseException:
            sock.close()
            raise
        return sock
    host, colon, port = rest.rpartition(":")
    if not colon or not port.isdigit() or scheme not in {"", "tcp"}:
        raise ValueError(f"{url!r} is not the URL of a component; write unix:///path, tcp://host:port or host:port")
    return socket.create_connection((host.strip("[]") or "localhost", int(port)), seconds)
