"""When an endpoint came: kept as long as it stays, however often it registers again."""

from __future__ import annotations

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Key, RegistryCall, RegistryElement, RegistryHandler


class SetRegistrationTime(RegistryElement[NetworkServiceEndpoint]):
    """Set `initial_registration_time` at the first Register, to now unless the endpoint says when."""

    def __init__(self) -> None:
        self._first: Key[Timestamp] = Key("initial registration time")

    async def register(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        """Set or keep it."""
        asked = call.record.initial_registration_time
        call.record.initial_registration_time = call.live.setdefault(self._first, lambda: asked or Timestamp.now())
        return await rest.register(call)
