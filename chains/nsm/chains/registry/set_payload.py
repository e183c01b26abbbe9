"""A service that does not say what it carries carries IP packets."""

from __future__ import annotations

from nsm.apis.payloads import IP
from nsm.apis.registry import NetworkService
from nsm.chains.core import RegistryCall, RegistryElement, RegistryHandler


class SetPayload(RegistryElement[NetworkService]):
    """Fill in the payload."""

    async def register(
        self, call: RegistryCall[NetworkService], rest: RegistryHandler[NetworkService]
    ) -> NetworkService:
        """Payload IP if there is none."""
        call.record.payload = call.record.payload or IP
        return await rest.register(call)
