"""Answers Find for the endpoints of services that were asked for lately."""

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
"""Services that are followed; the one that was asked for least recently goes when another one comes."""

Endpoint = NetworkServiceEndpoint


class CacheProviders(RegistryElement[NetworkServiceEndpoint]):
    """Keep the endpoints of each service that was asked for lately, by a watch for each.

    For a component of a node, which needs few of a mesh's endpoints. Whatever is not known here is asked for, and a
    service that has endpoints is followed from then on. An endpoint that is asked for by name is known if one of its
    services is followed. Sockets of endpoints that came as descriptors are kept open, and are in the inbox of a call
    that is answered from here.
    """

    def __init__(self) -> None:
        self._services: dict[str, tuple[_Providers, asyncio.Task[None]]] = {}
        self._tasks = Tasks("cache of providers")

    async def find(
        self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]
    ) -> AsyncIterator[Sequence[Found[Endpoint]]]:
        """From here if it is known here; a watch goes to the registry."""
        query, known = call.record, None if call.watch else self._known(call.record)
        if known is not None:
            providers, records = known
            call.inbox = providers.inbox
            yield [Found(record) for record in records]
            return
        found = False
        async for batch in rest.find(call):
            found = found or bool(batch)
            yield batch
        if found and (service := _service_of(query)) is not None:
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
        """The services one of which has to be followed for `query` to be answered from here."""
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
        log.debug("a service's endpoints are not watched", service=self._service, reason=str(error), again_in_s=pause)


class _Sockets:
    """The sockets of endpoints that came as descriptors: an `Inbox` in which they stay."""

    def __init__(self) -> None:
        self._of: dict[str, Received] = {}

    async def keep(self, endpoint: str, key: FileKey | None, inbox: Inbox | None) -> None:
        """Keep the socket `key` for `endpoint` in place of what was kept for it; None: it has none any more."""
        before = self._of.pop(endpoint, None)
        try:
            if key is not None and inbox is not None:
                self._of[endpoint] = await inbox.take(*key, timeout=ARRIVAL_TIMEOUT)
        finally:
            if before is not None:
                before.release()

    async def take(self, device: int, inode: int, *, timeout: float) -> Received:
        """See `Inbox.take`: one more use of a socket that is kept."""
        for socket in self._of.values():
            if socket.key == (device, inode):
                return socket.another()
        raise InvalidRequest(f"the descriptor of inode://{device}/{inode} is not kept")

    def settle(self, device: int, inode: int) -> None:
        """See `Inbox.settle`: what is kept stays."""

    def clear(self) -> None:
        """Release all."""
        for socket in self._of.values():
            socket.release()
        self._of.clear()


def _service_of(query: Endpoint) -> str | None:
    """The service that `query` asks for, if that is all that it asks."""
    names = query.network_service_names
    return names[0] if len(names) == 1 and query == Endpoint(network_service_names=names) else None
