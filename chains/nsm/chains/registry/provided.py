"""Whether any endpoint provides a network service."""

from __future__ import annotations

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import MeshError, RegistryCall, RegistryHandler


async def is_provided(endpoints: RegistryHandler[NetworkServiceEndpoint], service: str) -> bool:
    """Whether `service` is provided; true if the registry cannot be queried, so that nothing is removed."""
    query = NetworkServiceEndpoint(network_service_names=[service])
    try:
        async for batch in endpoints.find(RegistryCall(query)):
            if any(not found.deleted for found in batch):
                return True
    except MeshError:
        return True
    return False
