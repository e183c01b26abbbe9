"""What a registry has for the records of other domains: a client of its proxy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import DEFAULT_LIMITS, ENDPOINTS, SERVICES, Limits, RegistryChain
from nsm.chains.policy import REGISTRY_CLIENT_MASKS
from nsm.chains.registry.authorize import RegistryAuthorizeClient
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.cache_elsewhere import CacheElsewhere
from nsm.chains.registry.client_url import RegistryClientUrl
from nsm.chains.registry.expire import Expire
from nsm.chains.registry.expire_services import LIFETIME, ExpireServices
from nsm.chains.registry.quota import Quota, Quotas
from nsm.chains.transport import Pool, RemoteRegistry


@dataclass(frozen=True)
class Beyond:
    """Where records of other domains are found and registered."""

    services: RegistryChain[NetworkService]
    endpoints: RegistryChain[NetworkServiceEndpoint]

    async def aclose(self) -> None:
        """Release the elements of both."""
        await self.services.aclose()
        await self.endpoints.aclose()


def beyond(
    url: str,
    pool: Pool,
    *,
    policies: Sequence[str] = REGISTRY_CLIENT_MASKS,
    lifetime: float = 60.0,
    service_lifetime: float = LIFETIME,
    limits: Limits = DEFAULT_LIMITS,
) -> Beyond:
    """Other domains, by the proxy at `url`.

    `policies` apply to its answers. A registration there ends with `lifetime`, in seconds, like one here.
    """
    quotas = Quotas(limits, is_registry=True)
    endpoints: RegistryChain[NetworkServiceEndpoint] = RegistryChain(
        [
            RegistryBegin(),
            Quota(quotas),
            Expire(lifetime, forgets=True),  # the other registry lets it expire
            CacheElsewhere(ENDPOINTS, limits=limits),
            RegistryClientUrl(url),
            RegistryAuthorizeClient(policies),
        ],
        RemoteRegistry(ENDPOINTS, pool),
    )
    services: RegistryChain[NetworkService] = RegistryChain(
        [
            RegistryBegin(),
            Quota(quotas),
            ExpireServices(endpoints, service_lifetime, forgets=True),
            CacheElsewhere(SERVICES, limits=limits),
            RegistryClientUrl(url),
            RegistryAuthorizeClient(policies),
        ],
        RemoteRegistry(SERVICES, pool),
    )
    return Beyond(services, endpoints)
