"""What a wire takes over at either of its ends: where packets go by it that went elsewhere before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nsm.apis.connectioncontext import IpContext, PolicyRoute, Route

from .addresses import Interface, Network, read_interface
from .networks import EVERYTHING, NO_NETWORKS, Networks, host_fault, route_fault

_DEFAULTS = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(frozen=True, slots=True)
class Reached:
    """One network that an end reaches by its wire."""

    where: str
    """The field that says so, and its number."""
    network: Network
    is_end: bool = False
    """It is a single address of the wire itself."""


def of_client(ip: IpContext) -> Iterator[Reached]:
    """What the client's end reaches: its addresses' networks, the endpoint's addresses, its routes and policies."""
    yield from _of_addresses("src_ip_addrs", ip.src_ip_addrs)
    yield from _of_addresses("dst_ip_addrs", ip.dst_ip_addrs)
    yield from _of_routes("src_routes", ip.src_routes, ip.dst_ip_addrs)
    for number, policy in enumerate(ip.policies, 1):
        yield from _of_routes(f"policy {number}: route", policy.routes, ip.dst_ip_addrs)


def of_endpoint(ip: IpContext) -> Iterator[Reached]:
    """What the endpoint's end reaches."""
    yield from _of_addresses("dst_ip_addrs", ip.dst_ip_addrs)
    yield from _of_addresses("src_ip_addrs", ip.src_ip_addrs)
    yield from _of_routes("dst_routes", ip.dst_routes, ip.src_ip_addrs)


def fault(reached: Iterable[Reached], *, accepted: Networks = EVERYTHING, never: Networks = NO_NETWORKS) -> str | None:
    """Which of `reached` may not be: every machine's own, of networks that are `never` taken, or not `accepted`."""
    for each in reached:
        network = each.network
        own = host_fault(network.network_address) if each.is_end else route_fault(network)
        if own is not None:
            return f"{each.where} {network} is {own}"
        if never.cover(network):
            return f"{each.where} {network} is of a network that is there without the mesh"
        if not accepted.cover(network):
            return f"{each.where} {network} is not of {accepted}"
    return None


def policy_fault(policies: Sequence[PolicyRoute], never: Networks) -> str | None:
    """Which policy takes all packets to a network of `never`: it comes before all routes, however wide its own are."""
    for number, policy in enumerate(policies, 1):
        if policy.from_ or policy.dst_port or policy.src_port or policy.proto not in ("", "0"):
            continue
        routes = [route.prefix for route in policy.routes] or list(_DEFAULTS.values())
        if any(never.overlap(prefix.network) for prefix in map(read_interface, routes) if prefix is not None):
            return f"policy {number} takes all packets, also those to networks that are there without the mesh"
    return None


def _of_addresses(field: str, addresses: Sequence[str]) -> Iterator[Reached]:
    for number, interface in _read(addresses):
        yield Reached(f"{field} {number}", interface.network, is_end=interface.network.num_addresses == 1)


def _of_routes(field: str, routes: Sequence[Route], ends: Sequence[str]) -> Iterator[Reached]:
    singles = {interface.ip for _, interface in _read(ends)}
    for number, interface in _read([route.prefix for route in routes]):
        network = interface.network
        is_end = network.num_addresses == 1 and network.network_address in singles
        yield Reached(f"{field} {number}", network, is_end=is_end)


def _read(texts: Sequence[str]) -> Iterator[tuple[int, Interface]]:
    for number, text in enumerate(texts, 1):
        if (interface := read_interface(text)) is not None:
            yield number, interface
