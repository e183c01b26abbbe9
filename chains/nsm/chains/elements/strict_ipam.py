"""Limits the addresses of a wire to the endpoint's own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import Route
from nsm.chains.core import Call, Element, Handler
from nsm.chains.model.addresses import Address, Interface, read_address, read_interface
from nsm.chains.model.ipcontext import ip_context_of


class Ipam(Protocol):
    """An element that gives addresses."""

    def given(self, call: Call) -> Collection[Interface]:
        """The addresses that it gave to the call's connection."""
        ...


class StrictIpam(Element):
    """Remove from a connection all addresses that are not from one of `ipams`, and all routes but those to them.

    A client that moves from another endpoint brings that one's addresses along: without this element (the polite
    way) it keeps some of them. Stands behind the `ipams`, which first let a client keep its own addresses, and before
    the elements that give routes.
    """

    def __init__(self, ipams: Sequence[Ipam]) -> None:
        self._ipams = tuple(ipams)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Remove foreign addresses and routes."""
        own = {interface for ipam in self._ipams for interface in ipam.given(call)}
        context = ip_context_of(call.connection)
        context.src_ip_addrs, src = _sorted_out(context.src_ip_addrs, own)
        context.dst_ip_addrs, dst = _sorted_out(context.dst_ip_addrs, own)
        context.src_routes = [route for route in context.src_routes if _leads_to(route, dst)]
        context.dst_routes = [route for route in context.dst_routes if _leads_to(route, src)]
        context.ip_neighbors = [each for each in context.ip_neighbors if read_address(each.ip) in src | dst]
        return await rest.request(call)


def _sorted_out(addresses: Sequence[str], own: Collection[Interface]) -> tuple[list[str], set[Address]]:
    """Our own addresses, as texts and as parsed."""
    kept = [(text, each) for text in addresses if (each := read_interface(text)) is not None and each in own]
    return [text for text, _ in kept], {each.ip for _, each in kept}


def _leads_to(route: Route, ends: Collection[Address]) -> bool:
    """Whether a route leads to one of the opposite `ends` itself, and by none but them."""
    prefix, hop = read_interface(route.prefix), read_address(route.next_hop) if route.next_hop else None
    is_end = prefix is not None and prefix.network.num_addresses == 1 and prefix.ip in ends
    return is_end and (not route.next_hop or hop in ends)
