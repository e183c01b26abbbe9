"""The wire from one endpoint of a vL3 network to another, older one."""

from __future__ import annotations

from functools import partial

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import Route
from nsm.chains.core import Call, Conflict, Element, Handler, Key, MeshError, Store, Unavailable
from nsm.chains.logs import log
from nsm.chains.model.addresses import Network, read_interface
from nsm.chains.model.ipcontext import host_prefix, interfaces, ip_context_of

from .vl3_network import Vl3Network


class Vl3Client(Element):
    """Bring this endpoint's own addresses and routes to its prefixes; always request the same endpoint.

    When a share changes, the wire is requested again. Raises `Conflict` if the other endpoint has an address of this
    one's prefix, `Unavailable` before all shares are known.
    """

    def __init__(self, network: Vl3Network) -> None:
        self._network = network
        self._endpoint: Key[str] = Key("the endpoint to request")
        self._stores: dict[str, Store] = {}
        network.on_change(self._share_changed)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Fill in addresses and routes of this side; check those of the other one."""
        if not self._network.is_ready:
            raise Unavailable("this endpoint has no prefix yet: its prefix service has not answered")
        store, connection = call.live, call.connection
        if store.connection_id not in self._stores:
            self._stores[store.connection_id] = store
            store.on_end(partial(self._forget, store))
        name = store.setdefault(self._endpoint, lambda: connection.network_service_endpoint_name)
        connection.network_service_endpoint_name = name
        context, shares = ip_context_of(connection), self._network.shares
        context.src_ip_addrs = [host_prefix(share.own) for share in shares]
        context.dst_routes = [
            Route(str(each), str(share.own)) for share in shares for each in (host_prefix(share.own), share.prefix)
        ]
        context.excluded_prefixes = []
        answer = await rest.request(call)
        self._check(answer, name)
        return answer

    def _check(self, answer: Connection, name: str) -> None:
        context = ip_context_of(answer)
        prefixes = (read_interface(route.prefix) for route in context.src_routes)
        theirs = [*interfaces(context.dst_ip_addrs), *(each for each in prefixes if each is not None)]
        for each in theirs:
            if self._network.prefixes.overlap(each.network) and not self._is_wide(each.network):
                raise Conflict(
                    f"{name} has {each.network}, which shares addresses with this endpoint's {self._network.prefixes}: "
                    "each endpoint of a vL3 needs a prefix of its own, from one prefix service for all"
                )

    def _is_wide(self, network: Network) -> bool:
        """Whether it is as wide as a whole network: upstream's endpoints send a route to it."""
        return any(
            network.prefixlen <= share.whole.prefixlen < share.prefix.prefixlen for share in self._network.shares
        )

    def _forget(self, store: Store) -> None:
        self._stores.pop(store.connection_id, None)

    def _share_changed(self) -> None:
        for store in list(self._stores.values()):
            store.spawn(_again(store), name="request after a change of the prefix")


async def _again(store: Store) -> None:
    try:
        await store.events.request()
    except MeshError as error:  # its refresh, or healing, tries again
        log.warning("the other endpoint does not have the new prefix yet", wire=store.connection_id, error=str(error))
