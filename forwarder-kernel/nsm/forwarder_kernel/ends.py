"""What either end of a wire must have, computed from its connection.

The client's end has the source addresses and routes, the endpoint's end the destination's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import IpContext, IpNeighbor, Route
from nsm.apis.mechanisms import INODE_URL, INTERFACE_NAME, KERNEL
from nsm.apis.payloads import ETHERNET
from nsm.chains.core import InvalidRequest, Refused
from nsm.chains.model import ipcontext, values
from nsm.chains.model.addresses import read_address, read_interface
from nsm.chains.model.bounds import MAX_MTU, MIN_MTU
from nsm.chains.model.interface_name import fault
from nsm.chains.model.networks import Networks

from .netlink import Address, Interface, Network
from .tunnels import Tunnel, Wireguard

MIN_IPV6_MTU = 1280


@dataclass(frozen=True, slots=True)
class Place:
    """Where an end is: its namespace's file, and its name there."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What an end is set to."""

    addresses: frozenset[Interface]
    routes: frozenset[tuple[Network, Address | None]]
    neighbors: frozenset[Address]
    """Opposite addresses, which are reached at the opposite end's hardware address."""
    known: frozenset[tuple[Address, str]]
    """Neighbors that the connection itself names."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a wire: where, and set to what."""

    place: Place
    settings: Settings


@dataclass(frozen=True, slots=True)
class Wire:
    """What of a wire is on this node: the client's end and the endpoint's, or one of them and a tunnel."""

    ends: tuple[End, ...]
    mtu: int
    arp: bool
    tunnel: Tunnel | None = None

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the ends are."""
        return tuple(end.place for end in self.ends)


def wire_of(connection: Connection, near: Mechanism, far: Mechanism, tunnel: Tunnel | None = None) -> Wire:
    """The wire that a connection describes; a side that is KERNEL has its end here.

    Raises `InvalidRequest` that names what is wrong.
    """
    context = connection.context
    ip = context.ip_context if context is not None and context.ip_context is not None else IpContext()
    arp = connection.payload == ETHERNET
    knows = not arp and tunnel is None  # a pair without ARP has to be told who is on the other side
    has_macs = not isinstance(tunnel, Wireguard)
    known = frozenset(map(_neighbor, ip.ip_neighbors)) if has_macs else frozenset[tuple[Address, str]]()
    client = _settings(ip.src_ip_addrs, ip.dst_ip_addrs, _client_routes(ip), known, knows=knows)
    endpoint = _settings(ip.dst_ip_addrs, ip.src_ip_addrs, _endpoint_routes(ip), known, knows=knows)
    sides = ((near, client), (far, endpoint))
    ends = tuple(End(_place(side), settings) for side, settings in sides if side.type == KERNEL)
    return Wire(ends, _mtu(context.mtu if context is not None else 0, ends), arp, tunnel)


def check_own_namespace(settings: Settings, node: Networks) -> None:
    """Raise `Refused` if an end that is in the node's own namespace would take anything from the networks of `node`."""
    reached = [*(address.network for address in settings.addresses), *(prefix for prefix, _ in settings.routes)]
    for network in reached:
        if not network.prefixlen or node.overlap(network):
            raise Refused(f"{network} would cut the node off: the wire's end is in the node's own network namespace")


def _client_routes(ip: IpContext) -> list[Route]:
    return [*ipcontext.dst_ip_routes(ip), *ipcontext.src_routes_with_next_hop(ip)]


def _endpoint_routes(ip: IpContext) -> list[Route]:
    return [*ipcontext.src_ip_routes(ip), *ipcontext.dst_routes_with_next_hop(ip)]


def _settings(
    own: Sequence[str],
    opposite: Sequence[str],
    routes: Sequence[Route],
    known: frozenset[tuple[Address, str]],
    *,
    knows: bool,
) -> Settings:
    ends = frozenset(_interface(text).ip for text in opposite)
    return Settings(
        addresses=frozenset(_interface(text) for text in own),
        routes=frozenset(_routes(routes, ends)),
        neighbors=ends if knows else frozenset(),
        known=known,
    )


def _routes(routes: Sequence[Route], ends: frozenset[Address]) -> list[tuple[Network, Address | None]]:
    """A route to the opposite end itself has no next hop: it is on the link."""
    parsed = []
    for route in routes:
        prefix = _interface(route.prefix).network
        is_end = prefix.num_addresses == 1 and prefix.network_address in ends
        parsed.append((prefix, None if is_end or not route.next_hop else _next_hop(route, prefix)))
    return parsed


def _next_hop(route: Route, prefix: Network) -> Address:
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
        raise InvalidRequest(f"{url[:64]!r} is no network namespace; expected one such as file:///proc/1234/ns/net")
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
        raise InvalidRequest(f"{text[:64]!r} is no address with a prefix length; expected one such as 10.0.0.1/32")
    return interface


def _address(text: str) -> Address:
    if (address := read_address(text)) is None:
        raise InvalidRequest(f"{text[:64]!r} is no IP address")
    return address
