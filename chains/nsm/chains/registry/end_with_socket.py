"""Ends the registrations of endpoints whose processes have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Key, MeshError, Presence, RegistryCall, RegistryElement, RegistryHandler, Store
from nsm.chains.logs import log

from .descriptors import Sockets

SOON, LATER = 0.05, 1.0
"""Seconds after the end of a channel until the sockets are tried: a process that ends closes one after the other, and
may take its time for that."""

RETURNS, _MOST_ENDED = 60.0, 1_024
"""Seconds for which a registration that ended is remembered, and how many are."""
_AWAY, _FIND_TIMEOUT = 5.0, 5.0
"""Seconds between two attempts to reach a registry that is away, and the time for each."""
WIRES_ELSEWHERE = "wiresElsewhere"
"""The label of an endpoint whose wires do not end in its own network namespace, and stay when its process ends."""
Endpoint = NetworkServiceEndpoint
Listens = Callable[[str], Awaitable[bool]]
"""Whether a process listens at a URL."""


class EndWithSocket(RegistryElement[NetworkServiceEndpoint]):
    """Unregister an endpoint of this node as soon as no process listens on the socket that it registered.

    Its record would otherwise stay until it expires, and clients on all nodes would be sent to it. When a channel of
    the identity that registered it is closed (`presence`), its socket among `sockets` is tried. Records of
    `forwarders`, a network service, stay, and those with the label `WIRES_ELSEWHERE`: their connections outlive them.
    Stands behind `ReceiveUrl`.

    While the registry is away nothing ends: an endpoint that comes back then could not register again.

    An endpoint that the same identity registers again within `RETURNS` seconds was started again: its record says since
    when it was registered before. By that endpoints of a vL3 decide who requests a wire from whom.
    """

    def __init__(self, sockets: Sockets, presence: Presence, listens: Listens, *, forwarders: str) -> None:
        self._sockets, self._listens, self._forwarders = sockets, listens, forwarders
        self._timer: Key[None] = Key("look at the socket of an endpoint")
        self._known: Key[tuple[str, str]] = Key("who registered a socket, and its URL")
        self._of: dict[str, dict[str, Store]] = {}
        """The registrations with sockets, by the SPIFFE ID that registered them."""
        self._since: Key[Timestamp] = Key("since when an endpoint is registered")
        self._ended: dict[str, tuple[str, Timestamp, float]] = {}
        """By name: who had registered it and since when, and until when (loop time) that is remembered."""
        self._registry: RegistryHandler[Endpoint] | None = None
        presence.when_left(self._look_at_all_of)

    async def register(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> Endpoint:
        """Note the socket, and who registers it."""
        url, peer = call.record.url, call.peer
        if peer is not None and call.record.initial_registration_time is None:
            call.record.initial_registration_time = self._before(call.record.name, peer.spiffe_id)
        record = await rest.register(call)
        if peer is not None and url in self._sockets and not self._is_outlived(call.record):
            self._note(call.live, peer.spiffe_id, url, rest)
            if record.initial_registration_time is not None:
                call.live.put(self._since, record.initial_registration_time)
        return record

    def _is_outlived(self, record: Endpoint) -> bool:
        labels = record.network_service_labels.values()
        return self._forwarders in record.network_service_names or any(
            WIRES_ELSEWHERE in each.labels for each in labels
        )

    def _before(self, name: str, who: str) -> Timestamp | None:
        owner, since, until = self._ended.get(name, ("", None, 0.0))
        return since if owner == who and asyncio.get_running_loop().time() < until else None

    def _remember(self, name: str, who: str, since: Timestamp | None) -> None:
        self._ended.pop(name, None)
        if since is not None:
            self._ended[name] = who, since, asyncio.get_running_loop().time() + RETURNS
        while len(self._ended) > _MOST_ENDED:
            del self._ended[next(iter(self._ended))]

    def _note(self, store: Store, who: str, url: str, registry: RegistryHandler[Endpoint]) -> None:
        if store.get(self._known) is None:
            store.on_end(partial(self._forget, store))
        else:
            self._forget(store)  # the name may be another one's by now
        store.put(self._known, (who, url))
        self._registry = registry
        store.unschedule(self._timer)
        self._of.setdefault(who, {})[store.connection_id] = store

    def _forget(self, store: Store) -> None:
        if (known := store.get(self._known)) is None:
            return
        left = self._of.get(known[0], {})
        left.pop(store.connection_id, None)
        if not left:
            self._of.pop(known[0], None)

    def _look_at_all_of(self, who: str) -> None:
        now = asyncio.get_running_loop().time()
        for store in self._of.get(who, {}).values():
            store.schedule(self._timer, now + SOON, partial(self._look, store, now + LATER))

    async def _look(self, store: Store, again: float | None = None) -> None:
        if (known := store.get(self._known)) is None:
            return
        if await self._listens(known[1]):
            if again is not None:
                store.schedule(self._timer, again, partial(self._look, store))
            return
        if not await self._is_registry_there():
            store.schedule(self._timer, asyncio.get_running_loop().time() + _AWAY, partial(self._look, store))
            return
        log.info("an endpoint's process has ended: its registration ends", endpoint=store.connection_id)
        self._remember(store.connection_id, known[0], store.get(self._since))
        await store.events.close(still=lambda: store.get(self._known) == known)

    async def _is_registry_there(self) -> bool:
        """Whether it can be queried: for a name that does not exist, since no cache answers that."""
        assert self._registry is not None
        call = RegistryCall(Endpoint(name="-"), deadline=asyncio.get_running_loop().time() + _FIND_TIMEOUT)
        try:
            async for _ in self._registry.find(call):
                pass
        except MeshError:
            return False
        return True
