"""Addresses of a wire are the endpoint's own and no others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import Route
from nsm.chains.core import Call, Element, Handler
from nsm.chains.model.addresses import Address
from nsm.chains.model.ipcontext import interfaces, ip_context_of


class Ipam(Protocol):
    """An element that gives addresses out."""

    def given(self, call: Call) -> Collection[Address]:
        """The addresses that the call's connection has from it."""
        ...


class StrictIpam(Element):
    """Take from a connection every address that it does not have from one of `ipams`, with the routes to it.

    A client that comes from another endpoint brings that one's addresses along: without this element (the polite
    way) it keeps them. Stands behind the `ipams`, which first let a client have its own addresses again.
    """

    def __init__(self, ipams: Sequence[Ipam]) -> None:
        self._ipams = tuple(ipams)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Remove what is not ours."""
        own = {address for ipam in self._ipams for address in ipam.given(call)}
        context = ip_context_of(call.connection)
        context.src_ip_addrs, foreign_src = _sorted_out(context.src_ip_addrs, own)
        context.dst_ip_addrs, foreign_dst = _sorted_out(context.dst_ip_addrs, own)
        context.src_routes = [route for route in context.src_routes if not _leads_to(route, foreign_dst)]
        context.dst_routes = [route for route in context.dst_routes if not _leads_to(route, foreign_src)]
        return await rest.request(call)


def _sorted_out(addresses: Sequence[str], own: Collection[Address]) -> tuple[list[str], set[Address]]:
    """The addresses that are our own, and those that are not; what is no address is neither."""
    kept = [text for text in addresses if any(interface.ip in own for interface in interfaces([text]))]
    return kept, {interface.ip for interface in interfaces(addresses)} - set(own)


def _leads_to(route: Route, foreign: Collection[Address]) -> bool:
    hosts = [interface.ip for interface in interfaces([route.prefix]) if interface.network.num_addresses == 1]
    return any(host in foreign for host in hosts) or route.next_hop in {str(address) for address in foreign}
