"""An endpoint that is not registered again goes away by itself."""

from __future__ import annotations

import asyncio
import time

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Key, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.policy import claims_of


class Expire(RegistryElement[NetworkServiceEndpoint]):
    """Give an endpoint at most `lifetime` seconds, less if a token of the last hop ends sooner; then unregister it.

    An earlier time that the endpoint itself or somebody further on demands wins.
    """

    def __init__(self, lifetime: float = 60.0) -> None:
        self._lifetime = lifetime
        self._timer: Key[None] = Key("expiry")

    async def register(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        """Set the expiration time, and the clock."""
        latest = self._latest(call)
        wanted = call.record.expiration_time
        if wanted is None or wanted.to_seconds() > latest:
            call.record.expiration_time = Timestamp.from_seconds(latest)
        record = await rest.register(call)
        expires = record.expiration_time.to_seconds() if record.expiration_time else latest
        when = asyncio.get_running_loop().time() + expires - time.time()
        call.live.schedule(self._timer, when, call.live.events.close)
        return record

    async def unregister(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> None:
        """Stop the clock, unless it is refused."""
        await rest.unregister(call)
        call.live.unschedule(self._timer)

    def _latest(self, call: RegistryCall[NetworkServiceEndpoint]) -> float:
        tokens = call.path.tokens[max(0, call.path.index - 1) : call.path.index + 1]
        ends = [claims.expires for token in tokens if (claims := claims_of(token)) is not None]
        return min([time.time() + self._lifetime, *ends])
