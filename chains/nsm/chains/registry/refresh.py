"""An endpoint's client registers it again in good time before it expires."""

from __future__ import annotations

import asyncio
import time

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Backoff, Key, MeshError, RegistryCall, RegistryElement, RegistryHandler, Store
from nsm.chains.logs import log

PART = 2 / 3
PATIENCE = 1 / 4
"""The part of its lifetime that registering again may take."""
RETRY_INTERVAL, RETRY_LIMIT = 0.2, 5.0
_IN_TIME = 0.9


class RegistryRefresh(RegistryElement[NetworkServiceEndpoint]):
    """Register again after two thirds of the time that is left; failures are tried again with growing pauses.

    Some managers take an endpoint out when there is only as much time left as the call that registered it had until
    its deadline. Registering again comes before that, and with a deadline that is near where lifetimes are short.
    """

    def __init__(self) -> None:
        self._timer: Key[None] = Key("refresh")
        self._lifetime: Key[float] = Key("lifetime")

    async def register(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        """Set the clock anew after a success."""
        if (lifetime := call.live.get(self._lifetime)) is not None:
            soon = asyncio.get_running_loop().time() + PATIENCE * lifetime
            call.deadline = soon if call.deadline is None else min(call.deadline, soon)
        time_to_answer = call.remaining() or 0.0
        record = await rest.register(call)
        if record.expiration_time is not None:
            left = record.expiration_time.to_seconds() - time.time()
            call.live.put(self._lifetime, left)
            self._schedule(call.live, _delay(left, time_to_answer))
        return record

    async def unregister(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> None:
        """Stop the clock."""
        call.live.unschedule(self._timer)
        await rest.unregister(call)

    def _schedule(self, store: Store, delay: float, backoff: Backoff | None = None) -> None:
        when = asyncio.get_running_loop().time() + delay
        store.schedule(self._timer, when, lambda: self._refresh(store, backoff or Backoff(RETRY_INTERVAL, RETRY_LIMIT)))

    async def _refresh(self, store: Store, backoff: Backoff) -> None:
        try:
            await store.events.request()
        except MeshError as error:
            pause = backoff.next()
            log.warning("registering again failed", name=store.connection_id, error=str(error), again_in_s=pause)
            self._schedule(store, pause, backoff)


def _delay(left: float, time_to_answer: float) -> float:
    return max(0.0, min(PART * left, _IN_TIME * (left - time_to_answer)))
