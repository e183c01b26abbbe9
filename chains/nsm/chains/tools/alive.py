"""Whether whoever serves at a URL is alive: it sees that a caller has nothing to say, and hangs up.

That is its event loop at work, and nothing else: no identity is needed, nothing is asked, nobody logs it. A probe is a
process of its own, so only the standard library is imported.
"""

from __future__ import annotations

import contextlib
import socket


def check_alive(url: str, seconds: float) -> None:
    """Return if who serves at `url` hangs up in time. Raises OSError, or ValueError if `url` is none."""
    with _connected(url, seconds) as sock, contextlib.suppress(ConnectionResetError):  # it hung up, if rudely
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
        raise ValueError(f"{url!r} is no URL of a component; write unix:///path, tcp://host:port or host:port")
    return socket.create_connection((host.strip("[]") or "localhost", int(port)), seconds)
