"""Single changes of the kernel's configuration, encoded (rtnetlink, RFC 3549)."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

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
_RTA_DST = 1
_IFLA_EXT_MASK, _SKIP_STATS = 29, 8

ROUTE_PROTOCOL = 110
"""Marks the routes that this mesh installs, as seen by `ip route show proto 110`."""


@dataclass(frozen=True, slots=True)
class Message:
    """One change, encoded but for its sequence number; `about` says in an error what it was."""

    data: bytes
    about: str

    def numbered(self, sequence: int) -> bytes:
        """The bytes to send, with the number that its acknowledgement will carry."""
        return self.data[:8] + sequence.to_bytes(4, "little") + self.data[12:]


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
    peer = {"index": other.index, "flags": flags, "change": flags, "attrs": _end(other, mtu)}
    info = [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]
    fields = {"index": one.index, "flags": flags, "change": flags}
    attrs = [*_end(one, mtu), ("IFLA_LINKINFO", {"attrs": info})]
    return _message(ifinfmsg, fields, attrs, _NEWLINK, _CREATE | _EXCL, f"create {one.name} and {other.name}")


def _end(end: VethEnd, mtu: int) -> list[tuple[str, Any]]:
    attrs = [("IFLA_IFNAME", end.name), ("IFLA_NET_NS_FD", end.namespace), ("IFLA_ADDRESS", end.mac)]
    return [*attrs, ("IFLA_MTU", mtu)] if mtu else attrs


def set_up(index: int, alias: str) -> Message:
    """Write who a link belongs to, and set it up."""
    fields = {"index": index, "flags": _IFF_UP, "change": _IFF_UP}
    return _message(ifinfmsg, fields, [("IFLA_IFALIAS", alias)], _SETLINK, 0, "set the link up")


def set_mtu(index: int, mtu: int) -> Message:
    """Change the MTU."""
    return _message(ifinfmsg, {"index": index}, [("IFLA_MTU", mtu)], _SETLINK, 0, f"set MTU {mtu}")


def set_group(index: int, group: int) -> Message:
    """Put a link into a group, to delete all of that in one message."""
    return _message(ifinfmsg, {"index": index}, [("IFLA_GROUP", group)], _SETLINK, 0, "set the link group")


def delete_group(group: int) -> Message:
    """Delete every link of a group in this namespace."""
    return _message(ifinfmsg, {}, [("IFLA_GROUP", group)], _DELLINK, 0, "delete a group of links")


def delete_link(index: int) -> Message:
    """Delete one link, and its peer with it."""
    return _message(ifinfmsg, {"index": index}, [], _DELLINK, 0, "delete a link")


def get_link(*, name: str = "", index: int = 0) -> Message:
    """Ask for one link."""
    attrs = [("IFLA_IFNAME", name)] if name else []
    return _message(ifinfmsg, {"index": index}, attrs, _GETLINK, 0, f"look at {name or index}", ack=False)


def add_address(index: int, address: Interface) -> Message:
    """Add an address, at once usable."""
    return _address(index, address, _NEWADDR, _CREATE | _REPLACE, f"add address {address}")


def remove_address(index: int, address: Interface) -> Message:
    """Remove an address."""
    return _address(index, address, _DELADDR, 0, f"remove address {address}")


def _address(index: int, address: Interface, kind: int, flags: int, about: str) -> Message:
    text = str(address.ip)
    fields = {"family": _family(address.ip), "prefixlen": address.network.prefixlen, "index": index}
    attrs = [("IFA_LOCAL", text), ("IFA_ADDRESS", text)]
    if address.version == 6:
        fields["flags"] = _IFA_F_NODAD | _IFA_F_PERMANENT
        attrs = attrs[1:]
    return _message(ifaddrmsg, fields, attrs, kind, flags, about)


def add_route(index: int, prefix: Network, via: Address | None) -> Message:
    """Add or replace a route: via a next hop that need not be on a subnet of the link, or to the link itself."""
    return _route(index, prefix, via, _NEWROUTE, _CREATE | _REPLACE, f"add route {prefix}")


def remove_route(index: int, prefix: Network, via: Address | None) -> Message:
    """Remove a route."""
    return _route(index, prefix, via, _DELROUTE, 0, f"remove route {prefix}")


def _route(index: int, prefix: Network, via: Address | None, kind: int, flags: int, about: str) -> Message:
    fields = {
        "family": _family(prefix.network_address),
        "dst_len": prefix.prefixlen,
        "table": _TABLE_MAIN,
        "proto": ROUTE_PROTOCOL,
        "type": _UNICAST,
        "scope": _SCOPE_LINK if via is None and prefix.version == 4 else _SCOPE_UNIVERSE,
        "flags": 0 if via is None else _ONLINK,
    }
    attrs: list[tuple[str, Any]] = [("RTA_DST", str(prefix.network_address)), ("RTA_OIF", index)]
    if via is not None:
        attrs.append(("RTA_GATEWAY", str(via)))
    return _message(rtmsg, fields, attrs, kind, flags, about)


def look_at_link(index: int) -> Message:
    """Ask for one link and nothing of it; the kernel takes note of the carrier before it answers."""
    body = struct.pack("=BxHiIIHHI", socket.AF_UNSPEC, 0, index, 0, 0, 8, _IFLA_EXT_MASK, _SKIP_STATS)
    return _question(_GETLINK, body, f"look at link {index}")


def get_route(address: Address) -> Message:
    """Ask where packets to `address` go."""
    body = struct.pack("=BBBBBBBBI", _family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body += struct.pack("=HH", 4 + len(address.packed), _RTA_DST) + address.packed
    return _question(_GETROUTE, body, f"look up {address}")


def is_local(data: bytes) -> bool:
    """Whether the answer to `get_route` says that the address is one of this namespace."""
    kind, route_type = int.from_bytes(data[4:6], "little"), data[16 + 7]
    return kind == _NEWROUTE and route_type == _LOCAL


def _question(kind: int, body: bytes, about: str) -> Message:
    return Message(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST, 0, 0) + body, about)


def add_neighbor(index: int, address: Address, mac: str, *, permanent: bool = True) -> Message:
    """Say which hardware address an address has."""
    fields = {"ifindex": index, "family": _family(address), "state": _NUD_PERMANENT if permanent else _NUD_REACHABLE}
    attrs = [("NDA_DST", str(address)), ("NDA_LLADDR", mac)]
    return _message(ndmsg, fields, attrs, _NEWNEIGH, _CREATE | _REPLACE, f"add neighbor {address}")


def remove_neighbor(index: int, address: Address) -> Message:
    """Forget the hardware address of an address."""
    fields = {"ifindex": index, "family": _family(address)}
    return _message(ndmsg, fields, [("NDA_DST", str(address))], _DELNEIGH, 0, f"remove neighbor {address}")


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _message(
    kind: type[Any],
    fields: dict[str, Any],
    attrs: Sequence[tuple[str, Any]],
    command: int,
    flags: int,
    about: str,
    *,
    ack: bool = True,
) -> Message:
    message = kind()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = list(attrs)
    flags |= _REQUEST | (_ACK if ack else 0)
    message["header"] = {"type": command, "flags": flags, "sequence_number": 0, "pid": 0}
    message.encode()
    return Message(bytes(message.data), about)


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
