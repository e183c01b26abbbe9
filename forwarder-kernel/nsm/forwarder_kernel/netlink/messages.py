"""Single changes of the kernel's configuration, encoded (rtnetlink, RFC 3549).

What is written is packed here: it is the kernel's part of a wire's set-up, and the library takes 0.1 ms a message.
What is read is the library's; the tests compare every message that is written with the library's own.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR = 20, 21
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _DELNEIGH = 28, 29

_IFF_UP, _IFF_NOARP = 0x1, 0x80
_IFA_F_NODAD, _IFA_F_PERMANENT = 0x02, 0x80
_NUD_REACHABLE, _NUD_PERMANENT = 0x02, 0x80
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_TABLE_MAIN, _UNICAST, _LOCAL, _ONLINK = 254, 1, 2, 4

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO = 1, 3, 4, 18
_IFLA_OPERSTATE, _IFLA_IFALIAS, _IFLA_GROUP, _IFLA_NET_NS_FD = 16, 20, 27, 28
_OPERSTATE_UP = 6
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_NDA_DST, _NDA_LLADDR = 1, 2

_HEADER = struct.Struct("=IHHII")
"""Length, command, flags, sequence number, port."""
_LINK = struct.Struct("=BxHiII")
"""Family, type, index, flags, which of the flags are meant."""
_ADDRESS = struct.Struct("=BBBBI")
"""Family, prefix length, flags, scope, index of the link."""
_ROUTE = struct.Struct("=BBBBBBBBI")
"""Family, length of destination and source, TOS, table, protocol, scope, type, flags."""
_NEIGHBOR = struct.Struct("=B3xiHBB")
"""Family, index of the link, state, flags, type."""
_ATTRIBUTE = struct.Struct("=HH")
"""Length (padding left out) and type."""
_NUMBER = struct.Struct("=I")

ROUTE_PROTOCOL = 110
"""Marks the routes that this mesh installs, as seen by `ip route show proto 110`."""


@dataclass(frozen=True, slots=True)
class Message:
    """One change, encoded but for its sequence number; `about` says in an error what it was."""

    data: bytes
    about: str

    def numbered(self, sequence: int) -> bytes:
        """The bytes to send, with the number that its acknowledgement will carry."""
        return self.data[:8] + _NUMBER.pack(sequence) + self.data[12:]


@dataclass(frozen=True, slots=True)
class VethEnd:
    """One end of a pair that is to be made where it belongs."""

    name: str
    index: int
    mac: str
    namespace: int
    """An open descriptor of its network namespace."""


def create_veth(one: VethEnd, other: VethEnd, *, mtu: int, arp: bool) -> Message:
    """Both ends in their namespaces, down. `mtu` 0 is the kernel's default; without `arp` the ends never ask."""
    flags = 0 if arp else _IFF_NOARP
    peer = _attribute(_VETH_INFO_PEER, _link(other.index, flags) + _end(other, mtu))
    info = _attribute(_INFO_KIND, b"veth\0") + _attribute(_INFO_DATA, peer)
    body = _link(one.index, flags) + _end(one, mtu) + _attribute(_IFLA_LINKINFO, info)
    return _message(_NEWLINK, _CREATE | _EXCL, body, f"create {one.name} and {other.name}")


def _link(index: int, flags: int = 0) -> bytes:
    """A link that has `flags` set; other flags are left as they are."""
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags)


def _end(end: VethEnd, mtu: int) -> bytes:
    name, mac = _text(_IFLA_IFNAME, end.name), _mac(_IFLA_ADDRESS, end.mac)
    return name + _number(_IFLA_NET_NS_FD, end.namespace) + mac + (_number(_IFLA_MTU, mtu) if mtu else b"")


def set_up(index: int, alias: str) -> Message:
    """Write who a link belongs to, and set it up."""
    body = _link(index, _IFF_UP) + _text(_IFLA_IFALIAS, alias)
    return _message(_SETLINK, 0, body, "set the link up")


def set_mtu(index: int, mtu: int) -> Message:
    """Change the MTU."""
    return _message(_SETLINK, 0, _link(index) + _number(_IFLA_MTU, mtu), f"set MTU {mtu}")


def set_group(index: int, group: int) -> Message:
    """Put a link into a group, to delete all of that in one message."""
    return _message(_SETLINK, 0, _link(index) + _number(_IFLA_GROUP, group), "set the link group")


def delete_group(group: int) -> Message:
    """Delete every link of a group in this namespace."""
    return _message(_DELLINK, 0, _link(0) + _number(_IFLA_GROUP, group), "delete a group of links")


def delete_link(index: int) -> Message:
    """Delete one link, and its peer with it."""
    return _message(_DELLINK, 0, _link(index), "delete a link")


def get_link(*, name: str = "", index: int = 0) -> Message:
    """Ask for one link."""
    wanted = _text(_IFLA_IFNAME, name) if name else b""
    return _message(_GETLINK, 0, _link(index) + wanted, f"look at {name or index}", ack=False)


def add_address(index: int, address: Interface) -> Message:
    """Add an address, at once usable."""
    return _address(index, address, _NEWADDR, _CREATE | _REPLACE, f"add address {address}")


def remove_address(index: int, address: Interface) -> Message:
    """Remove an address."""
    return _address(index, address, _DELADDR, 0, f"remove address {address}")


def _address(index: int, address: Interface, command: int, flags: int, about: str) -> Message:
    packed, is_ipv4 = address.ip.packed, address.version == 4
    properties = 0 if is_ipv4 else _IFA_F_NODAD | _IFA_F_PERMANENT
    fields = (_family(address.ip), address.network.prefixlen, properties, _SCOPE_UNIVERSE, index)
    local = _attribute(_IFA_LOCAL, packed) if is_ipv4 else b""
    return _message(command, flags, _ADDRESS.pack(*fields) + local + _attribute(_IFA_ADDRESS, packed), about)


def add_route(index: int, prefix: Network, via: Address | None) -> Message:
    """Add or replace a route: via a next hop that need not be on a subnet of the link, or to the link itself."""
    return _route(index, prefix, via, _NEWROUTE, _CREATE | _REPLACE, f"add route {prefix}")


def remove_route(index: int, prefix: Network, via: Address | None) -> Message:
    """Remove a route."""
    return _route(index, prefix, via, _DELROUTE, 0, f"remove route {prefix}")


def _route(index: int, prefix: Network, via: Address | None, command: int, flags: int, about: str) -> Message:
    scope = _SCOPE_LINK if via is None and prefix.version == 4 else _SCOPE_UNIVERSE
    family, on_link = _family(prefix.network_address), 0 if via is None else _ONLINK
    body = _ROUTE.pack(family, prefix.prefixlen, 0, 0, _TABLE_MAIN, ROUTE_PROTOCOL, scope, _UNICAST, on_link)
    body += _attribute(_RTA_DST, prefix.network_address.packed) + _number(_RTA_OIF, index)
    if via is not None:
        body += _attribute(_RTA_GATEWAY, via.packed)
    return _message(command, flags, body, about)


def get_route(address: Address) -> Message:
    """Ask where packets to `address` go."""
    body = _ROUTE.pack(_family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + _attribute(
        _RTA_DST, address.packed
    )
    return _message(_GETROUTE, 0, body, f"look up {address}", ack=False)


def is_local(data: bytes) -> bool:
    """Whether the answer to `get_route` says that the address is one of this namespace."""
    command, kind = _HEADER.unpack_from(data)[1], _ROUTE.unpack_from(data, _HEADER.size)[7]
    return bool(command == _NEWROUTE and kind == _LOCAL)


def add_neighbor(index: int, address: Address, mac: str, *, permanent: bool = True) -> Message:
    """Say which hardware address an address has."""
    body = _neighbor(index, address, _NUD_PERMANENT if permanent else _NUD_REACHABLE) + _mac(_NDA_LLADDR, mac)
    return _message(_NEWNEIGH, _CREATE | _REPLACE, body, f"add neighbor {address}")


def remove_neighbor(index: int, address: Address) -> Message:
    """Forget the hardware address of an address."""
    return _message(_DELNEIGH, 0, _neighbor(index, address, 0), f"remove neighbor {address}")


def _neighbor(index: int, address: Address, state: int) -> bytes:
    return _NEIGHBOR.pack(_family(address), index, state, 0, 0) + _attribute(_NDA_DST, address.packed)


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, _NUMBER.pack(value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _mac(kind: int, value: str) -> bytes:
    return _attribute(kind, bytes.fromhex(value.replace(":", "")))


def _message(command: int, flags: int, body: bytes, about: str, *, ack: bool = True) -> Message:
    flags |= _REQUEST | (_ACK if ack else 0)
    return Message(_HEADER.pack(_HEADER.size + len(body), command, flags, 0, 0) + body, about)


def is_operating(data: bytes) -> bool:
    """Whether a link message says that the link passes packets (RFC 2863), not only that it was set up."""
    position = _HEADER.size + _LINK.size
    while position + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, position)
        if kind == _IFLA_OPERSTATE:
            return data[position + _ATTRIBUTE.size] == _OPERSTATE_UP
        position += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return False


def decode_link(data: bytes) -> dict[str, Any]:
    """Index, name, alias, MAC and MTU out of a link message."""
    message = ifinfmsg(data)
    message.decode()
    return {
        "index": message["index"],
        "name": message.get_attr("IFLA_IFNAME"),
        "alias": message.get_attr("IFLA_IFALIAS") or "",
        "mac": message.get_attr("IFLA_ADDRESS") or "",
        "mtu": message.get_attr("IFLA_MTU") or 0,
    }
