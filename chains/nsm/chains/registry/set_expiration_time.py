"""Sets the expiration time of endpoints."""

from __future__ import annotations

import time

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.policy import claims_of


class SetExpirationTime(RegistryElement[NetworkServiceEndpoint]):
    """Limit an endpoint to `lifetime` seconds, or less if a token or the last hop's certificate expires sooner.

    An earlier time from the endpoint itself or from a component further on takes precedence.
    """

    def __init__(self, lifetime: float = 60.0) -> None:
        self._lifetime = lifetime

    async def register(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        """Set the expiration time."""
        latest = self._latest(call)
        wanted = call.record.expiration_time
        if wanted is None or wanted.to_seconds() > latest:
            call.record.expiration_time = Timestamp.from_seconds(latest)
        return await rest.register(call)

    def _latest(self, call: RegistryCall[NetworkServiceEndpoint]) -> float:
        tokens = call.path.tokens[max(0, call.path.index - 1) : call.path.index + 1]
        ends = [claims.expires for token in tokens if (claims := claims_of(token)) is not None]
        if call.peer is not None:
            ends.append(call.peer.expires)
        return min([time.time() + self._lifetime, *ends])
