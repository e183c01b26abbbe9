"""Moves connections when their network service is edited and no longer selects their endpoint."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from nsm.apis.connection import Connection, State
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import Backoff, Call, Element, Handler, Key, MeshError, RegistryCall, RegistryHandler, Store, Tasks
from nsm.chains.logs import log
from nsm.chains.model.causes import NOT_SELECTED, Cause
from nsm.chains.model.domains import AT
from nsm.chains.model.matching import match_endpoints

from .discover import find_all
from .monitor import REPORTER

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
"""Seconds before the registry is watched again: its cache is there again by then."""
GRACE = 2.0
"""Seconds that a client has to reselect by itself before its connection is closed."""


class Rematch(Element):
    """Let clients reselect whose endpoint is registered but no longer selected by their network service.

    `services` is watched once for all connections, from the first connection on, and each service of another domain for
    as long as it has connections here. A client is notified by the state
    RESELECT_REQUESTED of its connection. If it has not moved within `GRACE` seconds (upstream's clients ignore that
    state) its connection is closed, which it notices in any case. Deleting a network service changes nothing, since
    existing wires do not need it. Nor does an endpoint that is not found. A service that is edited back in time has
    nothing closed, and a connection that has moved by then stays.
    """

    def __init__(
        self, services: RegistryHandler[NetworkService], endpoints: RegistryHandler[NetworkServiceEndpoint]
    ) -> None:
        self._services, self._endpoints = services, endpoints
        self._standing: dict[str, dict[str, Store]] = {}
        """The stores of connections by their network service."""
        self._went: Key[_Went] = Key("service and endpoint")
        self._closing: Key[None] = Key("close of a connection that has to move")
        self._tasks = Tasks("watch of network services")
        self._watches: dict[str, asyncio.Task[None]] = {}
        """By the name of the service; empty: all of this domain."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Remember the connection's service and endpoint; a request that fails changes nothing."""
        connection = await rest.request(call)
        self._note(call.live, connection)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Forget it."""
        self._forget(call.live)
        await rest.close(call)

    async def aclose(self) -> None:
        """Stop watching."""
        await self._tasks.aclose()

    def _note(self, store: Store, connection: Connection) -> None:
        former = store.get(self._went)
        if former is not None and former.is_of(connection):
            return
        went = _Went.to(connection)
        if former is None:
            store.on_end(lambda: self._forget(store))
        else:
            self._forget(store)
        store.put(self._went, went)
        self._standing.setdefault(went.service, {})[store.connection_id] = store
        watched = went.service if AT in went.service else ""
        if watched not in self._watches:
            self._watches[watched] = self._tasks.spawn(self._watch(watched), name=f"watch of services {watched}")

    def _forget(self, store: Store) -> None:
        store.unschedule(self._closing)
        if (went := store.pop(self._went)) is not None:
            others = self._standing[went.service]
            others.pop(store.connection_id, None)
            if not others:
                del self._standing[went.service]
                if (watch := self._watches.pop(went.service, None)) is not None:
                    watch.cancel()

    async def _watch(self, service: str) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            watching: RegistryCall[NetworkService] = RegistryCall(NetworkService(name=service), watch=True)
            try:
                async with aclosing(cast(Any, self._services.find(watching))) as batches:
                    async for batch in batches:
                        backoff.reset()
                        for edited in [found.record for found in batch if not found.deleted]:
                            await self._compare(edited)
            except MeshError as error:
                log.debug("network services are not watched", reason=str(error))
            await asyncio.sleep(backoff.next())

    async def _compare(self, service: NetworkService) -> None:
        for store in [*self._standing.get(service.name, {}).values()]:
            went = store.get(self._went)
            if went is None:
                continue
            if await self._is_selected(service, went):
                self._stay(store)
            elif went is store.get(self._went):
                self._move(store, went)

    async def _is_selected(self, service: NetworkService, went: _Went) -> bool:
        """Whether the service still selects the endpoint, or the endpoint is not known at all."""
        endpoints = await find_all(
            self._endpoints, NetworkServiceEndpoint(name=went.endpoint), Call(NetworkServiceRequest())
        )
        there = [each for each in endpoints if each.name == went.endpoint]
        return not there or bool(match_endpoints(went.labels, service, there))

    def _move(self, store: Store, went: _Went) -> None:
        log.info(
            "a connection has to move: its network service was edited and no longer selects its endpoint",
            connection=store.connection_id,
            service=went.service,
            endpoint=went.endpoint,
        )
        if (reporter := store.get(REPORTER)) is not None:
            found = f"the network service {went.service} was edited and no longer selects {went.endpoint}"
            cause = Cause(NOT_SELECTED, found, "the client requests another endpoint by itself", self.name)
            reporter.report(store.connection_id, State.RESELECT_REQUESTED, cause)
        when = asyncio.get_running_loop().time() + GRACE
        store.schedule(self._closing, when, lambda: store.events.close(still=lambda: store.get(self._went) is went))

    def _stay(self, store: Store) -> None:
        """The service selects the endpoint, again if it did not a moment ago."""
        if store.is_scheduled(self._closing):
            store.unschedule(self._closing)
            if (reporter := store.get(REPORTER)) is not None:
                reporter.report(store.connection_id, State.UP)


@dataclass(frozen=True, slots=True, eq=False)
class _Went:
    """Service and endpoint of a connection, and the labels that selected it."""

    service: str
    endpoint: str
    labels: dict[str, str]

    @classmethod
    def to(cls, connection: Connection) -> _Went:
        return cls(connection.network_service, connection.network_service_endpoint_name, dict(connection.labels))

    def is_of(self, connection: Connection) -> bool:
        is_there = self.endpoint == connection.network_service_endpoint_name
        return is_there and self.service == connection.network_service and self.labels == connection.labels
