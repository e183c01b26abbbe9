"""How every message is put together: header, fixed part, attributes (RFC 3549); and the numbers that several share."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

REPLACE, EXCL, CREATE, DUMP = 0x100, 0x200, 0x400, 0x300
_REQUEST, _ACK = 0x1, 0x4
NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
IFF_UP = 0x1
IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO = 3, 4, 18
INFO_KIND, INFO_DATA = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253
TABLE_MAIN, TABLE_LOCAL, UNICAST, ONLINK = 254, 255, 1, 4
ROUTE_PROTOCOL = 110
"""Marks the routes that this mesh installs, as seen by `ip route show proto 110`."""

HEADER = struct.Struct("=IHHII")
"""Length, command, flags, sequence number, port."""
LINK = struct.Struct("=BxHiII")
"""Family, type, index, flags, which of the flags are meant."""
ROUTE = struct.Struct("=BBBBBBBBI")
"""Family, length of destination and source, TOS, table, protocol, scope, type, flags."""
NUMBER = struct.Struct("=I")
_ATTRIBUTE = struct.Struct("=HH")
"""Length (padding left out) and type."""
_KIND = 0x3FFF
"""A type without its flags (nested, byte order)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One change, encoded except for its sequence number; `about` describes it in errors."""

    data: bytes
    about: str
    fine: frozenset[int] = frozenset()
    """Refusals that mean that nothing is left to do: the change is made already."""

    def numbered(self, sequence: int) -> bytes:
        """The bytes to send, with the number that its acknowledgement will carry."""
        return self.data[:8] + NUMBER.pack(sequence) + self.data[12:]


def request(
    command: int, flags: int, body: bytes, about: str, *, ack: bool = True, fine: frozenset[int] = frozenset()
) -> Message:
    """A message of `command` whose fixed part and attributes are `body`."""
    flags |= _REQUEST | (_ACK if ack else 0)
    return Message(HEADER.pack(HEADER.size + len(body), command, flags, 0, 0) + body, about, fine)


def link_part(index: int, flags: int = 0, meant: int | None = None) -> bytes:
    """The fixed part for a link that gets `flags`; of the flags in `meant`, all others are cleared."""
    return LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags if meant is None else meant)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits."""
    return attribute(kind, NUMBER.pack(value))


def text(kind: int, value: str) -> bytes:
    """An attribute that is a string, with its end."""
    return attribute(kind, value.encode() + b"\0")


def attributes_in(data: bytes, position: int = 0) -> dict[int, bytes]:
    """The attributes in `data` from `position` on, by their type."""
    found = {}
    while position + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, position)
        found[kind & _KIND] = data[position + _ATTRIBUTE.size : position + size]
        position += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return found


def number_in(attributes: dict[int, bytes], kind: int) -> int:
    """A number of 32 bits among attributes; 0 if it is not there."""
    packed = attributes.get(kind)
    return int(NUMBER.unpack(packed)[0]) if packed else 0


def family_of(version: int) -> int:
    """The address family of IPv4 or IPv6."""
    return socket.AF_INET if version == 4 else socket.AF_INET6


def scope_of(prefix: Network, via: Address | None) -> int:
    """Of a route: an IPv4 one without a next hop ends on the link."""
    return SCOPE_LINK if via is None and prefix.version == 4 else SCOPE_UNIVERSE
