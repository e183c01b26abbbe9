"""Addresses of a segment that many clients share, from the endpoint's own prefixes: one for each client."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Exhausted, Handler, Key
from nsm.chains.model.addresses import Address, Interface
from nsm.chains.model.ipcontext import add_address, interfaces, ip_context_of
from nsm.chains.model.networks import Networks
from nsm.chains.model.prefixes import MORE_ADDRESSES, Excluded, PrefixPool

from .former_wires import names_of

_NOTHING = Excluded(())


@dataclass(slots=True)
class _Lease:
    """The address of one client, and the pool that it is from."""

    pool: PrefixPool
    address: Address
    given: bool = False

    def __str__(self) -> str:
        """With the prefix's own length: the others of the segment are neighbors."""
        return f"{self.address}/{self.pool.network.prefixlen}"

    def give(self) -> None:
        """Return it, once."""
        if not self.given:
            self.given = True
            self.pool.give(self.address)


class SinglePointIpam(Element):
    """Give the client the lowest free address, with the length of its prefix; the endpoint's end has none.

    The lowest address of each prefix is reserved for the endpoint, and IPv4's broadcast address is not given out. The
    first of `prefixes` that has an address left is used. A client that requests a free address keeps it. An address
    that the client excludes later is replaced. Raises `Exhausted` if nothing is left, `InvalidRequest` for a malformed
    prefix.
    """

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._prefixes = tuple(prefixes)
        self._pools = [_pool(prefix) for prefix in prefixes]
        self.networks = Networks(pool.network for pool in self._pools)
        """The prefixes that the addresses are from."""
        self._lease: Key[_Lease] = Key("address")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Fill in the client's address."""
        context = ip_context_of(call.connection)
        excluded = Excluded(context.excluded_prefixes)
        lease = call.live.get(self._lease)
        if lease is not None and lease.address in excluded:
            context.src_ip_addrs = [address for address in context.src_ip_addrs if address != str(lease)]
            self._end(call, lease)
            lease = None
        if lease is None:
            lease = self._recover(call, context.src_ip_addrs, excluded) or self._allocate(excluded)
            call.live.put(self._lease, lease)
            call.live.on_end(lease.give)
            call.undo.add(partial(self._end, call, lease))
        add_address(context.src_ip_addrs, str(lease))
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Return the address."""
        try:
            await rest.close(call)
        finally:
            if (lease := call.live.get(self._lease)) is not None:
                self._end(call, lease)

    def given(self, call: Call) -> set[Interface]:
        """The addresses that this element gave to the call's connection."""
        lease = call.live.get(self._lease)
        return {ipaddress.ip_interface(str(lease))} if lease is not None else set()

    def hold(self, name: str, addresses: Collection[Address]) -> None:
        """See `Holds`."""
        for pool in self._pools:
            for address in addresses:
                pool.hold(name, address)

    def release(self, name: str) -> None:
        """See `Holds`."""
        for pool in self._pools:
            pool.release(name)

    def _end(self, call: Call, lease: _Lease) -> None:
        if call.live.pop(self._lease) is lease:
            lease.give()

    def _recover(self, call: Call, addresses: Sequence[str], excluded: Excluded) -> _Lease | None:
        for interface in interfaces(addresses):
            for pool in self._pools:
                if pool.claim(interface.ip, excluded, names_of(call)):
                    return _Lease(pool, interface.ip)
        return None

    def _allocate(self, excluded: Excluded) -> _Lease:
        for pool in self._pools:
            if (address := pool.pull(excluded)) is not None:
                return _Lease(pool, address)
        left_out = f", without {excluded}" if str(excluded) else ""
        raise Exhausted(f"no address is left in {', '.join(self._prefixes)}{left_out}", remedy=MORE_ADDRESSES)


def _pool(prefix: str) -> PrefixPool:
    pool = PrefixPool(prefix)
    pool.pull(_NOTHING)
    if isinstance(pool.network, ipaddress.IPv4Network) and pool.network.prefixlen < 31:
        pool.claim(pool.network.broadcast_address, _NOTHING)
    return pool
