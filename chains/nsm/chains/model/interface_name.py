"""How interfaces are called when nobody says."""

from __future__ import annotations

import secrets
import string

LENGTH = 15
"""Bytes: the longest name that Linux takes."""
_SERVICE_LENGTH = 10
_ALPHABET = string.digits + string.ascii_letters


def generate(network_service: str) -> str:
    """``<service, at most 10 bytes>-<random>``, 15 bytes in all; what no interface name may have is left out."""
    kept = "".join(c for c in network_service if c.isascii() and c.isprintable() and c not in "/: ")
    begin = f"{kept[:_SERVICE_LENGTH]}-"
    return begin + "".join(secrets.choice(_ALPHABET) for _ in range(LENGTH - len(begin)))


def fault(name: str) -> str | None:
    """Why Linux would not take `name`, or None if it would."""
    if not name or name in {".", ".."}:
        return f"{name!r} is no interface name"
    if len(name.encode()) > LENGTH:
        return f"{name!r} has {len(name.encode())} bytes; an interface name has at most {LENGTH}"
    if any(c.isspace() or c in "/:" for c in name):
        return f"{name!r} has a space, a slash or a colon, which an interface name cannot have"
    return None
