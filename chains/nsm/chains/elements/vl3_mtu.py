"""One MTU for a whole vL3 network: the smallest of all its wires."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, MeshError, Store
from nsm.chains.logs import log
from nsm.chains.model.ipcontext import context_of

from .vl3_network import ask_again

LARGEST = 9000
"""The MTU in bytes to begin with, as upstream's."""


class SmallestMtu:
    """The smallest MTU in bytes of an endpoint's wires, to clients and to other endpoints; it never rises again."""

    def __init__(self, begin: int = LARGEST) -> None:
        self.value = begin
        self._on_change: list[Callable[[Store], None]] = []

    def on_change(self, callback: Callable[[Store], None]) -> None:
        """Call `callback` with the connection that lowered it."""
        self._on_change.append(callback)

    def lower(self, to: int, store: Store) -> None:
        """A wire has an MTU of `to`; 0: unknown."""
        if 0 < to < self.value:
            log.info("the MTU of the vL3 is lower now", before=self.value, now=to, connection=store.connection_id)
            self.value = to
            for callback in self._on_change:
                callback(store)


class Vl3Mtu(Element):
    """Request no larger MTU than the smallest of all wires; when a wire has a smaller one, the others follow.

    All elements of one endpoint share `smallest`. Those of its server ask clients to request again; those of a client
    (`requests` is true) request again themselves.
    """

    def __init__(self, smallest: SmallestMtu, *, requests: bool = False) -> None:
        self._smallest, self._requests = smallest, requests
        self._stores: dict[str, Store] = {}
        smallest.on_change(self._lowered)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Lower the MTU, and remember a lower one of the answer."""
        store, context = call.live, context_of(call.connection)
        if store.connection_id not in self._stores:
            self._stores[store.connection_id] = store
            store.on_end(partial(self._forget, store))
        context.mtu = min(self._smallest.value, context.mtu or self._smallest.value)
        connection = await rest.request(call)
        self._smallest.lower(context_of(connection).mtu, store)
        return connection

    def _forget(self, store: Store) -> None:
        self._stores.pop(store.connection_id, None)

    def _lowered(self, by: Store) -> None:
        for store in [each for each in self._stores.values() if each is not by]:
            if self._requests:
                store.spawn(_again(store), name="request with a lower MTU")
            else:
                ask_again(store)


async def _again(store: Store) -> None:
    try:
        await store.events.request()
    except MeshError as error:  # its refresh, or healing, tries again
        log.warning("a wire does not have the lower MTU yet", connection=store.connection_id, error=str(error))
