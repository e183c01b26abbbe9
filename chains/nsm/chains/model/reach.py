"""Which destinations a wire takes over at either end: packets to them go over the wire, not where they went before.

The same few texts occur in every refresh, so their meaning is cached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from nsm.apis.connectioncontext import IpContext, PolicyRoute, Route

from .addresses import Network, read_interface
from .networks import EVERYTHING, NO_NETWORKS, Networks, host_fault, route_fault

_DEFAULTS = ("0.0.0.0/0", "::/0")
_Field = tuple[str, Sequence[str], Sequence[str]]
"""A field's name, its prefixes, and those that are single addresses of the wire itself, all as text."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What a prefix means for the end that reaches it."""

    network: Network
    text: str
    """The prefix in canonical form."""
    is_single: bool
    as_end: str | None
    """Why it may not be an address of a wire, if so."""
    as_route: str | None
    """Why no route may lead there, if so."""


def client_fault(ip: IpContext, *, accepted: Networks = EVERYTHING, never: Networks = NO_NETWORKS) -> str | None:
    """Which destination of the client's end is not allowed: networks of addresses, the peer's, routes and policies.

    Not allowed are every machine's own networks, those in `never`, and those not `accepted`. Returns None if all are
    allowed.
    """
    return _fault(_of_client(ip), accepted, never)


def endpoint_fault(ip: IpContext, *, never: Networks = NO_NETWORKS) -> str | None:
    """Which destination of the endpoint's end is not allowed, likewise."""
    return _fault(_of_endpoint(ip), EVERYTHING, never)


def policy_fault(policies: Sequence[PolicyRoute], never: Networks) -> str | None:
    """Which policy takes over packets to a network in `never`: policies precede all routes, even narrower ones."""
    for number, policy in enumerate(policies, 1):
        if policy.from_ or policy.dst_port or policy.src_port or policy.proto not in ("", "0"):
            continue
        routes = [route.prefix for route in policy.routes] or _DEFAULTS
        if any(never.overlap(meant.network) for meant in map(_meaning, routes) if meant is not None):
            return f"policy {number} takes over all packets, also those to networks outside the mesh"
    return None


def _of_client(ip: IpContext) -> Iterator[_Field]:
    yield "src_ip_addrs", ip.src_ip_addrs, ip.src_ip_addrs
    yield "dst_ip_addrs", ip.dst_ip_addrs, ip.dst_ip_addrs
    yield "src_routes", _prefixes(ip.src_routes), ip.dst_ip_addrs
    for policy in ip.policies:
        yield "routes of a policy", _prefixes(policy.routes), ip.dst_ip_addrs


def _of_endpoint(ip: IpContext) -> Iterator[_Field]:
    yield "dst_ip_addrs", ip.dst_ip_addrs, ip.dst_ip_addrs
    yield "src_ip_addrs", ip.src_ip_addrs, ip.src_ip_addrs
    yield "dst_routes", _prefixes(ip.dst_routes), ip.src_ip_addrs


def _fault(fields: Iterator[_Field], accepted: Networks, never: Networks) -> str | None:
    for name, prefixes, ends in fields:
        singles = {meant.text for meant in map(_meaning, ends) if meant is not None and meant.is_single}
        for number, meant in enumerate(map(_meaning, prefixes), 1):
            if meant is not None and (wrong := _fault_of(meant, meant.text in singles, accepted, never)) is not None:
                return f"{name} {number}: {meant.text} is {wrong}"
    return None


def _fault_of(meant: _Meaning, is_end: bool, accepted: Networks, never: Networks) -> str | None:
    if (own := meant.as_end if is_end else meant.as_route) is not None:
        return own
    if never and never.cover(meant.network):
        return "in a network outside the mesh"
    if accepted is not EVERYTHING and not accepted.cover(meant.network):
        return f"not in {accepted}"
    return None


@lru_cache(maxsize=4096)
def _meaning(text: str) -> _Meaning | None:
    if (interface := read_interface(text)) is None:
        return None
    network = interface.network
    is_single, first = network.prefixlen == network.max_prefixlen, network.network_address
    return _Meaning(network, str(network), is_single, host_fault(first), route_fault(network))


def _prefixes(routes: Sequence[Route]) -> list[str]:
    return [route.prefix for route in routes]
