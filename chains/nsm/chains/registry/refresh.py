"""Registers an endpoint again before it expires."""

from __future__ import annotations

import asyncio
import time

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Backoff, Key, MeshError, RegistryCall, RegistryElement, RegistryHandler, Store
from nsm.chains.logs import log

PART = 2 / 3
PATIENCE = 1 / 4
"""The deadline of a renewal, as a part of the record's lifetime."""
RETRY_INTERVAL, RETRY_LIMIT = 0.2, 5.0
_IN_TIME = 0.9


class RegistryRefresh(RegistryElement[NetworkServiceEndpoint]):
    """Register again after two thirds of the remaining time; failures are retried with growing pauses.

    Some managers remove an endpoint when the time left is only as long as the deadline of the call that registered it.
    So the renewal happens before that, and has a short deadline if lifetimes are short.
    """

    def __init__(self) -> None:
        self._timer: Key[None] = Key("refresh")
        self._lifetime: Key[float] = Key("lifetime")

    async def register(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        """Restart the timer after a success."""
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
        """Stop the timer."""
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
