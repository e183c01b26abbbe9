"""Ends the registrations of endpoints whose processes have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Key, Presence, RegistryCall, RegistryElement, RegistryHandler, Store
from nsm.chains.logs import log

from .descriptors import Sockets

SOON, LATER = 0.05, 1.0
"""Seconds after the end of a channel until the sockets are tried: a process that ends closes one after the other, and
may take its time for that."""

Endpoint = NetworkServiceEndpoint
Listens = Callable[[str], Awaitable[bool]]
"""Whether a process listens at a URL."""


class EndWithSocket(RegistryElement[NetworkServiceEndpoint]):
    """Unregister an endpoint of this node as soon as no process listens on the socket that it registered.

    Its record would otherwise stay until it expires, and clients on all nodes would be sent to it. When a channel of
    the identity that registered it is closed (`presence`), its socket among `sockets` is tried. Records of
    `forwarders`, a network service, stay: their connections outlive them. Stands behind `ReceiveUrl`.
    """

    def __init__(self, sockets: Sockets, presence: Presence, listens: Listens, *, forwarders: str) -> None:
        self._sockets, self._listens, self._forwarders = sockets, listens, forwarders
        self._timer: Key[None] = Key("look at the socket of an endpoint")
        self._url: Key[str] = Key("URL of the socket")
        self._of: dict[str, dict[str, Store]] = {}
        """The registrations with sockets, by the SPIFFE ID that registered them."""
        presence.when_left(self._look_at_all_of)

    async def register(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> Endpoint:
        """Note the socket, and who registers it."""
        url, peer = call.record.url, call.peer
        record = await rest.register(call)
        if peer is not None and url in self._sockets and self._forwarders not in call.record.network_service_names:
            store, who = call.live, peer.spiffe_id
            if store.get(self._url) is None:
                store.on_end(partial(self._forget, store, who))
            store.put(self._url, url)
            store.unschedule(self._timer)
            self._of.setdefault(who, {})[store.connection_id] = store
        return record

    def _forget(self, store: Store, who: str) -> None:
        left = self._of.get(who, {})
        left.pop(store.connection_id, None)
        if not left:
            self._of.pop(who, None)

    def _look_at_all_of(self, who: str) -> None:
        now = asyncio.get_running_loop().time()
        for store in self._of.get(who, {}).values():
            store.schedule(self._timer, now + SOON, partial(self._look, store, now + LATER))

    async def _look(self, store: Store, again: float | None = None) -> None:
        url = store.get(self._url)
        if url is None:
            return
        if await self._listens(url):
            if again is not None:
                store.schedule(self._timer, again, partial(self._look, store))
            return
        log.info("an endpoint's process has ended: its registration ends", endpoint=store.connection_id)
        await store.events.close(still=lambda: store.get(self._url) == url)
