"""Interface names: generated ones, and rules for given ones."""

from __future__ import annotations

import secrets
import socket
import string
from collections.abc import Collection

LENGTH = 15
"""The longest name that Linux accepts, in bytes."""
_SERVICE_LENGTH = 10
_NO_NAMES = frozenset({".", "..", "all", "default"})
_OF_THE_KERNEL = frozenset(
    (
        "lo",
        "tunl0",
        "sit0",
        "ip6tnl0",
        "gre0",
        "gretap0",
        "erspan0",
        "ip6gre0",
        "ip_vti0",
        "ip6_vti0",
        "bonding_masters",
    )
)
"""Loopback; what tunnel modules create in each network namespace (sysctl net.core.fb_tunnels_only_for_init_net);
and a file of the bonding module among the interfaces in sysfs."""
_FORBIDDEN = frozenset("/:% ")
_SHOWN = 64
_ALPHABET = string.digits + string.ascii_letters


def generate(network_service: str, taken: Collection[str] = ()) -> str:
    """``<service, at most 10 bytes>-<random>``, 15 bytes in all; characters that are not allowed are left out.

    It differs from `taken` and from every interface in the network namespace of this process: four random letters
    alone collide once in a hundred times with 500 wires.
    """
    kept = "".join(c for c in network_service if c.isascii() and c.isprintable() and c not in _FORBIDDEN)
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
    """Why Linux would reject `name`, with the beginning of the name; None if it would accept it."""
    wrong = reason(name)
    return None if wrong is None else f"{name[:_SHOWN]!r} {wrong}"


def reason(name: str) -> str | None:
    """Why Linux would reject `name`, without repeating it; None if it would accept it.

    The kernel replaces ``%d`` by a number; ``all`` and ``default`` are folders of its settings; and it treats a byte
    0xA0, which is part of some letters, as a space.
    """
    if not name or name in _NO_NAMES or name in _OF_THE_KERNEL:
        what = "a name that the kernel reserves" if name in _OF_THE_KERNEL else "not an interface name"
        return f"is {what}; choose another, such as nsm-1"
    if (size := len(name.encode(errors="replace"))) > LENGTH:
        return f"has {size} bytes; an interface name has at most {LENGTH}"
    if not name.isprintable():
        return "has a control or format character, which an interface name cannot have"
    if "%" in name:
        return "has a percent sign, which the kernel may replace by a number"
    if not _FORBIDDEN.isdisjoint(name) or b"\xa0" in name.encode():
        return "has a space, a slash or a colon, which an interface name cannot have"
    return None
