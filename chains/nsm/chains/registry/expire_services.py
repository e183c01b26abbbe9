"""Removes network services that no endpoint provides and that are not registered again."""

from __future__ import annotations

import asyncio

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import Key, RegistryCall, RegistryElement, RegistryHandler, Store

from .provided import is_provided

LIFETIME = 24 * 3600.0
"""Seconds; long, because some clients register a service only once, before its endpoints."""


class ExpireServices(RegistryElement[NetworkService]):
    """Unregister a service `lifetime` seconds after its last registration, unless one of `endpoints` provides it.

    A service that is provided is checked again after the same time. A `lifetime` of 0 keeps services forever. With
    `forgets`, the registration ends here only, as for `Expire`.
    """

    def __init__(
        self,
        endpoints: RegistryHandler[NetworkServiceEndpoint],
        lifetime: float = LIFETIME,
        *,
        forgets: bool = False,
    ) -> None:
        self._endpoints, self._lifetime = endpoints, lifetime
        self._timer: Key[None] = Key("expiry of a service")
        self._forgets, self._has_expired = forgets, Key[bool]("expired service")

    async def register(
        self, call: RegistryCall[NetworkService], rest: RegistryHandler[NetworkService]
    ) -> NetworkService:
        """Restart the timer."""
        call.live.pop(self._has_expired)
        service = await rest.register(call)
        if self._lifetime:
            self._set_clock(call.live, call.record.name)
        return service

    def _set_clock(self, store: Store, service: str) -> None:
        when = asyncio.get_running_loop().time() + self._lifetime
        store.schedule(self._timer, when, lambda: self._end(store, service))

    async def _end(self, store: Store, service: str) -> None:
        if not self._forgets and await is_provided(self._endpoints, service):
            self._set_clock(store, service)
            return
        if self._forgets:
            store.put(self._has_expired, True)
        await store.events.close(still=lambda: not store.is_scheduled(self._timer))

    async def unregister(self, call: RegistryCall[NetworkService], rest: RegistryHandler[NetworkService]) -> None:
        """Pass it on, unless the registration has only expired here."""
        if call.peer is not None or not call.live.get(self._has_expired):
            await rest.unregister(call)
