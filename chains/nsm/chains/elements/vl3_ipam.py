"""Addresses and routes of a vL3 network: an endpoint's clients, and the other endpoints that connect to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import IpContext, Route
from nsm.chains.core import Call, Conflict, Element, Exhausted, Handler, InvalidRequest, Key, Store, Unavailable
from nsm.chains.logs import log
from nsm.chains.model.addresses import Address, Interface, Network, read_interface
from nsm.chains.model.ipcontext import host_prefix, interfaces, ip_context_of
from nsm.chains.model.networks import NO_NETWORKS, Networks
from nsm.chains.model.prefixes import Excluded, PrefixPool
from nsm.chains.model.vl3 import Share

from .former_wires import names_of
from .vl3_network import Vl3Network, ask_again


class Vl3Peers(Protocol):
    """Recognizes the other endpoints of a vL3 network."""

    async def endpoint_of(self, call: Call) -> str:
        """The name of the endpoint that makes the call; empty for a client.

        Raises `Refused` for a call that claims to be of an endpoint that another identity registered.
        """
        ...


@dataclass(slots=True)
class _Lease:
    """The address of one client in one family, and the pool that it is from."""

    pool: PrefixPool
    address: Address
    is_given: bool = False

    def give(self) -> None:
        """Return it, once."""
        if not self.is_given:
            self.is_given = True
            self.pool.give(self.address)


@dataclass(frozen=True, slots=True)
class _Connected:
    """The connection of another endpoint, and that one's own id for it."""

    store: Store
    known_as: str


class Vl3Ipam(Element):
    """Give each client an address of every share, and routes to the whole network; connect other endpoints by routes.

    A client has this endpoint's addresses and routes, and no others: those that it brings from another endpoint are
    removed. An address of this endpoint's own prefix that is free, or held for the client's former wire, stays the
    client's. When a share changes, clients are asked to request again, and get addresses of the new one.

    Another endpoint (see `Vl3Peers`) brings its own address and its prefix, and gets this one's. Raises `Conflict` if
    that prefix is this endpoint's or another one's too, `Exhausted` if no address is left, `Unavailable` before all
    shares are known.
    """

    def __init__(self, network: Vl3Network, peers: Vl3Peers, requested: Container[str] = ()) -> None:
        self._network, self._peers = network, peers
        self.requested = requested
        """The names of interfaces of the endpoint's own wires to others (see `Requests`)."""
        self._leases: Key[dict[int, _Lease]] = Key("addresses")
        self._endpoint: Key[str] = Key("name of the endpoint that makes the calls")
        self._stores: dict[str, Store] = {}
        self._connected: dict[str, _Connected] = {}
        """The connections of other endpoints, by name."""
        self._prefixes: dict[str, tuple[str, Sequence[Network]]] = {}
        """The names and prefixes of other endpoints, by connection."""
        network.on_change(self._share_changed)

    @property
    def networks(self) -> Networks:
        """The prefixes that the addresses are from."""
        return self._network.prefixes

    def given(self, call: Call) -> set[Interface]:
        """The addresses that this element gave to the call's connection."""
        leases = call.live.get(self._leases) or {}
        own = self._network.own()
        return {ipaddress.ip_interface(host_prefix(each)) for each in (*own, *(one.address for one in leases.values()))}

    def hold(self, name: str, addresses: Collection[Address]) -> None:
        """See `Holds`."""
        self._network.hold(name, addresses)

    def release(self, name: str) -> None:
        """See `Holds`."""
        self._network.release(name)

    async def admitted(self, call: Call) -> Networks:
        """See `AdmitsMore`: other endpoints bring their addresses and prefixes; one has a single connection here.

        A second one replaces the first. If both are the same one to the endpoint, its forwarder replaces the wire.
        """
        name = await self._endpoint_of(call)
        if not name:
            return NO_NETWORKS
        former, known_as = self._connected.get(name), _known_as(call)
        if former is not None and former.store is not call.live and former.known_as != known_as:
            log.info("an endpoint connects again: closing its earlier connection", endpoint=name)
            await former.store.events.close()
        return self._network.whole

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Fill in the addresses and routes of `context.ip_context`."""
        if not self._network.is_ready:
            raise Unavailable(
                "this endpoint has no prefix yet: its prefix service has not answered",
                remedy="check that the prefix service (`nsm ipam`) runs and that the endpoint reaches it",
            )
        store, context = call.live, ip_context_of(call.connection)
        if store.connection_id not in self._stores:
            self._stores[store.connection_id] = store
            store.on_end(partial(self._forget, store))
        name = await self._endpoint_of(call)
        if name:
            self._connect(call, name, context)
        else:
            self._serve(call, context)
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Return the addresses."""
        try:
            await rest.close(call)
        finally:
            self._end(call.live)

    async def _endpoint_of(self, call: Call) -> str:
        name = call.live.get(self._endpoint)
        if name is None:
            name = call.live.put(self._endpoint, await self._peers.endpoint_of(call))
        return name

    # --- clients

    def _serve(self, call: Call, context: IpContext) -> None:
        leases = call.live.setdefault(self._leases, dict)
        excluded, brought = Excluded(context.excluded_prefixes), interfaces(context.src_ip_addrs)
        for number, (share, pool) in enumerate(self._network.pools()):
            lease = leases.get(number)
            if lease is not None and (lease.pool is not pool or lease.address in excluded):
                lease.give()
                lease = None
            if lease is None:
                lease = leases[number] = self._lease(call, share, pool, brought, excluded)
                call.undo.add(partial(_drop, leases, number, lease))
        shares = self._network.shares
        context.src_ip_addrs = [host_prefix(leases[number].address) for number in range(len(shares))]
        context.dst_ip_addrs = [host_prefix(share.own) for share in shares]
        context.src_routes = [
            *_routes_to(shares),
            *(Route(str(share.whole), str(share.own)) for share in shares if share.whole != share.prefix),
        ]  # the whole network last: upstream's endpoints look for it there
        context.dst_routes = [Route(prefix=address) for address in context.src_ip_addrs]
        context.ip_neighbors = []

    def _lease(
        self, call: Call, share: Share, pool: PrefixPool, brought: Sequence[Interface], excluded: Excluded
    ) -> _Lease:
        for interface in brought:
            if interface.ip in pool.network and pool.claim(interface.ip, excluded, names_of(call)):
                return _Lease(pool, interface.ip)
        left_out = Excluded([*share.excluded, *map(str, excluded.networks)]) if share.excluded else excluded
        if (address := pool.pull(left_out)) is None:
            without = f", without {left_out}" if str(left_out) else ""
            raise Exhausted(
                f"no address is left in {share.prefix}{without}: start another endpoint, or have the prefix service "
                "hand out larger prefixes (NSM_CLIENT_PREFIX_LEN)"
            )
        return _Lease(pool, address)

    # --- other endpoints

    def _connect(self, call: Call, name: str, context: IpContext) -> None:
        shares = {share.version: share for share in self._network.shares}
        sources = [each for each in interfaces(context.src_ip_addrs) if each.ip in self._network.whole]
        if not sources:
            raise InvalidRequest(f"the endpoint {name} brings no address of {self._network.whole}")
        prefixes = [each for each in _prefixes(context.dst_routes) if self._network.whole.cover(each)]
        self._check(name, [*(each.network for each in sources), *prefixes])
        served = [shares[each.version] for each in sources if each.version in shares]
        context.src_ip_addrs = [str(each) for each in sources]
        context.dst_ip_addrs = [host_prefix(share.own) for share in served]
        context.src_routes = _routes_to(served)
        hops = {each.version: each.ip for each in sources}
        context.dst_routes = [
            *(Route(prefix=str(each)) for each in sources),
            *(Route(str(each), str(hops[each.version])) for each in prefixes if each.version in hops),
        ]
        context.ip_neighbors = []
        self._connected[name] = _Connected(call.live, _known_as(call))
        self._prefixes[call.live.connection_id] = name, prefixes

    def _check(self, name: str, theirs: Sequence[Network]) -> None:
        """Raise `Conflict` if any of `theirs` is this endpoint's own, or another one's."""
        others = [one for other, several in self._prefixes.values() if other != name for one in several]
        taken = [share.prefix for share in self._network.shares]
        for each in theirs:
            for what, networks in (("this endpoint", taken), ("another endpoint", others)):
                if (same := next((one for one in networks if _overlap(one, each)), None)) is not None:
                    raise Conflict(
                        f"{name} has {each}, but {what} has {same}: each endpoint of a vL3 needs a prefix of its own, "
                        "from one prefix service for all"
                    )

    # --- changes

    def _share_changed(self) -> None:
        for store in list(self._stores.values()):
            ask_again(store)

    def _end(self, store: Store) -> None:
        for lease in (store.pop(self._leases) or {}).values():
            lease.give()
        self._prefixes.pop(store.connection_id, None)
        name = store.get(self._endpoint)
        if name and (connected := self._connected.get(name)) is not None and connected.store is store:
            del self._connected[name]

    def _forget(self, store: Store) -> None:
        self._end(store)
        self._stores.pop(store.connection_id, None)


def _known_as(call: Call) -> str:
    path = call.connection.path
    return path.path_segments[0].id if path is not None and path.path_segments else ""


def _drop(leases: dict[int, _Lease], number: int, lease: _Lease) -> None:
    if leases.get(number) is lease:
        del leases[number]
    lease.give()


def _routes_to(shares: Sequence[Share]) -> list[Route]:
    """Routes to endpoints, and by them to their prefixes."""
    return [Route(str(each), str(share.own)) for share in shares for each in (host_prefix(share.own), share.prefix)]


def _prefixes(routes: Sequence[Route]) -> list[Network]:
    """The networks that routes lead to, without single addresses."""
    read = (read_interface(route.prefix) for route in routes)
    return [each.network for each in read if each is not None and each.network.num_addresses > 1]


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
