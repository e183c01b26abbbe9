"""Removes endpoints that are not registered again."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Key, RegistryCall, RegistryHandler, Store, TimedOut, Unavailable

from .set_expiration_time import SetExpirationTime


class Expire(SetExpirationTime):
    """Set the expiration time, and unregister the endpoint then.

    One that registers again is there, also while what is behind this cannot be reached: it stays as it is. With
    `forgets`, the registration ends here only: whoever stores the record lets it expire, and it may have been
    registered again by another way.
    """

    def __init__(self, lifetime: float = 60.0, *, forgets: bool = False) -> None:
        super().__init__(lifetime)
        self._timer: Key[None] = Key("expiry")
        self._forgets, self._has_expired = forgets, Key[bool]("expired")

    async def register(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        """Set the expiration time, and the clock."""
        call.live.pop(self._has_expired)
        try:
            record = await super().register(call, rest)
        except (Unavailable, TimedOut):
            if call.peer is not None and call.live.is_scheduled(self._timer):
                when = asyncio.get_running_loop().time() + self._latest(call) - time.time()
                call.live.schedule(self._timer, when, partial(self._end, call.live))
            raise
        ends = record.expiration_time or call.record.expiration_time
        assert ends is not None
        when = asyncio.get_running_loop().time() + ends.to_seconds() - time.time()
        call.live.schedule(self._timer, when, partial(self._end, call.live))
        return record

    async def _end(self, store: Store) -> None:
        """Unregister, unless it is registered again by then."""
        if self._forgets:
            store.put(self._has_expired, True)
        await store.events.close(still=lambda: not store.is_scheduled(self._timer))

    async def unregister(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> None:
        """Stop the timer, unless the call is refused."""
        if call.peer is not None or not call.live.get(self._has_expired):
            await rest.unregister(call)
        call.live.unschedule(self._timer)
