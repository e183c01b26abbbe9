"""The settings of either end of a wire, computed from its connection.

The client's end has the source addresses and routes, the endpoint's end the destination's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from nsm.apis import connectioncontext
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import IpContext, IpNeighbor
from nsm.apis.mechanisms import INODE_URL, INTERFACE_NAME, KERNEL
from nsm.apis.payloads import ETHERNET
from nsm.chains.core import InvalidRequest, Refused
from nsm.chains.model import ipcontext, policies, values
from nsm.chains.model.addresses import read_address, read_interface
from nsm.chains.model.bounds import MAX_MTU, MIN_MTU
from nsm.chains.model.interface_name import fault
from nsm.chains.model.networks import Networks

from .netlink import Address, Interface, Network
from .tunnels import Tunnel, Wireguard

Route = tuple[Network, Address | None]
"""A prefix and its next hop; None: it is on the link."""
MIN_IPV6_MTU = 1280
MAX_ORDER = 900
_NUMBER = re.compile(r"-([0-9]{1,6})\Z")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an end: its namespace's file, and its name there."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of an end, all in the connection's order, without duplicates."""

    addresses: tuple[Interface, ...]
    """Packets without a source address use the first of their family."""
    routes: tuple[Route, ...]
    neighbors: tuple[Address, ...]
    """Opposite addresses, which are reached at the opposite end's hardware address."""
    known: tuple[tuple[Address, str], ...]
    """Neighbors that the connection itself names."""
    opposite: tuple[Address, ...] = ()
    """The addresses of the opposite end."""
    proxy_arp: bool = False
    """Whether this end answers for every IPv4 address that it routes to: the other end treats all as on-link."""

    @property
    def defaults(self) -> tuple[Route, ...]:
        """The default routes among the routes."""
        return tuple(route for route in self.routes if not route[0].prefixlen)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a wire: its place and its settings."""

    place: Place
    settings: Settings
    is_endpoints: bool = False
    """Whether it is the endpoint's, and not the client's."""


@dataclass(frozen=True, slots=True)
class Wire:
    """The part of a wire on this node: the client's end and the endpoint's, or one of them and a tunnel."""

    ends: tuple[End, ...]
    mtu: int
    arp: bool
    tunnel: Tunnel | None = None
    order: int = 0
    """Its place among its client's wires: of several with the same route the first one is used."""
    accept_ra: bool = field(default=False, compare=False)
    """Whether the client's end takes addresses and routes from IPv6 router advertisements."""

    @property
    def asks(self) -> bool:
        """Whether its ends resolve the hardware addresses of their next hops."""
        return self.arp and not isinstance(self.tunnel, Wireguard)

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the ends are."""
        return tuple(end.place for end in self.ends)


def wire_of(
    connection: Connection, near: Mechanism, far: Mechanism, tunnel: Tunnel | None = None, *, accept_ra: bool = False
) -> Wire:
    """The wire that a connection describes; a side that is KERNEL has its end here.

    Raises `InvalidRequest` that names the fault.
    """
    context = connection.context
    ip = context.ip_context if context is not None and context.ip_context is not None else IpContext()
    arp = connection.payload == ETHERNET
    knows = not arp and tunnel is None  # a pair without ARP needs the other side's address as a neighbor
    has_macs = not isinstance(tunnel, Wireguard)
    known = tuple(dict.fromkeys(map(_neighbor, ip.ip_neighbors))) if has_macs else ()
    client = _settings(ip.src_ip_addrs, ip.dst_ip_addrs, _client_routes(ip), known, knows=knows)
    endpoint = _settings(ip.dst_ip_addrs, ip.src_ip_addrs, _endpoint_routes(ip), known, knows=knows)
    if arp and any(policies.is_to_the_link(policy) for policy in ip.policies):
        endpoint = replace(endpoint, proxy_arp=True)
    sides = ((near, client), (far, endpoint))
    ends = tuple(End(_place(side), settings, side is far) for side, settings in sides if side.type == KERNEL)
    mtu = _mtu(context.mtu if context is not None else 0, ends)
    return Wire(ends, mtu, arp, tunnel, order_of(connection), accept_ra)


def order_of(connection: Connection) -> int:
    """The place of a connection among its client's: ids of clients end in it, as upstream's do (`nsc-0`, `nsc-1`)."""
    path = connection.path
    name = path.path_segments[0].id if path is not None and path.path_segments else connection.id
    digits = _NUMBER.search(name)
    return min(int(digits[1]), MAX_ORDER) if digits is not None else 0


def check_own_namespace(settings: Settings, node: Networks) -> None:
    """Raise `Refused` if an end in the node's own namespace would take over any of the networks of `node`."""
    reached = [*(address.network for address in settings.addresses), *(prefix for prefix, _ in settings.routes)]
    for network in reached:
        if not network.prefixlen or node.overlap(network):
            raise Refused(f"{network} would cut the node off: the wire's end is in the node's own network namespace")


def _client_routes(ip: IpContext) -> list[connectioncontext.Route]:
    return [*ipcontext.dst_ip_routes(ip), *ipcontext.src_routes_with_next_hop(ip)]


def _endpoint_routes(ip: IpContext) -> list[connectioncontext.Route]:
    return [*ipcontext.src_ip_routes(ip), *ipcontext.dst_routes_with_next_hop(ip)]


def _settings(
    own: Sequence[str],
    opposite: Sequence[str],
    routes: Sequence[connectioncontext.Route],
    known: tuple[tuple[Address, str], ...],
    *,
    knows: bool,
) -> Settings:
    ends = dict.fromkeys(_interface(text).ip for text in opposite)
    return Settings(
        addresses=tuple(dict.fromkeys(_interface(text) for text in own)),
        routes=tuple(dict.fromkeys(_routes(routes, ends))),
        neighbors=tuple(ends) if knows else (),
        known=known,
        opposite=tuple(ends),
    )


def _routes(routes: Sequence[connectioncontext.Route], ends: Collection[Address]) -> list[Route]:
    """A route to the opposite end itself has no next hop: it is on the link."""
    parsed = []
    for route in routes:
        prefix = _interface(route.prefix).network
        is_end = prefix.num_addresses == 1 and prefix.network_address in ends
        parsed.append((prefix, None if is_end or not route.next_hop else _next_hop(route, prefix)))
    return parsed


def _next_hop(route: connectioncontext.Route, prefix: Network) -> Address:
    address = _address(route.next_hop)
    if address.version != prefix.version:
        raise InvalidRequest(f"route {prefix} via {address}: both must be IPv4 or both IPv6")
    return address


def _neighbor(neighbor: IpNeighbor) -> tuple[Address, str]:
    values.check(values.MAC, neighbor.hardware_address, "the hardware address of a neighbor")
    return _address(neighbor.ip), neighbor.hardware_address.lower()


def _place(mechanism: Mechanism) -> Place:
    url, name = mechanism.parameters.get(INODE_URL, ""), mechanism.parameters.get(INTERFACE_NAME, "")
    if not url.startswith("file://") or not values.URL.fits(url):
        raise InvalidRequest(f"{url[:64]!r} is not a network namespace; expected one such as file:///proc/1234/ns/net")
    if (wrong := fault(name)) is not None:
        raise InvalidRequest(wrong)
    return Place(url.removeprefix("file://"), name)


def _mtu(mtu: int, ends: Sequence[End]) -> int:
    if 0 < mtu < MIN_IPV6_MTU and any(each.version == 6 for end in ends for each in end.settings.addresses):
        raise InvalidRequest(f"MTU {mtu} is too small for the wire's IPv6 addresses, which need {MIN_IPV6_MTU}")
    if mtu and not MIN_MTU <= mtu <= MAX_MTU:
        raise InvalidRequest(f"MTU {mtu} is out of range; expected {MIN_MTU} to {MAX_MTU}, or 0 for the default")
    return mtu


def _interface(text: str) -> Interface:
    if (interface := read_interface(text)) is None:
        raise InvalidRequest(f"{text[:64]!r} is not an address with a prefix length; expected one such as 10.0.0.1/32")
    return interface


def _address(text: str) -> Address:
    if (address := read_address(text)) is None:
        raise InvalidRequest(f"{text[:64]!r} is not an IP address")
    return address
