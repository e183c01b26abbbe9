"""Bridges and their ports, encoded as in `messages`."""

from __future__ import annotations

import socket
import struct

from .messages import Message

_ACK_REQUEST, _EXCL_CREATE = 0x5, 0x600
_NEWLINK, _SETLINK = 16, 19
_IFF_UP = 0x1
_IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 3, 4, 10, 18
_INFO_KIND, _INFO_DATA = 1, 2
_IFLA_BR_MCAST_SNOOPING = 23

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")


def create_bridge(name: str, index: int, *, mtu: int) -> Message:
    """A bridge, down, that floods multicast as a cable would: without a querier there is nothing to snoop on."""
    data = _attribute(_IFLA_BR_MCAST_SNOOPING, b"\0")
    info = _attribute(_INFO_KIND, b"bridge\0") + _attribute(_INFO_DATA, data)
    body = _attribute(_IFLA_IFNAME, name.encode() + b"\0") + _number(_IFLA_MTU, mtu) + _attribute(_IFLA_LINKINFO, info)
    return _message(_NEWLINK, _EXCL_CREATE, _link(index) + body, f"create bridge {name}")


def enslave(index: int, bridge: int) -> Message:
    """Make a link a port of a bridge."""
    return _message(_SETLINK, 0, _link(index) + _number(_IFLA_MASTER, bridge), "make a link the port of a bridge")


def set_state(index: int, *, up: bool) -> Message:
    """Set a link up or down; its peer sees whether there is a carrier."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP if up else 0, _IFF_UP)
    return _message(_SETLINK, 0, body, f"set the link {'up' if up else 'down'}")


def _link(index: int) -> bytes:
    return _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _message(command: int, flags: int, body: bytes, about: str) -> Message:
    header = _HEADER.pack(_HEADER.size + len(body), command, _ACK_REQUEST | flags, 0, 0)
    return Message(header + body, about)
