"""The privileges of this user without a user namespace, which a component on a real node needs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from .model import Finding, ok, warning

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
_DNS = ("127.53.53.53", 53)
"""A loopback address on which presumably nothing listens; the port is what matters."""


def capabilities() -> Iterator[Finding]:
    """The privileges that a forwarder needs, and those of a client that resolves names."""
    held = _effective()
    lacking = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if lacking:
        hint = (
            "not needed by the local mesh; for a forwarder, run as root or with setpriv, systemd's AmbientCapabilities="
        )
        yield warning("forwarder", f"cannot run a forwarder on a real node: {', '.join(lacking)} missing", hint)
    else:
        yield ok("forwarder", f"a forwarder may create wires: {', '.join(_CAPABILITIES)}")
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
        hint = "give the client CAP_NET_BIND_SERVICE; not needed by the local mesh"
        return warning("dns-port", f"a client cannot serve DNS on port 53 ({os.strerror(error.errno or 0)})", hint)
    except OSError:  # in use, so binding is permitted
        pass
    return ok("dns-port", "a client may serve DNS on port 53")
