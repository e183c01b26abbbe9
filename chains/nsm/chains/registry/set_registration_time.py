"""Records when an endpoint registered first; renewals do not change it."""

from __future__ import annotations

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Key, RegistryCall, RegistryElement, RegistryHandler


class SetRegistrationTime(RegistryElement[NetworkServiceEndpoint]):
    """Set `initial_registration_time` at the first Register, to now unless the endpoint provides it."""

    def __init__(self) -> None:
        self._first: Key[Timestamp] = Key("initial registration time")

    async def register(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        """Set or keep the time."""
        asked = call.record.initial_registration_time
        call.record.initial_registration_time = call.live.setdefault(self._first, lambda: asked or Timestamp.now())
        return await rest.register(call)
