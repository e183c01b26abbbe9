"""Changes interfaces, routes and rules of this process's network namespace (rtnetlink), a few messages at a time."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from .rtnetlink import BUFFER, ERROR, LINK, ROUTE, messages_of, request

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NEWLINK, _DELLINK, _SETLINK, _NEWROUTE, _NEWRULE, _DELRULE = 16, 17, 19, 24, 32, 33
_ACK, _REPLACE, _EXCL, _CREATE = 0x4, 0x100, 0x200, 0x400
_IFF_UP = 0x1
_IFNAME, _MASTER, _LINKINFO, _AF_SPEC = 3, 10, 18, 26
_INFO_KIND, _INFO_DATA, _BR_MCAST_SNOOPING = 1, 2, 23
_INET_CONF, _FORWARDING, _ADDR_GEN_MODE, _GEN_NONE = 1, 1, 8, 1
_RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 4, 5, 15
_ONLINK, _UNICAST, _UNIVERSE, _LINK_SCOPE = 4, 1, 0, 253
_FRA_IIFNAME, _FRA_PRIORITY, _FRA_TABLE, _FRA_PROTOCOL, _TO_TABLE, _BLACKHOLE = 3, 6, 15, 21, 1, 6
_LOCAL_TABLE = 255
_PROTOCOL = 110
"""Marks what this mesh installs, as seen by `ip rule` and `ip route`."""
_NUMBER, _ATTRIBUTE = struct.Struct("=I"), struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Change:
    """One message; `fine` are refusals that mean that nothing is left to do."""

    kind: int
    flags: int
    body: bytes
    about: str
    fine: frozenset[int] = frozenset()


def apply(sock: socket.socket, changes: Iterable[Change]) -> None:
    """Apply `changes` in their order. Raises OSError for the first one that the kernel refuses, naming it."""
    for sequence, change in enumerate(changes, 1):
        sock.send(request(change.kind, change.body, sequence=sequence, flags=_ACK | change.flags))
        if (code := _answer(sock, sequence)) and code not in change.fine:
            raise OSError(code, f"{change.about}: {os.strerror(code)}")


def _answer(sock: socket.socket, sequence: int) -> int:
    while True:
        for message in messages_of(sock.recv(BUFFER)):
            if message.kind == ERROR and message.sequence == sequence:
                return -int.from_bytes(message.body[:4], sys.byteorder, signed=True)


def create_bridge(name: str) -> Change:
    """A bridge, down, that floods multicast as a cable would."""
    data = _attribute(_BR_MCAST_SNOOPING, b"\0")
    info = _attribute(_INFO_KIND, b"bridge\0") + _attribute(_INFO_DATA, data)
    body = LINK.pack(0, 0, 0, 0, 0) + _text(_IFNAME, name) + _attribute(_LINKINFO, info)
    return Change(_NEWLINK, _CREATE | _EXCL, body, f"create the bridge {name}", frozenset({errno.EEXIST}))


def silence(index: int, name: str) -> Change:
    """Have a link that is down take no IPv6 address of its own; kernels without IPv6 refuse, which is fine."""
    inet6 = _attribute(socket.AF_INET6, _attribute(_ADDR_GEN_MODE, bytes([_GEN_NONE])))
    body = LINK.pack(0, 0, index, 0, 0) + _attribute(_AF_SPEC, inet6)
    return Change(_SETLINK, 0, body, f"silence {name}", frozenset({errno.EAFNOSUPPORT, errno.EINVAL}))


def set_up(index: int, name: str) -> Change:
    """Set a link up."""
    return Change(_SETLINK, 0, LINK.pack(0, 0, index, _IFF_UP, _IFF_UP), f"set {name} up")


def enslave(index: int, bridge: int, name: str) -> Change:
    """Make a link a port of a bridge."""
    return Change(_SETLINK, 0, LINK.pack(0, 0, index, 0, 0) + _number(_MASTER, bridge), f"make {name} a bridge's port")


def delete_link(index: int, name: str) -> Change:
    """Delete a link, if it exists."""
    return Change(_DELLINK, 0, LINK.pack(0, 0, index, 0, 0), f"delete {name}", frozenset({errno.ENODEV}))


def forward_ipv4(index: int, name: str) -> Change:
    """Forward what arrives at a link; it needs no writable /proc/sys."""
    conf = _attribute(_INET_CONF, _attribute(_FORWARDING, _NUMBER.pack(1)))
    body = LINK.pack(0, 0, index, 0, 0) + _attribute(_AF_SPEC, _attribute(socket.AF_INET, conf))
    return Change(_SETLINK, 0, body, f"forward IPv4 from {name}")


def default_route(table: int, index: int, gateway: Address | None, version: int, name: str) -> Change:
    """Everything of a family by one link, to `gateway` if there is one."""
    scope, flags = (_UNIVERSE, _ONLINK) if gateway is not None else (_LINK_SCOPE, 0)
    body = ROUTE.pack(_family(version), 0, 0, 0, 0, _PROTOCOL, scope, _UNICAST, flags)
    body += _number(_RTA_TABLE, table) + _number(_RTA_OIF, index)
    body += _attribute(_RTA_GATEWAY, gateway.packed) if gateway is not None else b""
    return Change(_NEWROUTE, _CREATE | _REPLACE, body, f"route by {name}")


def rule_from(name: str, version: int, priority: int, table: int | None) -> Change:
    """Route what arrives at a link, which may not exist yet, by `table`; without one, drop it."""
    header = ROUTE.pack(_family(version), 0, 0, 0, 0, 0, 0, _BLACKHOLE if table is None else _TO_TABLE, 0)
    body = header + _text(_FRA_IIFNAME, name) + _number(_FRA_PRIORITY, priority)
    body += _attribute(_FRA_PROTOCOL, bytes([_PROTOCOL])) + (b"" if table is None else _number(_FRA_TABLE, table))
    return Change(
        _NEWRULE, _CREATE | _EXCL, body, f"add a rule for {name}", frozenset({errno.EEXIST, errno.EAFNOSUPPORT})
    )


def no_rule_from(name: str, version: int, priority: int) -> Change:
    """Delete such a rule, if it exists."""
    header = ROUTE.pack(_family(version), 0, 0, 0, 0, 0, 0, 0, 0)
    body = header + _text(_FRA_IIFNAME, name) + _number(_FRA_PRIORITY, priority)
    gone = frozenset({errno.ENOENT, errno.EAFNOSUPPORT})
    return Change(_DELRULE, 0, body, f"delete the rule for {name}", gone)


def rule_for_own_addresses(version: int, priority: int) -> Change:
    """Deliver what is for one of this namespace's own addresses."""
    header = ROUTE.pack(_family(version), 0, 0, 0, _LOCAL_TABLE, 0, 0, _TO_TABLE, 0)
    fine = frozenset({errno.EEXIST, errno.EAFNOSUPPORT})
    return Change(
        _NEWRULE, _CREATE | _EXCL, header + _number(_FRA_PRIORITY, priority), "move the rule for own addresses", fine
    )


def no_rule_for_own_addresses(version: int, priority: int) -> Change:
    """Delete that rule at another priority, if it is there."""
    header = ROUTE.pack(_family(version), 0, 0, 0, _LOCAL_TABLE, 0, 0, _TO_TABLE, 0)
    fine = frozenset({errno.ENOENT, errno.EAFNOSUPPORT})
    return Change(_DELRULE, 0, header + _number(_FRA_PRIORITY, priority), "move the rule for own addresses", fine)


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, _NUMBER.pack(value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
