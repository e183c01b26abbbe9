"""Parsing of policy routes: protocols and ports as text, as in a connection."""

from __future__ import annotations

from nsm.apis.connectioncontext import PolicyRoute, Route

from .addresses import Address, Network, read_address, read_interface

Ports = tuple[int, int]
"""First and last port, both included."""


def check(policy: PolicyRoute) -> None:
    """Raise ValueError if a policy is invalid, with the reason."""
    source = network(policy.from_) if policy.from_ else None
    protocol(policy.proto)
    ports(policy.dst_port)
    ports(policy.src_port)
    for route in policy.routes:
        next_hop(route)
        if source is not None and source.version != network(route.prefix).version:
            raise ValueError(f"source {source} and route {route.prefix} must be both IPv4 or both IPv6")


def is_to_the_link(policy: PolicyRoute) -> bool:
    """Whether a policy of an ETHERNET wire routes to the link itself, as upstream does: an IPv4 one without routes."""
    if policy.routes:
        return False
    source = read_interface(policy.from_) if policy.from_ else None
    return source is None or source.version == 4


def protocol(text: str) -> int:
    """An IP protocol number; 0 or empty means any."""
    if text and not (_is_number(text) and int(text) <= 255):
        raise ValueError(f"{text!r} is not an IP protocol; expected a number up to 255, such as 6 for TCP")
    return int(text or 0)


def ports(text: str) -> Ports | None:
    """A port, or a range of ports; empty means any."""
    if not text:
        return None
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (_is_number(first) and _is_number(last) and 1 <= int(first) <= int(last) <= 65535):
        raise ValueError(f"{text!r} is not a port or range of ports; expected 80 or 8000-8010, from 1 to 65535")
    return int(first), int(last)


def network(text: str) -> Network:
    """A prefix, host bits allowed."""
    if (interface := read_interface(text)) is None:
        raise ValueError(f"{text!r} is not a prefix; expected one such as 10.0.0.1/32 or fd00::/64")
    return interface.network


def next_hop(route: Route) -> Address | None:
    """The next hop of a route; None if it has none."""
    prefix = network(route.prefix)
    if not route.next_hop:
        return None
    if (address := read_address(route.next_hop)) is None:
        raise ValueError(f"next hop {route.next_hop!r} is not an IP address")
    if address.version != prefix.version:
        raise ValueError(f"route {route.prefix} via {route.next_hop}: both must be IPv4 or both IPv6")
    return address


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5
