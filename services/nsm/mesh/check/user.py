"""What this user may do as it is, without a user namespace: what a component on a real node needs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from .model import Finding, ok, warning

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
_DNS = ("127.53.53.53", 53)
"""An address of loopback that nobody else listens on, hopefully; the port is what matters."""


def capabilities() -> Iterator[Finding]:
    """What a forwarder needs, and what a client that resolves names needs."""
    held = _effective()
    lacking = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if lacking:
        hint = (
            "the local mesh does without; for a forwarder, run as root or with setpriv, systemd's AmbientCapabilities="
        )
        yield warning("forwarder", f"no forwarder of a real node: {', '.join(lacking)} missing", hint)
    else:
        yield ok("forwarder", f"a forwarder may make wires: {', '.join(_CAPABILITIES)}")
    yield _port()


def _effective() -> int:
    """The bits of the effective capabilities."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _port() -> Finding:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(_DNS)
    except PermissionError as error:
        hint = "give the client CAP_NET_BIND_SERVICE; the local mesh does without"
        return warning("dns-port", f"a client cannot answer names on port 53 ({os.strerror(error.errno or 0)})", hint)
    except OSError:  # taken: then it may be
        pass
    return ok("dns-port", "a client may answer names on port 53")
