"""Addresses of a wire, from the endpoint's own prefixes: one for either end."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import IpContext
from nsm.chains.core import Call, Element, Exhausted, Handler, Key, Store
from nsm.chains.model.addresses import Address, Interface
from nsm.chains.model.ipcontext import add_address, add_route, host_prefix, interfaces, ip_context_of
from nsm.chains.model.networks import Networks
from nsm.chains.model.prefixes import MORE_ADDRESSES, Excluded, PrefixPool

from .former_wires import names_of

_NOTHING = Excluded(())
_REST = 60.0
"""Seconds that a free address is kept back after a client requested it in vain, unless no other is left: it may be
on that client's interface."""
_RESTING, _FEWEST_RESTING = 8, 8
"""The part of the addresses that may be kept back for one client, and the least number."""

_Taken = tuple[PrefixPool, Address]


@dataclass(slots=True)
class _Lease:
    """The addresses of one wire: two of a pool."""

    dst: Address
    src: Address
    taken: Sequence[_Taken]
    _held: set[_Taken] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._held.update(self.taken)

    def give(self) -> None:
        """Return all of them."""
        while self._held:
            pool, address = self._held.pop()
            pool.give(address)

    def take_again(self) -> None:
        """Take those that are still free."""
        self._held.update((pool, address) for pool, address in self.taken if pool.claim(address, _NOTHING))

    def is_in(self, excluded: Excluded) -> bool:
        """Whether one of the two addresses is excluded."""
        return self.dst in excluded or self.src in excluded


class Point2PointIpam(Element):
    """Give the endpoint the lowest free address and the client the next one, with routes to each other.

    The first of `prefixes` that has two addresses left is used. A client that names addresses which are free here
    keeps them (so that they survive a restart of the endpoint). An address that the client excludes later is
    replaced; until the request has succeeded the old ones stay the wire's. Raises `Exhausted` if no prefix has two
    addresses left, `InvalidRequest` for a malformed one of `prefixes`.
    """

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._prefixes = tuple(prefixes)
        self._pools = [PrefixPool(prefix) for prefix in prefixes]
        self.networks = Networks(pool.network for pool in self._pools)
        """The prefixes that the addresses are from."""
        self._lease: Key[_Lease] = Key("addresses")
        self._resting: list[tuple[float, str, _Taken]] = []
        self._most_resting = max(_FEWEST_RESTING, self.networks.size // _RESTING)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Fill in the addresses and routes of `context.ip_context`."""
        context = ip_context_of(call.connection)
        excluded = Excluded(context.excluded_prefixes)
        before = call.live.get(self._lease)
        if before is None:
            lease = self._begin(call, context, excluded)
        elif before.is_in(excluded):
            lease = self._replace(call, before, context, excluded)
        else:
            lease = before
        _assign(lease, context)
        connection = await rest.request(call)
        if before is not None and before is not lease:
            before.give()
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Return the addresses."""
        try:
            await rest.close(call)
        finally:
            self._end(call.live)

    def given(self, call: Call) -> set[Interface]:
        """The addresses that this element gave to the call's connection."""
        lease = call.live.get(self._lease)
        return set(map(ipaddress.ip_interface, (lease.src, lease.dst))) if lease is not None else set()

    def hold(self, name: str, addresses: Collection[Address]) -> None:
        """See `Holds`."""
        for pool in self._pools:
            for address in addresses:
                pool.hold(name, address)

    def release(self, name: str) -> None:
        """See `Holds`."""
        for pool in self._pools:
            pool.release(name)

    def _begin(self, call: Call, context: IpContext, excluded: Excluded) -> _Lease:
        call.live.on_end(partial(self._end, call.live))
        call.undo.add(partial(self._end, call.live))
        return call.live.put(self._lease, self._lease_for(call, context, excluded))

    def _replace(self, call: Call, before: _Lease, context: IpContext, excluded: Excluded) -> _Lease:
        _withdraw(before, context)
        before.give()
        try:
            lease = self._lease_for(call, context, excluded)
        finally:
            before.take_again()
        call.undo.add(partial(self._restore, call.live, before))
        return call.live.put(self._lease, lease)

    def _restore(self, live: Store, before: _Lease) -> None:
        self._end(live)
        before.take_again()
        live.put(self._lease, before)

    def _end(self, live: Store) -> None:
        if (lease := live.pop(self._lease)) is not None:
            lease.give()

    def _lease_for(self, call: Call, context: IpContext, excluded: Excluded) -> _Lease:
        self._end_rests()
        named: list[_Taken] = []
        if context.src_ip_addrs and context.dst_ip_addrs:
            names = names_of(call)
            sources, destinations = interfaces(context.src_ip_addrs), interfaces(context.dst_ip_addrs)
            for pool in self._pools:
                src = _claim_first(pool, sources, excluded, names, named)
                dst = _claim_first(pool, destinations, excluded, names, named)
                if src is not None and dst is not None:
                    named = [each for each in named if each not in ((pool, src), (pool, dst))]
                    self._rest(call.origin, named)
                    return _Lease(dst, src, [(pool, dst), (pool, src)])
        self._rest(call.origin, named)
        lease = self._allocate(excluded)
        while lease is None and self._resting:
            self._free(self._resting[:1])
            lease = self._allocate(excluded)
        if lease is None:
            left_out = f", without {excluded}" if str(excluded) else ""
            raise Exhausted(
                f"no two addresses are left in {', '.join(self._prefixes)}{left_out}", remedy=MORE_ADDRESSES
            )
        return lease

    def _allocate(self, excluded: Excluded) -> _Lease | None:
        for pool in self._pools:
            if (dst := pool.pull(excluded)) is None:
                continue
            if (src := pool.pull(excluded)) is not None:
                return _Lease(dst, src, [(pool, dst), (pool, src)])
            pool.give(dst)
        return None

    def _rest(self, client: str, named: Sequence[_Taken]) -> None:
        """Keep back for a while the free addresses that a client requested, up to its limit."""
        until = asyncio.get_running_loop().time() + _REST
        self._resting += [(until, client, taken) for taken in named]
        its = [each for each in self._resting if each[1] == client] if named else []
        self._free(its[: max(0, len(its) - self._most_resting)])

    def _end_rests(self) -> None:
        now = asyncio.get_running_loop().time()
        self._free([each for each in self._resting if each[0] <= now])

    def _free(self, rested: Sequence[tuple[float, str, _Taken]]) -> None:
        for each in rested:
            self._resting.remove(each)
            _, _, (pool, address) = each
            pool.give(address)


def _claim_first(
    pool: PrefixPool, wanted: Iterable[Interface], excluded: Excluded, names: Collection[str], named: list[_Taken]
) -> Address | None:
    for interface in wanted:
        if pool.claim(interface.ip, excluded, names):
            named.append((pool, interface.ip))
            return interface.ip
    return None


def _assign(lease: _Lease, context: IpContext) -> None:
    dst, src = host_prefix(lease.dst), host_prefix(lease.src)
    add_address(context.dst_ip_addrs, dst)
    add_address(context.src_ip_addrs, src)
    add_route(context.src_routes, dst)
    add_route(context.dst_routes, src)


def _withdraw(lease: _Lease, context: IpContext) -> None:
    dst, src = host_prefix(lease.dst), host_prefix(lease.src)
    context.dst_ip_addrs = [address for address in context.dst_ip_addrs if address != dst]
    context.src_ip_addrs = [address for address in context.src_ip_addrs if address != src]
    context.src_routes = [route for route in context.src_routes if route.prefix != dst]
    context.dst_routes = [route for route in context.dst_routes if route.prefix != src]
