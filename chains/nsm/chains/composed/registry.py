"""A registry that keeps its records in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import ENDPOINTS, SERVICES, RegistryChain
from nsm.chains.identity import Identity
from nsm.chains.policy import NO_TRUST, REGISTRY_SERVER_MASKS, Trust
from nsm.chains.registry.authorize import Authorize
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.expire import Expire
from nsm.chains.registry.memory import Memory
from nsm.chains.registry.set_payload import SetPayload
from nsm.chains.registry.set_registration_time import SetRegistrationTime
from nsm.chains.registry.update_path import UpdatePath
from nsm.chains.transport import Methods, registry


@dataclass(frozen=True)
class Registry:
    """The chains for both kinds of record."""

    services: RegistryChain[NetworkService]
    endpoints: RegistryChain[NetworkServiceEndpoint]

    def methods(self) -> Methods:
        """The Registry API."""
        return {**registry(SERVICES, self.services), **registry(ENDPOINTS, self.endpoints)}

    async def aclose(self) -> None:
        """Release the elements of both."""
        await self.services.aclose()
        await self.endpoints.aclose()


def memory_registry(
    identity: Identity,
    *,
    policies: Sequence[str] = REGISTRY_SERVER_MASKS,
    trust: Trust = NO_TRUST,
    lifetime: float = 60.0,
) -> Registry:
    """A registry in memory; endpoints live `lifetime` seconds after they registered last.

    `trust` says who may vouch for others in a path.
    """
    services: RegistryChain[NetworkService] = RegistryChain(
        [
            UpdatePath(identity),  # before authorize, which looks at the tokens
            RegistryBegin(),  # before authorize, which keeps the owner of a name with the registration
            Authorize(policies, trust),
            SetPayload(),
            Memory(),
        ]
    )
    endpoints: RegistryChain[NetworkServiceEndpoint] = RegistryChain(
        [
            UpdatePath(identity),
            RegistryBegin(),
            Authorize(policies, trust),
            SetRegistrationTime(),
            Expire(lifetime),
            Memory(),
        ]
    )
    return Registry(services, endpoints)
