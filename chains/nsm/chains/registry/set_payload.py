"""Sets the default payload of services, IP."""

from __future__ import annotations

from nsm.apis.payloads import IP
from nsm.apis.registry import NetworkService
from nsm.chains.core import RegistryCall, RegistryElement, RegistryHandler


class SetPayload(RegistryElement[NetworkService]):
    """Set a missing payload."""

    async def register(
        self, call: RegistryCall[NetworkService], rest: RegistryHandler[NetworkService]
    ) -> NetworkService:
        """Set payload IP if it is missing."""
        call.record.payload = call.record.payload or IP
        return await rest.register(call)
