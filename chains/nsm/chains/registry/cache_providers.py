"""Answers Find for the endpoints of recently requested services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import (
    FileKey,
    Found,
    Inbox,
    InvalidRequest,
    MeshError,
    Received,
    RegistryCall,
    RegistryElement,
    RegistryHandler,
    Tasks,
    file_key,
)
from nsm.chains.logs import log

from .descriptors import ARRIVAL_TIMEOUT
from .follow import Follow

MOST_SERVICES = 64
"""The number of watched services; the least recently requested one is dropped for a new one."""

Endpoint = NetworkServiceEndpoint


class CacheProviders(RegistryElement[NetworkServiceEndpoint]):
    """Cache the endpoints of each recently requested service, by a watch for each.

    For a node's component, which needs few of a mesh's endpoints. Unknown endpoints are queried, and a service that has
    endpoints is watched from then on; so is one of the services of an endpoint that is requested by name, and then the
    endpoint is known.
    Sockets of endpoints that arrived as descriptors are kept open, and are in the inbox of a call that is answered from
    the cache.
    """

    def __init__(self) -> None:
        self._services: dict[str, tuple[_Providers, asyncio.Task[None]]] = {}
        self._tasks = Tasks("cache of providers")

    async def find(
        self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]
    ) -> AsyncIterator[Sequence[Found[Endpoint]]]:
        """From the cache if it has a match; a watch goes to the registry."""
        query, known = call.record, None if call.watch else self._known(call.record)
        if known is not None:
            providers, records = known
            call.inbox = providers.inbox
            yield [Found(record) for record in records]
            return
        found: Endpoint | None = None
        async for batch in rest.find(call):
            found = batch[0].record if batch and found is None else found
            yield batch
        if found is not None and (service := _service_of(query) or _service_of_named(query, found)) is not None:
            self._follow(service, rest)

    async def aclose(self) -> None:
        """Stop watching."""
        await self._tasks.aclose()
        self._services.clear()

    def _known(self, query: Endpoint) -> tuple[_Providers, list[Endpoint]] | None:
        for service in self._followed(query):
            providers, _ = self._services[service]
            if providers.is_complete and (records := providers.records.matching(query)):
                self._services[service] = self._services.pop(service)  # now the last one
                return providers, records
        return None

    def _followed(self, query: Endpoint) -> list[str]:
        """The services of which one must be watched for `query` to be answered from the cache."""
        if query.network_service_names:
            return [name for name in query.network_service_names if name in self._services]
        return [*self._services] if query.name else []

    def _follow(self, service: str, registry: RegistryHandler[Endpoint]) -> None:
        if service in self._services:
            return
        if len(self._services) == MOST_SERVICES:
            _, watch = self._services.pop(next(iter(self._services)))
            watch.cancel()
        providers = _Providers(service)
        watch = self._tasks.spawn(providers.run(registry, providers.broke), name=f"watch of {service}")
        self._services[service] = providers, watch


class _Providers(Follow[NetworkServiceEndpoint]):
    """The endpoints of one service, and their sockets."""

    def __init__(self, service: str) -> None:
        super().__init__(Endpoint(network_service_names=[service]))
        self._service = service
        self.inbox = _Sockets()

    async def learn(self, found: Found[Endpoint], inbox: Inbox | None) -> None:
        await self.inbox.keep(found.record.name, None if found.deleted else file_key(found.record.url), inbox)
        await super().learn(found, inbox)

    def clear(self) -> None:
        super().clear()
        self.inbox.clear()

    def broke(self, error: MeshError, pause: float) -> None:
        log.debug(
            "the watch on a service's endpoints failed", service=self._service, reason=str(error), again_in_s=pause
        )


class _Sockets:
    """The sockets of endpoints that arrived as descriptors: an `Inbox` that keeps them."""

    def __init__(self) -> None:
        self._of: dict[str, Received] = {}

    async def keep(self, endpoint: str, key: FileKey | None, inbox: Inbox | None) -> None:
        """Keep the socket `key` for `endpoint`, replacing its previous one; None removes it."""
        before = self._of.pop(endpoint, None)
        try:
            if key is not None and inbox is not None:
                self._of[endpoint] = await inbox.take(*key, timeout=ARRIVAL_TIMEOUT)
        finally:
            if before is not None:
                before.release()

    async def take(self, device: int, inode: int, *, timeout: float) -> Received:
        """See `Inbox.take`: one more use of a kept socket."""
        for socket in self._of.values():
            if socket.key == (device, inode):
                return socket.another()
        raise InvalidRequest(f"the descriptor of inode://{device}/{inode} is not kept")

    def settle(self, device: int, inode: int) -> None:
        """See `Inbox.settle`: kept sockets stay."""

    def clear(self) -> None:
        """Release all."""
        for socket in self._of.values():
            socket.release()
        self._of.clear()


def _service_of(query: Endpoint) -> str | None:
    """The service that `query` asks for, if it has no other criteria."""
    names = query.network_service_names
    return names[0] if len(names) == 1 and query == Endpoint(network_service_names=names) else None


def _service_of_named(query: Endpoint, found: Endpoint) -> str | None:
    """A service of the endpoint that `query` names, if it has no other criteria."""
    is_named = bool(query.name) and query == Endpoint(name=query.name) and found.name == query.name
    return found.network_service_names[0] if is_named and found.network_service_names else None
