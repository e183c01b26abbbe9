"""What the policies of a connection mean to the kernel: which packets, and where to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from nsm.apis.connectioncontext import IpContext, PolicyRoute, Route
from nsm.chains.core import InvalidRequest
from nsm.chains.model import ipcontext

from .netlink.messages import Address, Network
from .netlink.rules import Ports, Selector

Routes = Mapping[Network, Address | None]
"""Where packets go: prefixes, each with its next hop (None: whoever has the address on the link)."""
Policies = Mapping[Selector, Routes]
"""In the order in which they are tried."""

MOST_POLICIES = 1000
_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}


def policies_of(context: IpContext) -> dict[Selector, dict[Network, Address | None]]:
    """The policies of a connection. Raises `InvalidRequest` that names the policy and what is wrong with it.

    One without routes sends everything to the endpoint. One that names no family (neither a source nor routes) is
    for each family in which the client has addresses. Several that select the same packets are one.
    """
    if len(context.policies) > MOST_POLICIES:
        raise InvalidRequest(f"{len(context.policies)} policy routes are too many; at most {MOST_POLICIES} will do")
    found: dict[Selector, dict[Network, Address | None]] = {}
    for number, policy in enumerate(context.policies, 1):
        try:
            for selector, prefix, via in _routes(policy, context):
                found.setdefault(selector, {})[prefix] = via
        except ValueError as error:
            raise InvalidRequest(f"policy route {number} ({_told(policy)}) cannot be: {error}") from None
    return found


def _routes(policy: PolicyRoute, context: IpContext) -> Iterator[tuple[Selector, Network, Address | None]]:
    source = _network(policy.from_) if policy.from_ else None
    protocol, ports = _protocol(policy.proto), (_ports(policy.dst_port), _ports(policy.src_port))
    families = [source.version] if source is not None else _families(policy, context)
    routes = policy.routes or [Route(prefix=_DEFAULT[family]) for family in families]
    given = [_next_hop(route) for route in routes]
    for route, hop in zip(ipcontext.policy_routes_with_next_hop(routes, context), given, strict=True):
        prefix, via = _network(route.prefix), hop or _next_hop(route)
        if source is not None and source.version != prefix.version:
            raise ValueError(f"source {source} and route {prefix} must be both IPv4 or both IPv6")
        yield Selector(prefix.version, source, protocol, *ports), prefix, via


def _families(policy: PolicyRoute, context: IpContext) -> Sequence[int]:
    """Without a source and without routes a policy is for the families that the client has."""
    if policy.routes:
        return []
    return sorted({address.version for address in ipcontext.interfaces(context.src_ip_addrs)}) or [4]


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_interface(text).network
    except ValueError:
        raise ValueError(f"{text!r} is no prefix; expected one such as 10.0.0.1/32 or fd00::/64") from None


def _next_hop(route: Route) -> Address | None:
    if not route.next_hop:
        return None
    try:
        address = ipaddress.ip_address(route.next_hop)
    except ValueError:
        raise ValueError(f"next hop {route.next_hop!r} is no IP address") from None
    if address.version != _network(route.prefix).version:
        raise ValueError(f"route {route.prefix} via {route.next_hop}: both must be IPv4 or both IPv6")
    return address


def _protocol(text: str) -> int:
    """0 is any."""
    if text and not (_is_number(text) and int(text) <= 255):
        raise ValueError(f"{text!r} is no IP protocol; expected a number up to 255, such as 6 for TCP")
    return int(text or 0)


def _ports(text: str) -> Ports | None:
    if not text:
        return None
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (_is_number(first) and _is_number(last) and 1 <= int(first) <= int(last) <= 65535):
        raise ValueError(f"{text!r} is no range of ports; expected 80 or 8000-8010, from 1 to 65535")
    return int(first), int(last)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def _told(policy: PolicyRoute) -> str:
    """The policy in one line, as far as it says something."""
    fields = {"from": policy.from_, "proto": policy.proto, "dst_port": policy.dst_port, "src_port": policy.src_port}
    return " ".join(f"{name} {value}" for name, value in fields.items() if value) or "all packets"
