"""The registry proxy of a domain: passes calls on to the registries of other domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import DEFAULT_LIMITS, ENDPOINTS, SERVICES, Kind, Limits, R, RegistryChain
from nsm.chains.identity import Identity
from nsm.chains.policy import NO_HOSTS, NO_TRUST, REGISTRY_CLIENT_MASKS, REGISTRY_SERVER_MASKS, Hosts, Trust
from nsm.chains.registry.allow_urls import AllowUrls
from nsm.chains.registry.authorize import RegistryAuthorize, RegistryAuthorizeClient
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.check_record import CheckRecord
from nsm.chains.registry.connect import RegistryConnect
from nsm.chains.registry.expire import Expire
from nsm.chains.registry.expire_services import ExpireServices
from nsm.chains.registry.limit_watches import LimitWatches
from nsm.chains.registry.own_domain_only import OwnDomainOnly
from nsm.chains.registry.quota import Quota, Quotas
from nsm.chains.registry.resolve_domain import ResolveDomain, Resolver
from nsm.chains.registry.update_path import RegistryUpdatePath
from nsm.chains.transport import Methods, Pool, RemoteRegistry, registry


@dataclass(frozen=True)
class RegistryProxy:
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


def registry_proxy(
    identity: Identity,
    pool: Pool,
    resolver: Resolver,
    *,
    server_policies: Sequence[str] = REGISTRY_SERVER_MASKS,
    client_policies: Sequence[str] = REGISTRY_CLIENT_MASKS,
    trust: Trust = NO_TRUST,
    hosts: Hosts = NO_HOSTS,
    endpoint_lifetime: float = 60.0,
    limits: Limits = DEFAULT_LIMITS,
) -> RegistryProxy:
    """A registry proxy that finds other domains by `resolver`.

    It is for components of its own trust domain. `trust` lists who may vouch for others in a path, and may register
    endpoints at other addresses than its own: this domain's proxy.
    """
    quotas = Quotas(limits, is_registry=True, trust=trust)
    endpoints: RegistryChain[NetworkServiceEndpoint] = RegistryChain(
        [
            CheckRecord(ENDPOINTS, limits),
            LimitWatches(limits),
            RegistryUpdatePath(identity),  # before authorize, which looks at the tokens
            RegistryBegin(),  # before authorize, which keeps the owner of a name with the registration
            RegistryAuthorize(server_policies, trust),
            OwnDomainOnly(identity),
            AllowUrls(hosts, trust, takes_descriptors=False),
            Quota(quotas),
            Expire(endpoint_lifetime, forgets=True),
            ResolveDomain(ENDPOINTS, resolver, limits=limits),
            RegistryConnect(_remote(ENDPOINTS, pool, client_policies)),
        ]
    )
    services: RegistryChain[NetworkService] = RegistryChain(
        [
            CheckRecord(SERVICES, limits),
            LimitWatches(limits),
            RegistryUpdatePath(identity),
            RegistryBegin(),
            RegistryAuthorize(server_policies, trust),
            OwnDomainOnly(identity),
            Quota(quotas),
            ExpireServices(endpoints, forgets=True),
            ResolveDomain(SERVICES, resolver, limits=limits),
            RegistryConnect(_remote(SERVICES, pool, client_policies)),
        ]
    )
    return RegistryProxy(services, endpoints)


def _remote(kind: Kind[R], pool: Pool, policies: Sequence[str]) -> RegistryChain[R]:
    return RegistryChain([RegistryAuthorizeClient(policies)], RemoteRegistry(kind, pool))
