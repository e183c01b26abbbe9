"""How interfaces are called when nobody says."""

from __future__ import annotations

import secrets
import socket
import string
from collections.abc import Collection

LENGTH = 15
"""Bytes: the longest name that Linux takes."""
_SERVICE_LENGTH = 10
_ALPHABET = string.digits + string.ascii_letters


def generate(network_service: str, taken: Collection[str] = ()) -> str:
    """``<service, at most 10 bytes>-<random>``, 15 bytes in all; what no interface name may have is left out.

    It is none of `taken` and that of no interface in the network namespace of this process: four random letters
    alone meet again once in a hundred times with 500 wires.
    """
    kept = "".join(c for c in network_service if c.isascii() and c.isprintable() and c not in "/: ")
    begin = f"{kept[:_SERVICE_LENGTH]}-"
    while True:
        name = begin + "".join(secrets.choice(_ALPHABET) for _ in range(LENGTH - len(begin)))
        if name not in taken and not _exists(name):
            return name


def _exists(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def fault(name: str) -> str | None:
    """Why Linux would not take `name`, or None if it would."""
    if not name or name in {".", ".."}:
        return f"{name!r} is no interface name"
    if len(name.encode()) > LENGTH:
        return f"{name!r} has {len(name.encode())} bytes; an interface name has at most {LENGTH}"
    if any(c.isspace() or c in "/:" for c in name):
        return f"{name!r} has a space, a slash or a colon, which an interface name cannot have"
    return None
