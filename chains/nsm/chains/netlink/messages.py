"""Single changes of the kernel's configuration, encoded (rtnetlink, RFC 3549).

Requests are packed here: they are the kernel's part of a wire's set-up, and the library takes 0.1 ms a message.
Answers are parsed by the library; the tests compare every request with the library's own.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass, replace
from typing import Any

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from .encoding import (
    CREATE,
    DELLINK,
    DELROUTE,
    DUMP,
    EXCL,
    GETLINK,
    GETROUTE,
    HEADER,
    IFF_UP,
    IFLA_IFNAME,
    IFLA_LINKINFO,
    IFLA_MTU,
    INFO_DATA,
    INFO_KIND,
    LINK,
    NEWLINK,
    NEWROUTE,
    ONLINK,
    REPLACE,
    ROUTE,
    ROUTE_PROTOCOL,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PRIORITY,
    SCOPE_UNIVERSE,
    SETLINK,
    TABLE_MAIN,
    UNICAST,
    Address,
    Interface,
    Message,
    Network,
    attribute,
    attributes_in,
    family_of,
    link_part,
    number,
    number_in,
    request,
    scope_of,
    text,
)

_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_APPEND = 0x800

_IFF_LOOPBACK, _IFF_RUNNING, _IFF_NOARP = 0x08, 0x40, 0x80
_IFA_F_NODAD, _IFA_F_PERMANENT = 0x02, 0x80
_NUD_REACHABLE, _NUD_NOARP, _NUD_PERMANENT = 0x02, 0x40, 0x80
_LOCAL = 2

_IFLA_ADDRESS, _IFLA_LINK, _IFLA_OPERSTATE = 1, 5, 16
_IFLA_IFALIAS, _IFLA_STATS64, _IFLA_GROUP, _IFLA_NET_NS_FD = 20, 23, 27, 28
_OPERSTATE_UP = 6
_VETH_INFO_PEER = 1
_VXLAN_ID, _VXLAN_REMOTE, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 2, 4, 7, 15
_VXLAN_REMOTE6, _VXLAN_LOCAL6, _VXLAN_ZERO_CHECKSUM6_RX = 16, 17, 20
_MACVLAN_MODE, _MACVLAN_BRIDGE, _VLAN_ID = 1, 4, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _IFA_PROTO = 1, 2, 8, 11
_IFA_F_MANAGES_OTHERS, _BY_ADVERTISEMENT = 0x100, 2
_RTA_METRICS, _RTAX_MTU = 8, 2
_BEFORE_OTHERS, _LAST_BEFORE_OTHERS = 512, 1023
"""The metric of our IPv6 routes; routes without one get 1024. Of IPv4 routes the latest one is the first."""
_AFTER_OTHERS = 2_000_000_000
"""The metric of our default routes in the main table, where those of others stay in force: see `default_routes`."""
_NDA_DST, _NDA_LLADDR, _NDA_PORT, _NDA_IFINDEX = 1, 2, 6, 8
_BRIDGE_FAMILY, _NTF_SELF, _NO_MAC = 7, 2, "00:00:00:00:00:00"

_IFLA_AF_SPEC, _IFLA_INET_CONF, _DEVCONF_PROXY_ARP = 26, 1, 3
_SETNEIGHTBL, _NDTA_NAME, _NDTA_PARMS = 67, 1, 6
_NDTPA_IFINDEX, _NDTPA_MCAST_PROBES, _NDTPA_MCAST_REPROBES, _FOR_EVER = 1, 11, 17, 1 << 20
_NEIGHBOR_TABLE = struct.Struct("=B3x")

_GONE = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT, errno.ENXIO})
_THERE = frozenset({errno.EEXIST})

_STATISTICS = struct.Struct("=8Q")
_ADDRESS = struct.Struct("=BBBBI")
"""Family, prefix length, flags, scope, index of the link."""
_NEIGHBOR = struct.Struct("=B3xiHBB")
"""Family, index of the link, state, flags, type."""
_PORT, _SHORT = struct.Struct("!H"), struct.Struct("=H")


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
    peer = attribute(_VETH_INFO_PEER, link_part(other.index, flags) + _end(other, mtu))
    info = attribute(INFO_KIND, b"veth\0") + attribute(INFO_DATA, peer)
    body = link_part(one.index, flags) + _end(one, mtu) + attribute(IFLA_LINKINFO, info)
    return request(NEWLINK, CREATE | EXCL, body, f"create {one.name} and {other.name}")


def create_vxlan(end: LinkEnd, vni: int, local: Address, port: int, remote: Address | None, *, mtu: int) -> Message:
    """A VXLAN device in its namespace, down; its underlay is the namespace of the socket that sends this.

    It receives at `port`, sends there too, and knows no other peer than `remote`, so it needs not learn. Outer
    checksums are written; IPv6 packets that come without one are taken (RFC 6936), since others leave it out.
    """
    family = (_VXLAN_LOCAL, _VXLAN_REMOTE) if local.version == 4 else (_VXLAN_LOCAL6, _VXLAN_REMOTE6)
    data = [
        number(_VXLAN_ID, vni),
        attribute(family[0], local.packed),
        attribute(family[1], remote.packed) if remote is not None else b"",
        attribute(_VXLAN_PORT, _PORT.pack(port)),
        attribute(_VXLAN_LEARNING, b"\0"),
        attribute(_VXLAN_ZERO_CHECKSUM6_RX, b"\1"),
    ]
    return _create(end, "vxlan", b"".join(data), mtu)


def add_vxlan_peer(index: int, remote: Address, port: int) -> Message:
    """Send the frames of a VXLAN device to a peer whose port is not our own."""
    state = _NUD_NOARP | _NUD_PERMANENT
    body = _NEIGHBOR.pack(_BRIDGE_FAMILY, index, state, _NTF_SELF, 0) + _mac(_NDA_LLADDR, _NO_MAC)
    body += attribute(_NDA_DST, remote.packed) + attribute(_NDA_PORT, _PORT.pack(port))
    return request(_NEWNEIGH, CREATE | _APPEND, body, f"add VXLAN peer {remote} port {port}")


def create_wireguard(end: LinkEnd, *, mtu: int) -> Message:
    """A WireGuard device in its namespace, down; its UDP socket will be in that of the socket that sends this."""
    return _create(end, "wireguard", b"", mtu)


def create_macvlan(end: LinkEnd, lower: int, *, mtu: int) -> Message:
    """An interface with a MAC of its own on the link of index `lower`; those on one link reach each other."""
    return _create(end, "macvlan", number(_MACVLAN_MODE, _MACVLAN_BRIDGE), mtu, lower)


def create_vlan(end: LinkEnd, lower: int, vlan: int) -> Message:
    """The frames of one 802.1q tag on the link of index `lower`, without the tag."""
    return _create(end, "vlan", attribute(_VLAN_ID, _SHORT.pack(vlan)), 0, lower)


def _create(end: LinkEnd, kind: str, data: bytes, mtu: int, lower: int = 0) -> Message:
    info = text(INFO_KIND, kind) + (attribute(INFO_DATA, data) if data else b"")
    body = link_part(end.index) + _end(end, mtu) + (number(_IFLA_LINK, lower) if lower else b"")
    return request(NEWLINK, CREATE | EXCL, body + attribute(IFLA_LINKINFO, info), f"create {kind} {end.name}")


def _end(end: LinkEnd, mtu: int) -> bytes:
    name, mac = text(IFLA_IFNAME, end.name), _mac(_IFLA_ADDRESS, end.mac) if end.mac else b""
    return name + number(_IFLA_NET_NS_FD, end.namespace) + mac + (number(IFLA_MTU, mtu) if mtu else b"")


def set_up(index: int, alias: str, *, proxy_arp: bool | None = None) -> Message:
    """Write who a link belongs to, and set it up; `proxy_arp`: whether it answers for addresses that it routes to."""
    body = link_part(index, IFF_UP) + text(_IFLA_IFALIAS, alias)
    if proxy_arp is not None:
        settings = attribute(_IFLA_INET_CONF, number(_DEVCONF_PROXY_ARP, proxy_arp))
        body += attribute(_IFLA_AF_SPEC, attribute(socket.AF_INET, settings))
    return request(SETLINK, 0, body, "set the link up")


def keep_asking(index: int) -> Message:
    """Let a link ask for IPv6 next hops until they answer.

    Linux gives up after three seconds, and then skips all routes by that next hop: packets would leave by a wider
    one, such as the workload's own default route.
    """
    parameters = number(_NDTPA_IFINDEX, index) + number(_NDTPA_MCAST_PROBES, _FOR_EVER)
    parameters += number(_NDTPA_MCAST_REPROBES, _FOR_EVER)
    body = _NEIGHBOR_TABLE.pack(socket.AF_INET6) + text(_NDTA_NAME, "ndisc_cache")
    body += attribute(_NDTA_PARMS, parameters)
    return request(_SETNEIGHTBL, 0, body, "keep asking for next hops", fine=_GONE)


def rename(index: int, name: str) -> Message:
    """Give a link another name; it has to be down."""
    return request(SETLINK, 0, link_part(index) + text(IFLA_IFNAME, name), f"name a link {name}")


def set_mtu(index: int, mtu: int) -> Message:
    """Change the MTU."""
    return request(SETLINK, 0, link_part(index) + number(IFLA_MTU, mtu), f"set MTU {mtu}")


def set_group(index: int, group: int) -> Message:
    """Put a link into a group, to delete all of that in one message."""
    return request(SETLINK, 0, link_part(index) + number(_IFLA_GROUP, group), "set the link group")


def delete_group(group: int) -> Message:
    """Delete every link of a group in this namespace."""
    return request(DELLINK, 0, link_part(0) + number(_IFLA_GROUP, group), "delete a group of links")


def delete_link(index: int) -> Message:
    """Delete one link, and its peer with it."""
    return request(DELLINK, 0, link_part(index), "delete a link")


def get_link(*, name: str = "", index: int = 0) -> Message:
    """Ask for one link."""
    wanted = text(IFLA_IFNAME, name) if name else b""
    return request(GETLINK, 0, link_part(index) + wanted, f"look at {name or index}", ack=False)


def get_links() -> Message:
    """Ask for all links."""
    return request(GETLINK, DUMP, link_part(0), "list links", ack=False)


def get_stations(index: int) -> Message:
    """Ask for the hardware addresses that a link receives for others."""
    body = _NEIGHBOR.pack(_BRIDGE_FAMILY, index, 0, 0, 0)
    return request(_GETNEIGH, DUMP, body, "list the hardware addresses of a link", ack=False)


def get_addresses(version: int, index: int = 0) -> Message:
    """Ask for the addresses of IPv4 or IPv6, of one link or all; kernels before 4.20 answer with all in any case."""
    body = _ADDRESS.pack(family_of(version), 0, 0, 0, index)
    return request(_GETADDR, DUMP, body, f"list IPv{version} addresses", ack=False)


def get_neighbors(version: int, index: int) -> Message:
    """Ask for the neighbors that a link has of IPv4 or IPv6; old kernels answer with those of all links."""
    body = _NEIGHBOR.pack(family_of(version), 0, 0, 0, 0) + number(_NDA_IFINDEX, index)
    return request(_GETNEIGH, DUMP, body, f"list IPv{version} neighbors", ack=False)


def get_route(address: Address) -> Message:
    """Ask where packets to `address` go."""
    body = ROUTE.pack(family_of(address.version), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    return request(GETROUTE, 0, body + attribute(RTA_DST, address.packed), f"look up {address}", ack=False)


def add_address(index: int, address: Interface) -> Message:
    """Add an address, at once usable."""
    return _address(index, address, _NEWADDR, CREATE | REPLACE, f"add address {address}")


def remove_address(index: int, address: Interface) -> Message:
    """Remove an address."""
    return replace(_address(index, address, _DELADDR, 0, f"remove address {address}"), fine=_GONE)


def _address(index: int, address: Interface, command: int, flags: int, about: str) -> Message:
    packed, is_ipv4 = address.ip.packed, address.version == 4
    properties = 0 if is_ipv4 else _IFA_F_NODAD | _IFA_F_PERMANENT
    fields = (family_of(address.version), address.network.prefixlen, properties, SCOPE_UNIVERSE, index)
    local = attribute(_IFA_LOCAL, packed) if is_ipv4 else b""
    return request(command, flags, _ADDRESS.pack(*fields) + local + attribute(_IFA_ADDRESS, packed), about)


def add_route(index: int, prefix: Network, via: Address | None, *, order: int = 0) -> Message:
    """Add a route: via a next hop that need not be on a subnet of the link, or to the link itself.

    It goes before routes to the same prefix that are there, of whatever link; they come back when it goes. A default
    route goes after those of others: one of two whose metrics are the same is used by chance. `order`: see `metric_of`.
    """
    return _route(index, prefix, via, NEWROUTE, CREATE, f"add route {prefix}", _THERE, metric_of(prefix, via, order))


def remove_route(index: int, prefix: Network, via: Address | None, metric: int | None = None) -> Message:
    """Remove a route; its metric is that of a first wire if none is said."""
    metric = metric_of(prefix, via) if metric is None else metric
    return _route(index, prefix, via, DELROUTE, 0, f"remove route {prefix}", _GONE, metric)


def metric_of(prefix: Network, via: Address | None, order: int = 0) -> int:
    """The metric of a wire's route; 0: none.

    `order` is the place of the wire among those of its client: of two to one prefix the first wire's is used. IPv6
    routes to the link do not have it: a next hop has to be found on its own link, though others have that address.
    """
    if not prefix.prefixlen:
        return _AFTER_OTHERS + order
    if prefix.version == 4:
        return order
    return _BEFORE_OTHERS if via is None else min(_BEFORE_OTHERS + order, _LAST_BEFORE_OTHERS)


def _route(
    index: int,
    prefix: Network,
    via: Address | None,
    command: int,
    flags: int,
    about: str,
    fine: frozenset[int],
    metric: int,
) -> Message:
    scope = scope_of(prefix, via)
    family, on_link = family_of(prefix.version), 0 if via is None else ONLINK
    body = ROUTE.pack(family, prefix.prefixlen, 0, 0, TABLE_MAIN, ROUTE_PROTOCOL, scope, UNICAST, on_link)
    body += attribute(RTA_DST, prefix.network_address.packed) + number(RTA_OIF, index)
    if metric:
        body += number(RTA_PRIORITY, metric)
    if via is not None:
        body += attribute(RTA_GATEWAY, via.packed)
    return request(command, flags, body, about, fine=fine)


def add_neighbor(index: int, address: Address, mac: str, *, permanent: bool = True) -> Message:
    """Set the hardware address of an address."""
    body = _neighbor(index, address, _NUD_PERMANENT if permanent else _NUD_REACHABLE) + _mac(_NDA_LLADDR, mac)
    return request(_NEWNEIGH, CREATE | REPLACE, body, f"add neighbor {address}")


def remove_neighbor(index: int, address: Address) -> Message:
    """Remove the hardware address of an address."""
    return request(_DELNEIGH, 0, _neighbor(index, address, 0), f"remove neighbor {address}", fine=_GONE)


def _neighbor(index: int, address: Address, state: int) -> bytes:
    return _NEIGHBOR.pack(family_of(address.version), index, state, 0, 0) + attribute(_NDA_DST, address.packed)


def _mac(kind: int, value: str) -> bytes:
    return attribute(kind, bytes.fromhex(value.replace(":", "")))


def alias_of(data: bytes) -> str:
    """The alias in a link message; empty if it has none."""
    return attributes_in(data, HEADER.size + LINK.size).get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace")


def index_in(data: bytes) -> int:
    """The index in a link message."""
    return int(LINK.unpack_from(data, HEADER.size)[2])


def is_loopback(data: bytes) -> bool:
    """Whether a link message is that of a loopback interface."""
    return bool(LINK.unpack_from(data, HEADER.size)[3] & _IFF_LOOPBACK)


def statistics_in(data: bytes) -> tuple[int, ...]:
    """The counters in a link message: packets, bytes, errors and drops, each received and sent (rtnl_link_stats64)."""
    return _STATISTICS.unpack_from(attributes_in(data, HEADER.size + LINK.size)[_IFLA_STATS64])


def is_operating(data: bytes) -> bool:
    """Whether a link message shows that the link passes packets (RFC 2863), not only that it was set up."""
    state = attributes_in(data, HEADER.size + LINK.size).get(_IFLA_OPERSTATE)
    return state is not None and state[0] == _OPERSTATE_UP


def is_up(data: bytes) -> bool:
    """Whether a link message shows that the link was set up and has its carrier."""
    wanted = IFF_UP | _IFF_RUNNING
    return bool(LINK.unpack_from(data, HEADER.size)[3] & wanted == wanted)


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """The way to an address: the link, whether it leads to this namespace itself, and the route's own MTU, if any."""

    index: int
    is_local: bool
    mtu: int


def decode_route(data: bytes) -> RouteAnswer:
    """The answer to `get_route`."""
    attributes = attributes_in(data, HEADER.size + ROUTE.size)
    metrics = attributes_in(attributes.get(_RTA_METRICS, b""))
    kind = ROUTE.unpack_from(data, HEADER.size)[7]
    return RouteAnswer(number_in(attributes, RTA_OIF), kind == _LOCAL, number_in(metrics, _RTAX_MTU))


def decode_address(data: bytes) -> tuple[int, Address]:
    """The link's index and the address, of one message of the answer to `get_addresses`."""
    attributes = attributes_in(data, HEADER.size + _ADDRESS.size)
    packed = attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS]
    return _ADDRESS.unpack_from(data, HEADER.size)[4], ipaddress.ip_address(packed)


def scope_in(data: bytes) -> int:
    """The scope of the address in one message of the answer to `get_addresses`."""
    return int(_ADDRESS.unpack_from(data, HEADER.size)[3])


@dataclass(frozen=True, slots=True)
class AddressFound:
    """An address of a link, as the kernel has it."""

    index: int
    interface: Interface
    is_global: bool
    """Whether its scope is wider than its link."""
    is_advertised: bool
    """Whether the kernel made it from a router advertisement."""


def decode_interface(data: bytes) -> AddressFound:
    """One message of the answer to `get_addresses`, in full."""
    attributes = attributes_in(data, HEADER.size + _ADDRESS.size)
    _, length, _, scope, index = _ADDRESS.unpack_from(data, HEADER.size)
    packed = attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS]
    by_whom = attributes.get(_IFA_PROTO, b"\0")[0]
    is_advertised = by_whom == _BY_ADVERTISEMENT or bool(number_in(attributes, _IFA_FLAGS) & _IFA_F_MANAGES_OTHERS)
    return AddressFound(index, ipaddress.ip_interface((packed, length)), scope == SCOPE_UNIVERSE, is_advertised)


def decode_neighbor(data: bytes) -> tuple[int, Address, str]:
    """The link's index, the address and its hardware address (empty: unknown), of an answer to `get_neighbors`."""
    attributes = attributes_in(data, HEADER.size + _NEIGHBOR.size)
    address, mac = ipaddress.ip_address(attributes[_NDA_DST]), attributes.get(_NDA_LLADDR, b"")
    return _NEIGHBOR.unpack_from(data, HEADER.size)[1], address, mac.hex(":")


def decode_station(data: bytes) -> str:
    """The hardware address of one message of the answer to `get_stations`; empty for a multicast one."""
    mac = attributes_in(data, HEADER.size + _NEIGHBOR.size).get(_NDA_LLADDR, b"")
    return mac.hex(":") if mac and not mac[0] & 1 else ""


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
        "lower_in": message.get_attr("IFLA_LINK_NETNSID"),
        "is_up": is_up(data),
        "is_set_up": bool(message["flags"] & IFF_UP),
        "kind": info.get_attr("IFLA_INFO_KIND") if info is not None else "",
        "details": dict(details["attrs"]) if details is not None and details.get("attrs") else {},
    }
