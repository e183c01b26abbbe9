"""A network service that nobody registers again and nobody provides goes away by itself."""

from __future__ import annotations

import asyncio

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import Key, MeshError, RegistryCall, RegistryElement, RegistryHandler, Store

LIFETIME = 24 * 3600.0
"""Seconds; some clients register a service once and leave it to its endpoints."""


class ExpireServices(RegistryElement[NetworkService]):
    """Unregister a service `lifetime` seconds after it was registered last, unless one of `endpoints` provides it.

    One that is provided is looked at again after as long. A `lifetime` of 0 keeps services for ever.
    """

    def __init__(self, endpoints: RegistryHandler[NetworkServiceEndpoint], lifetime: float = LIFETIME) -> None:
        self._endpoints, self._lifetime = endpoints, lifetime
        self._timer: Key[None] = Key("expiry of a service")

    async def register(
        self, call: RegistryCall[NetworkService], rest: RegistryHandler[NetworkService]
    ) -> NetworkService:
        """Set the clock anew."""
        service = await rest.register(call)
        if self._lifetime:
            self._set_clock(call.live, call.record.name)
        return service

    def _set_clock(self, store: Store, service: str) -> None:
        when = asyncio.get_running_loop().time() + self._lifetime
        store.schedule(self._timer, when, lambda: self._end(store, service))

    async def _end(self, store: Store, service: str) -> None:
        if await self._is_provided(service):
            self._set_clock(store, service)
        else:
            await store.events.close()

    async def _is_provided(self, service: str) -> bool:
        """Whether it is, for all that we know: a registry that cannot be asked takes nothing away."""
        query = NetworkServiceEndpoint(network_service_names=[service])
        try:
            async for batch in self._endpoints.find(RegistryCall(query)):
                if any(not found.deleted for found in batch):
                    return True
        except MeshError:
            return True
        return False
