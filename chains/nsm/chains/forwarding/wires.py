"""A wire, computed from its connection: its two sides and their settings.

The client's side has the source addresses and routes, the endpoint's side the destination's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from nsm.apis import connectioncontext
from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext, IpNeighbor
from nsm.apis.payloads import ETHERNET
from nsm.chains.core import InvalidRequest
from nsm.chains.model import ipcontext, policies, values
from nsm.chains.model.addresses import Address, Interface, Network, read_address, read_interface
from nsm.chains.model.bounds import MAX_MTU, MIN_MTU

from .sides import KernelInterface, Side, Wireguard

Route = tuple[Network, Address | None]
"""A prefix and its next hop; None: it is on the link."""
MIN_IPV6_MTU = 1280
MAX_ORDER = 900
_NUMBER = re.compile(r"-([0-9]{1,6})\Z")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a side, all in the connection's order, without duplicates."""

    addresses: tuple[Interface, ...]
    """Packets without a source address use the first of their family."""
    routes: tuple[Route, ...]
    neighbors: tuple[Address, ...]
    """Opposite addresses, which are reached at the opposite end's hardware address."""
    known: tuple[tuple[Address, str], ...]
    """Neighbors that the connection itself names."""
    opposite: tuple[Address, ...] = ()
    """The addresses of the opposite side."""
    proxy_arp: bool = False
    """Whether this end answers for every IPv4 address that it routes to: the other end treats all as on-link."""
    mac: str = ""
    """The hardware address that the connection gives it, in lower case; empty: any."""
    joint: str = ""
    """A bridge or the number of a routing table that it becomes a part of; empty: none."""

    @property
    def defaults(self) -> tuple[Route, ...]:
        """The default routes among the routes."""
        return tuple(route for route in self.routes if not route[0].prefixlen)


NO_SETTINGS = Settings((), (), (), ())


@dataclass(frozen=True, slots=True)
class End:
    """One side of a wire with its settings; those of a tunnel describe what is reached through it."""

    side: Side
    settings: Settings = NO_SETTINGS
    is_endpoints: bool = False
    """Whether it is the endpoint's, and not the client's."""


@dataclass(frozen=True, slots=True)
class Wire:
    """The part of a wire on this node."""

    client: End
    endpoint: End
    mtu: int
    """Bytes; 0: the dataplane's choice."""
    arp: bool
    """Whether it carries frames (payload ETHERNET), so that neighbors are found by ARP and NDP; else packets."""
    order: int = 0
    """Its place among its client's wires: of several with the same route the first one is used."""
    accept_ra: bool = field(default=False, compare=False)
    """Whether the client's end takes addresses and routes from IPv6 router advertisements."""
    vlan: int = 0
    """The tag of its frames in the network of a virtual function; 0: none."""
    kernel_ends: tuple[End, ...] = field(init=False, repr=False, compare=False)
    """The ends that are interfaces in network namespaces, the client's first."""
    interfaces: tuple[KernelInterface, ...] = field(init=False, repr=False, compare=False)
    """Where those are."""

    def __post_init__(self) -> None:
        """Find them once: they are asked for again and again."""
        near, far = self.client, self.endpoint
        ends = (near,) if isinstance(near.side, KernelInterface) else ()
        object.__setattr__(self, "kernel_ends", (*ends, far) if isinstance(far.side, KernelInterface) else ends)
        object.__setattr__(self, "interfaces", tuple([end.side for end in self.kernel_ends]))

    @property
    def sides(self) -> tuple[Side, Side]:
        """The client's and the endpoint's."""
        return self.client.side, self.endpoint.side

    @property
    def ends(self) -> tuple[End, ...]:
        """The ends that workloads of this node have, the client's first."""
        return tuple(end for end in (self.client, self.endpoint) if end.side.is_local)

    @property
    def tunnel(self) -> Side | None:
        """The side that leads elsewhere, if there is one: the endpoint's if both do."""
        return next((side for side in reversed(self.sides) if not side.is_local), None)

    @property
    def asks(self) -> bool:
        """Whether its ends resolve the hardware addresses of their next hops."""
        return self.arp and not isinstance(self.tunnel, Wireguard)

    def moved(self, client: Side, endpoint: Side) -> Wire:
        """The same wire between other sides."""
        return replace(self, client=replace(self.client, side=client), endpoint=replace(self.endpoint, side=endpoint))


def wire_of(connection: Connection, client: Side, endpoint: Side, *, accept_ra: bool = False) -> Wire:
    """The wire between two sides that a connection describes. Raises `InvalidRequest` that names the fault."""
    context = connection.context or ConnectionContext()
    ip = context.ip_context or IpContext()
    arp = connection.payload == ETHERNET
    is_pair = isinstance(client, KernelInterface) and isinstance(endpoint, KernelInterface)
    knows = not arp and is_pair  # a pair without ARP needs the other side's address as a neighbor
    has_macs = not isinstance(client, Wireguard) and not isinstance(endpoint, Wireguard)
    known = tuple(dict.fromkeys(map(_neighbor, ip.ip_neighbors))) if has_macs else ()
    own = _settings(ip.src_ip_addrs, ip.dst_ip_addrs, _client_routes(ip), known, knows=knows)
    theirs = _settings(ip.dst_ip_addrs, ip.src_ip_addrs, _endpoint_routes(ip), known, knows=knows)
    if arp and any(policies.is_to_the_link(policy) for policy in ip.policies):
        theirs = replace(theirs, proxy_arp=True)
    vlan = 0
    if (ethernet := context.ethernet_context) is not None:
        own, theirs = replace(own, mac=ethernet.src_mac.lower()), replace(theirs, mac=ethernet.dst_mac.lower())
        vlan = ethernet.vlan_tag
    ends = End(client, _of(client, own)), End(endpoint, _of(endpoint, theirs), is_endpoints=True)
    mtu = _mtu(context.mtu, [end for end in ends if end.side.is_local])
    return Wire(*ends, mtu, arp, order_of(connection), accept_ra, vlan)


def order_of(connection: Connection) -> int:
    """The place of a connection among its client's: ids of clients end in it, as upstream's do (`nsc-0`, `nsc-1`)."""
    path = connection.path
    name = path.path_segments[0].id if path is not None and path.path_segments else connection.id
    digits = _NUMBER.search(name)
    return min(int(digits[1]), MAX_ORDER) if digits is not None else 0


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


def _of(side: Side, settings: Settings) -> Settings:
    """The settings of a side. An interface that only passes packets on has no addresses and no routes."""
    if not isinstance(side, KernelInterface) or not side.is_bare:
        return settings
    return replace(settings, addresses=(), routes=(), proxy_arp=False, joint=side.joint)


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
