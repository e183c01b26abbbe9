"""The routes that follow from a connection's addresses at either end. `src` is the client's end, `dst` the endpoint's.

Text that does not parse is skipped, as in every dataplane of NSM.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext, Route

from .addresses import Address, Interface, read_address, read_interface
from .networks import Networks


def context_of(connection: Connection) -> ConnectionContext:
    """The connection's context; created if missing."""
    if connection.context is None:
        connection.context = ConnectionContext()
    return connection.context


def ip_context_of(connection: Connection) -> IpContext:
    """The connection's IP context; created if missing."""
    context = context_of(connection)
    if context.ip_context is None:
        context.ip_context = IpContext()
    return context.ip_context


def add_address(addresses: list[str], address: str) -> None:
    """Add an address unless it is present."""
    if address not in addresses:
        addresses.append(address)


def add_route(routes: list[Route], prefix: str) -> None:
    """Add a route without a next hop, unless there is a route to that prefix."""
    if all(route.prefix != prefix for route in routes):
        routes.append(Route(prefix=prefix))


def host_prefix(address: Address) -> str:
    """The address as a prefix of its own: /32 or /128."""
    return f"{address}/{address.max_prefixlen}"


def interfaces(addresses: Iterable[str]) -> list[Interface]:
    """The addresses that have a prefix length."""
    return [parsed for text in addresses if (parsed := read_interface(text)) is not None]


def src_ip_routes(context: IpContext) -> list[Route]:
    """Routes to the client's addresses, for the endpoint: those that its own networks do not cover."""
    return _uncovered(context.src_ip_addrs, context.dst_ip_addrs)


def dst_ip_routes(context: IpContext) -> list[Route]:
    """Routes to the endpoint's addresses, for the client: those that its own networks do not cover."""
    return _uncovered(context.dst_ip_addrs, context.src_ip_addrs)


def src_routes_with_next_hop(context: IpContext) -> list[Route]:
    """The client's routes; a missing next hop is the endpoint's first address of the same family."""
    return _with_next_hop(context.src_routes, context.dst_ip_addrs)


def dst_routes_with_next_hop(context: IpContext) -> list[Route]:
    """The endpoint's routes; a missing next hop is the client's first address of the same family."""
    return _with_next_hop(context.dst_routes, context.src_ip_addrs)


def policy_routes_with_next_hop(routes: Sequence[Route], context: IpContext) -> list[Route]:
    """Routes of one of the client's policies; a missing next hop is the endpoint's, as in `src_routes`."""
    return _with_next_hop(routes, context.dst_ip_addrs)


def _uncovered(addresses: Sequence[str], by: Sequence[str]) -> list[Route]:
    networks = Networks(interface.network for interface in interfaces(by))
    return [Route(prefix=str(interface)) for interface in interfaces(addresses) if interface.ip not in networks]


def _with_next_hop(routes: Sequence[Route], opposite: Sequence[str]) -> list[Route]:
    ends = interfaces(opposite)
    networks = Networks(end.network for end in ends)
    hops: dict[int, str] = {end.version: str(end.ip) for end in reversed(ends)}  # the first of each family
    return [_complete(codec.clone(route), networks, hops) for route in routes]


def _complete(route: Route, networks: Networks, hops: Mapping[int, str]) -> Route:
    prefix = read_interface(route.prefix)
    if prefix is None or read_address(route.next_hop) is not None or prefix.ip in networks:
        return route
    route.next_hop = hops.get(prefix.version, route.next_hop)
    return route
