"""A network service that nobody registers again and nobody provides goes away by itself."""

from __future__ import annotations

import asyncio

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import Key, RegistryCall, RegistryElement, RegistryHandler, Store

from .provided import is_provided

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
        if await is_provided(self._endpoints, service):
            self._set_clock(store, service)
        else:
            await store.events.close()
