"""Single changes of the kernel's configuration, encoded (rtnetlink, RFC 3549).

What is written is packed here: it is the kernel's part of a wire's set-up, and the library takes 0.1 ms a message.
What is read is the library's; the tests compare every message that is written with the library's own.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass, replace
from typing import Any

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE, _APPEND, _DUMP = 0x1, 0x4, 0x100, 0x200, 0x400, 0x800, 0x300
_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _DELNEIGH = 28, 29

_IFF_UP, _IFF_RUNNING, _IFF_NOARP = 0x1, 0x40, 0x80
_IFA_F_NODAD, _IFA_F_PERMANENT = 0x02, 0x80
_NUD_REACHABLE, _NUD_NOARP, _NUD_PERMANENT = 0x02, 0x40, 0x80
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_TABLE_MAIN, _UNICAST, _LOCAL, _ONLINK = 254, 1, 2, 4

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO = 1, 3, 4, 18
_IFLA_LINK, _IFLA_OPERSTATE, _IFLA_IFALIAS, _IFLA_GROUP, _IFLA_NET_NS_FD = 5, 16, 20, 27, 28
_OPERSTATE_UP = 6
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_VXLAN_ID, _VXLAN_REMOTE, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 2, 4, 7, 15
_VXLAN_REMOTE6, _VXLAN_LOCAL6, _VXLAN_ZERO_CHECKSUM6_RX = 16, 17, 20
_MACVLAN_MODE, _MACVLAN_BRIDGE, _VLAN_ID = 1, 4, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_METRICS, _RTAX_MTU = 1, 4, 5, 6, 8, 2
_BEFORE_OTHERS = 512
"""The metric of our IPv6 routes; what says none gets 1024. Of IPv4 routes the last one that came is the first."""
_NDA_DST, _NDA_LLADDR, _NDA_PORT = 1, 2, 6
_BRIDGE_FAMILY, _NTF_SELF, _NO_MAC = 7, 2, "00:00:00:00:00:00"

_GONE = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT, errno.ENXIO})
_THERE = frozenset({errno.EEXIST})

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
_KIND = 0x3FFF
"""A type without its flags (nested, byte order)."""
_NUMBER = struct.Struct("=I")
_PORT, _SHORT = struct.Struct("!H"), struct.Struct("=H")

ROUTE_PROTOCOL = 110
"""Marks the routes that this mesh installs, as seen by `ip route show proto 110`."""


@dataclass(frozen=True, slots=True)
class Message:
    """One change, encoded but for its sequence number; `about` says in an error what it was."""

    data: bytes
    about: str
    fine: frozenset[int] = frozenset()
    """What the kernel may refuse it with because nothing is left to do: it is so already."""

    def numbered(self, sequence: int) -> bytes:
        """The bytes to send, with the number that its acknowledgement will carry."""
        return self.data[:8] + _NUMBER.pack(sequence) + self.data[12:]


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """A link, or one end of a pair, that is to be made where it belongs."""

    name: str
    index: int
    mac: str
    namespace: int
    """An open descriptor of its network namespace."""


def create_veth(one: LinkEnd, other: LinkEnd, *, mtu: int, arp: bool) -> Message:
    """Both ends in their namespaces, down. `mtu` 0 is the kernel's default; without `arp` the ends never ask."""
    flags = 0 if arp else _IFF_NOARP
    peer = _attribute(_VETH_INFO_PEER, _link(other.index, flags) + _end(other, mtu))
    info = _attribute(_INFO_KIND, b"veth\0") + _attribute(_INFO_DATA, peer)
    body = _link(one.index, flags) + _end(one, mtu) + _attribute(_IFLA_LINKINFO, info)
    return _message(_NEWLINK, _CREATE | _EXCL, body, f"create {one.name} and {other.name}")


def create_vxlan(end: LinkEnd, vni: int, local: Address, port: int, remote: Address | None, *, mtu: int) -> Message:
    """A VXLAN device in its namespace, down; its underlay is the namespace of the socket that sends this.

    It receives at `port`, sends there too, and knows no other peer than `remote`, so it needs not learn. Outer
    checksums are written; IPv6 packets that come without one are taken (RFC 6936), since others leave it out.
    """
    family = (_VXLAN_LOCAL, _VXLAN_REMOTE) if local.version == 4 else (_VXLAN_LOCAL6, _VXLAN_REMOTE6)
    data = [
        _number(_VXLAN_ID, vni),
        _attribute(family[0], local.packed),
        _attribute(family[1], remote.packed) if remote is not None else b"",
        _attribute(_VXLAN_PORT, _PORT.pack(port)),
        _attribute(_VXLAN_LEARNING, b"\0"),
        _attribute(_VXLAN_ZERO_CHECKSUM6_RX, b"\1"),
    ]
    return _create(end, "vxlan", b"".join(data), mtu)


def add_vxlan_peer(index: int, remote: Address, port: int) -> Message:
    """Send the frames of a VXLAN device to a peer whose port is not our own."""
    state = _NUD_NOARP | _NUD_PERMANENT
    body = _NEIGHBOR.pack(_BRIDGE_FAMILY, index, state, _NTF_SELF, 0) + _mac(_NDA_LLADDR, _NO_MAC)
    body += _attribute(_NDA_DST, remote.packed) + _attribute(_NDA_PORT, _PORT.pack(port))
    return _message(_NEWNEIGH, _CREATE | _APPEND, body, f"add VXLAN peer {remote} port {port}")


def create_wireguard(end: LinkEnd, *, mtu: int) -> Message:
    """A WireGuard device in its namespace, down; its UDP socket will be in that of the socket that sends this."""
    return _create(end, "wireguard", b"", mtu)


def create_macvlan(end: LinkEnd, lower: int, *, mtu: int) -> Message:
    """An interface with a MAC of its own on the link of index `lower`; those on one link reach each other."""
    return _create(end, "macvlan", _number(_MACVLAN_MODE, _MACVLAN_BRIDGE), mtu, lower)


def create_vlan(end: LinkEnd, lower: int, vlan: int) -> Message:
    """The frames of one 802.1q tag on the link of index `lower`, without the tag."""
    return _create(end, "vlan", _attribute(_VLAN_ID, _SHORT.pack(vlan)), 0, lower)


def _create(end: LinkEnd, kind: str, data: bytes, mtu: int, lower: int = 0) -> Message:
    info = _text(_INFO_KIND, kind) + (_attribute(_INFO_DATA, data) if data else b"")
    body = _link(end.index) + _end(end, mtu) + (_number(_IFLA_LINK, lower) if lower else b"")
    return _message(_NEWLINK, _CREATE | _EXCL, body + _attribute(_IFLA_LINKINFO, info), f"create {kind} {end.name}")


def _link(index: int, flags: int = 0) -> bytes:
    """A link that has `flags` set; other flags are left as they are."""
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags)


def _end(end: LinkEnd, mtu: int) -> bytes:
    name, mac = _text(_IFLA_IFNAME, end.name), _mac(_IFLA_ADDRESS, end.mac) if end.mac else b""
    return name + _number(_IFLA_NET_NS_FD, end.namespace) + mac + (_number(_IFLA_MTU, mtu) if mtu else b"")


def set_up(index: int, alias: str) -> Message:
    """Write who a link belongs to, and set it up."""
    body = _link(index, _IFF_UP) + _text(_IFLA_IFALIAS, alias)
    return _message(_SETLINK, 0, body, "set the link up")


def rename(index: int, name: str) -> Message:
    """Give a link another name; it has to be down."""
    return _message(_SETLINK, 0, _link(index) + _text(_IFLA_IFNAME, name), f"name a link {name}")


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


def get_addresses(version: int) -> Message:
    """Ask for all addresses of IPv4 or IPv6."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return _message(_GETADDR, _DUMP, _ADDRESS.pack(family, 0, 0, 0, 0), f"list IPv{version} addresses", ack=False)


def get_route(address: Address) -> Message:
    """Ask where packets to `address` go."""
    body = _ROUTE.pack(_family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    return _message(_GETROUTE, 0, body + _attribute(_RTA_DST, address.packed), f"look up {address}", ack=False)


def add_address(index: int, address: Interface) -> Message:
    """Add an address, at once usable."""
    return _address(index, address, _NEWADDR, _CREATE | _REPLACE, f"add address {address}")


def remove_address(index: int, address: Interface) -> Message:
    """Remove an address."""
    return replace(_address(index, address, _DELADDR, 0, f"remove address {address}"), fine=_GONE)


def _address(index: int, address: Interface, command: int, flags: int, about: str) -> Message:
    packed, is_ipv4 = address.ip.packed, address.version == 4
    properties = 0 if is_ipv4 else _IFA_F_NODAD | _IFA_F_PERMANENT
    fields = (_family(address.ip), address.network.prefixlen, properties, _SCOPE_UNIVERSE, index)
    local = _attribute(_IFA_LOCAL, packed) if is_ipv4 else b""
    return _message(command, flags, _ADDRESS.pack(*fields) + local + _attribute(_IFA_ADDRESS, packed), about)


def add_route(index: int, prefix: Network, via: Address | None) -> Message:
    """Add a route: via a next hop that need not be on a subnet of the link, or to the link itself.

    It goes before routes to the same prefix that are there, of whatever link; they come back when it goes.
    """
    return _route(index, prefix, via, _NEWROUTE, _CREATE, f"add route {prefix}", _THERE)


def remove_route(index: int, prefix: Network, via: Address | None) -> Message:
    """Remove a route."""
    return _route(index, prefix, via, _DELROUTE, 0, f"remove route {prefix}", _GONE)


def _route(
    index: int, prefix: Network, via: Address | None, command: int, flags: int, about: str, fine: frozenset[int]
) -> Message:
    scope = _SCOPE_LINK if via is None and prefix.version == 4 else _SCOPE_UNIVERSE
    family, on_link = _family(prefix.network_address), 0 if via is None else _ONLINK
    body = _ROUTE.pack(family, prefix.prefixlen, 0, 0, _TABLE_MAIN, ROUTE_PROTOCOL, scope, _UNICAST, on_link)
    body += _attribute(_RTA_DST, prefix.network_address.packed) + _number(_RTA_OIF, index)
    if prefix.version == 6:
        body += _number(_RTA_PRIORITY, _BEFORE_OTHERS)
    if via is not None:
        body += _attribute(_RTA_GATEWAY, via.packed)
    return _message(command, flags, body, about, fine=fine)


def add_neighbor(index: int, address: Address, mac: str, *, permanent: bool = True) -> Message:
    """Say which hardware address an address has."""
    body = _neighbor(index, address, _NUD_PERMANENT if permanent else _NUD_REACHABLE) + _mac(_NDA_LLADDR, mac)
    return _message(_NEWNEIGH, _CREATE | _REPLACE, body, f"add neighbor {address}")


def remove_neighbor(index: int, address: Address) -> Message:
    """Forget the hardware address of an address."""
    return _message(_DELNEIGH, 0, _neighbor(index, address, 0), f"remove neighbor {address}", fine=_GONE)


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


def _message(
    command: int, flags: int, body: bytes, about: str, *, ack: bool = True, fine: frozenset[int] = frozenset()
) -> Message:
    flags |= _REQUEST | (_ACK if ack else 0)
    return Message(_HEADER.pack(_HEADER.size + len(body), command, flags, 0, 0) + body, about, fine)


def is_operating(data: bytes) -> bool:
    """Whether a link message says that the link passes packets (RFC 2863), not only that it was set up."""
    state = _attributes(data, _HEADER.size + _LINK.size).get(_IFLA_OPERSTATE)
    return state is not None and state[0] == _OPERSTATE_UP


def is_up(data: bytes) -> bool:
    """Whether a link message says that the link was set up and has its carrier."""
    wanted = _IFF_UP | _IFF_RUNNING
    return bool(_LINK.unpack_from(data, _HEADER.size)[3] & wanted == wanted)


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """Where packets go: out of which link, whether to this namespace itself, and the route's own MTU, if it has one."""

    index: int
    is_local: bool
    mtu: int


def decode_route(data: bytes) -> RouteAnswer:
    """The answer to `get_route`."""
    attributes = _attributes(data, _HEADER.size + _ROUTE.size)
    metrics = _attributes(attributes.get(_RTA_METRICS, b""))
    kind = _ROUTE.unpack_from(data, _HEADER.size)[7]
    return RouteAnswer(_value(attributes.get(_RTA_OIF)), kind == _LOCAL, _value(metrics.get(_RTAX_MTU)))


def decode_address(data: bytes) -> tuple[int, Address]:
    """The link's index and the address, of one message of the answer to `get_addresses`."""
    attributes = _attributes(data, _HEADER.size + _ADDRESS.size)
    packed = attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS]
    return _ADDRESS.unpack_from(data, _HEADER.size)[4], ipaddress.ip_address(packed)


def _attributes(data: bytes, position: int = 0) -> dict[int, bytes]:
    found = {}
    while position + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, position)
        found[kind & _KIND] = data[position + _ATTRIBUTE.size : position + size]
        position += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return found


def _value(packed: bytes | None) -> int:
    return _NUMBER.unpack(packed)[0] if packed else 0


def decode_link(data: bytes) -> dict[str, Any]:
    """Index, name, alias, MAC, MTU, kind and what is special to it, out of a link message."""
    message = ifinfmsg(data)
    message.decode()
    info = message.get_attr("IFLA_LINKINFO")
    details = info.get_attr("IFLA_INFO_DATA") if info is not None else None
    return {
        "index": message["index"],
        "name": message.get_attr("IFLA_IFNAME"),
        "alias": message.get_attr("IFLA_IFALIAS") or "",
        "mac": message.get_attr("IFLA_ADDRESS") or "",
        "mtu": message.get_attr("IFLA_MTU") or 0,
        "lower": message.get_attr("IFLA_LINK") or 0,
        "is_up": is_up(data),
        "kind": info.get_attr("IFLA_INFO_KIND") if info is not None else "",
        "details": dict(details["attrs"]) if details is not None and details.get("attrs") else {},
    }
