"""An endpoint's client registers it again in good time before it expires."""

from __future__ import annotations

import asyncio
import time

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Key, MeshError, RegistryCall, RegistryElement, RegistryHandler, Store
from nsm.chains.logs import log

PART = 2 / 3
RETRY_INTERVAL, RETRY_LIMIT = 0.2, 5.0


class Refresh(RegistryElement[NetworkServiceEndpoint]):
    """Register again after two thirds of the time that is left; failures are tried again with growing pauses."""

    def __init__(self) -> None:
        self._timer: Key[None] = Key("refresh")

    async def register(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        """Set the clock anew after a success."""
        record = await rest.register(call)
        if record.expiration_time is not None:
            left = record.expiration_time.to_seconds() - time.time()
            self._schedule(call.live, max(0.0, left * PART), RETRY_INTERVAL)
        return record

    async def unregister(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> None:
        """Stop the clock."""
        call.live.unschedule(self._timer)
        await rest.unregister(call)

    def _schedule(self, store: Store, delay: float, pause: float) -> None:
        when = asyncio.get_running_loop().time() + delay
        store.schedule(self._timer, when, lambda: self._refresh(store, pause))

    async def _refresh(self, store: Store, pause: float) -> None:
        try:
            await store.events.request()
        except MeshError as error:
            log.warning("registering again failed", name=store.connection_id, error=str(error), again_in_s=pause)
            self._schedule(store, pause, min(2 * pause, RETRY_LIMIT))
