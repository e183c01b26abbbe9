"""The policies of a connection in the kernel's terms: selectors and routes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nsm.apis.connectioncontext import IpContext, PolicyRoute, Route
from nsm.chains.core import InvalidRequest
from nsm.chains.model import ipcontext
from nsm.chains.model import policies as texts
from nsm.chains.netlink import Address, Network
from nsm.chains.netlink.rules import Selector

Routes = Mapping[Network, Address | None]
"""The routes: prefixes, each with its next hop (None: on-link)."""
Policies = Mapping[Selector, Routes]
"""In the order in which they are tried."""

_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}


def policies_of(context: IpContext, *, has_frames: bool = False) -> dict[Selector, dict[Network, Address | None]]:
    """The policies of a connection. Raises `InvalidRequest` that names the policy and its fault.

    One without routes sends everything to the endpoint; on a wire that `has_frames`, all of IPv4 is on the link then,
    as upstream has it, and the endpoint's end answers for it. One that names no family (neither a source nor routes)
    is for each family in which the client has addresses. Several that select the same packets are one.
    """
    found: dict[Selector, dict[Network, Address | None]] = {}
    for number, policy in enumerate(context.policies, 1):
        try:
            to_link = has_frames and texts.is_to_the_link(policy)
            for selector, prefix, via in _routes(policy, context):
                found.setdefault(selector, {})[prefix] = None if to_link and selector.version == 4 else via
        except ValueError as error:
            raise InvalidRequest(f"policy route {number} ({_told(policy)}) is invalid: {error}") from None
    return found


def _routes(policy: PolicyRoute, context: IpContext) -> Iterator[tuple[Selector, Network, Address | None]]:
    texts.check(policy)
    source = texts.network(policy.from_) if policy.from_ else None
    protocol, ports = texts.protocol(policy.proto), (texts.ports(policy.dst_port), texts.ports(policy.src_port))
    families = [source.version] if source is not None else _families(policy, context)
    routes = policy.routes or [Route(prefix=_DEFAULT[family]) for family in families]
    for route in ipcontext.policy_routes_with_next_hop(routes, context):
        prefix = texts.network(route.prefix)
        yield Selector(prefix.version, source, protocol, *ports), prefix, texts.next_hop(route)


def _families(policy: PolicyRoute, context: IpContext) -> Sequence[int]:
    """Without a source and without routes a policy is for the families that the client has."""
    if policy.routes:
        return []
    return sorted({address.version for address in ipcontext.interfaces(context.src_ip_addrs)}) or [4]


def _told(policy: PolicyRoute) -> str:
    """The policy in one line, as far as it says something."""
    fields = {"from": policy.from_, "proto": policy.proto, "dst_port": policy.dst_port, "src_port": policy.src_port}
    return " ".join(f"{name} {value}" for name, value in fields.items() if value) or "all packets"
