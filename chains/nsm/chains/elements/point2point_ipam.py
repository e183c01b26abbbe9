"""Addresses of a wire, out of the endpoint's own prefixes: one for either end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import IpContext
from nsm.chains.core import Call, Element, Exhausted, Handler, Key
from nsm.chains.model.ipcontext import add_address, add_route, host_prefix, interfaces, ip_context_of
from nsm.chains.model.prefixes import Address, Network, PrefixPool, parse_network


@dataclass(slots=True)
class _Pair:
    """The two addresses of one wire, and where they came from."""

    pool: PrefixPool
    dst: Address
    src: Address
    given: bool = False

    def give(self) -> None:
        """Put both back, once."""
        if not self.given:
            self.given = True
            self.pool.give(self.dst)
            self.pool.give(self.src)


class Point2PointIpam(Element):
    """Give the endpoint the lowest free address and the client the next one, with routes to each other.

    The first of `prefixes` that has two addresses left is used. A client that names addresses which are free here
    keeps them (so that they survive a restart of the endpoint). An address that the client excludes later is
    replaced. Raises `Exhausted` if no prefix has two addresses left, `InvalidRequest` for a malformed prefix.
    """

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._prefixes = tuple(prefixes)
        self._pools = [PrefixPool(prefix) for prefix in prefixes]
        self._pair: Key[_Pair] = Key("addresses")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Fill in the addresses and routes of `context.ip_context`."""
        context = ip_context_of(call.connection)
        excluded = [parse_network(prefix) for prefix in context.excluded_prefixes]
        pair = call.live.get(self._pair)
        if pair is not None and _is_excluded(pair, excluded):
            _withdraw(pair, context)
            self._end(call, pair)
            pair = None
        if pair is None:
            pair = self._recover(context, excluded) or self._allocate(excluded)
            call.live.put(self._pair, pair)
            call.live.on_end(pair.give)
            call.undo.add(partial(self._end, call, pair))
        _assign(pair, context)
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Give the addresses back."""
        try:
            await rest.close(call)
        finally:
            if (pair := call.live.get(self._pair)) is not None:
                self._end(call, pair)

    def given(self, call: Call) -> set[Address]:
        """The addresses that the call's connection has from here."""
        pair = call.live.get(self._pair)
        return {pair.src, pair.dst} if pair is not None else set()

    def _end(self, call: Call, pair: _Pair | None) -> None:
        if pair is not None and call.live.pop(self._pair) is pair:
            pair.give()

    def _recover(self, context: IpContext, excluded: Sequence[Network]) -> _Pair | None:
        for dst in interfaces(context.dst_ip_addrs):
            for src in interfaces(context.src_ip_addrs):
                for pool in self._pools:
                    if pool.claim(dst.ip, excluded):
                        if pool.claim(src.ip, excluded):
                            return _Pair(pool, dst.ip, src.ip)
                        pool.give(dst.ip)
        return None

    def _allocate(self, excluded: Sequence[Network]) -> _Pair:
        for pool in self._pools:
            if (dst := pool.pull(excluded)) is None:
                continue
            if (src := pool.pull(excluded)) is not None:
                return _Pair(pool, dst, src)
            pool.give(dst)
        left_out = f", without {', '.join(map(str, excluded))}" if excluded else ""
        raise Exhausted(f"no two addresses are left in {', '.join(self._prefixes)}{left_out}")


def _is_excluded(pair: _Pair, excluded: Sequence[Network]) -> bool:
    return any(address in network for address in (pair.dst, pair.src) for network in excluded)


def _assign(pair: _Pair, context: IpContext) -> None:
    dst, src = host_prefix(pair.dst), host_prefix(pair.src)
    add_address(context.dst_ip_addrs, dst)
    add_address(context.src_ip_addrs, src)
    add_route(context.src_routes, dst)
    add_route(context.dst_routes, src)


def _withdraw(pair: _Pair, context: IpContext) -> None:
    dst, src = host_prefix(pair.dst), host_prefix(pair.src)
    context.dst_ip_addrs = [address for address in context.dst_ip_addrs if address != dst]
    context.src_ip_addrs = [address for address in context.src_ip_addrs if address != src]
    context.src_routes = [route for route in context.src_routes if route.prefix != dst]
    context.dst_routes = [route for route in context.dst_routes if route.prefix != src]
