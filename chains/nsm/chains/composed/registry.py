"""A registry: its chains, on any store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import ENDPOINTS, SERVICES, Limits, RegistryChain
from nsm.chains.identity import Identity
from nsm.chains.policy import (
    FORWARDERS,
    MANAGERS,
    NO_HOSTS,
    NO_TRUST,
    REGISTRY_SERVER_MASKS,
    Admitted,
    Hosts,
    IdPatterns,
    PolicySet,
    Registration,
    Trust,
)
from nsm.chains.registry.allow_services import AllowServices
from nsm.chains.registry.allow_urls import AllowUrls
from nsm.chains.registry.authorize import RegistryAuthorize
from nsm.chains.registry.check_record import CheckRecord
from nsm.chains.registry.expire_services import LIFETIME
from nsm.chains.registry.interdomain import Interdomain
from nsm.chains.registry.limit_domains import LimitDomains
from nsm.chains.registry.limit_watches import LimitWatches
from nsm.chains.registry.quota import Quotas
from nsm.chains.registry.set_expiration_time import SetExpirationTime
from nsm.chains.registry.set_payload import SetPayload
from nsm.chains.registry.stored import (
    Backend,
    EndpointLives,
    EndpointRules,
    MemoryBackend,
    RecordedNames,
    ServiceLives,
    ServiceRules,
    Stored,
    StoredQuota,
)
from nsm.chains.registry.update_path import RegistryUpdatePath
from nsm.chains.transport import Methods, registry

from .beyond import Beyond


@dataclass(frozen=True)
class Registry:
    """The chains for both kinds of record."""

    services: RegistryChain[NetworkService]
    endpoints: RegistryChain[NetworkServiceEndpoint]
    beyond: Beyond | None = None
    """Where records of other domains are."""

    def methods(self) -> Methods:
        """The Registry API."""
        return {**registry(SERVICES, self.services), **registry(ENDPOINTS, self.endpoints)}

    async def aclose(self) -> None:
        """Release the elements of all."""
        await self.services.aclose()
        await self.endpoints.aclose()
        if self.beyond is not None:
            await self.beyond.aclose()


FORWARDER_SERVICE = "forwarder"
_OPEN, _LIMITS, _NONE = Registration(), Limits(), Admitted()


def allow_services(identity: Identity, registration: Registration) -> AllowServices[Any]:
    """The trust of a registry: forwarders register through managers, which vouch for them if nothing else is listed."""
    usual = IdPatterns([*FORWARDERS.patterns, *MANAGERS.patterns])
    return AllowServices(registration, identity, forwarder_service=FORWARDER_SERVICE, forwarders=usual)


@dataclass(frozen=True, kw_only=True)
class RegistrySettings:
    """The settings of a registry, whatever its store."""

    policies: Sequence[str] = REGISTRY_SERVER_MASKS
    lifetime: float = 60.0
    """Seconds that an endpoint lives after its last registration."""
    service_lifetime: float = LIFETIME
    """Seconds that a service lives after its last registration, and as long as it has endpoints; 0: forever."""
    trust: Trust = NO_TRUST
    """Who may vouch for others in a path."""
    registration: Registration = _OPEN
    """Who may register for which service."""
    hosts: Hosts = NO_HOSTS
    """Hosts where endpoints may be besides the addresses of those who register them."""
    limits: Limits = _LIMITS
    beyond: Beyond | None = None
    """Where records of other domains are found and registered; None: this registry knows its own domain only."""
    admitted: Admitted = _NONE
    """What components of other trust domains may find and register."""


DEFAULT_SETTINGS = RegistrySettings()


def memory_registry(identity: Identity, settings: RegistrySettings = DEFAULT_SETTINGS) -> Registry:
    """A registry in memory."""
    return _compose(identity, MemoryBackend(), MemoryBackend(), settings, by_hand=False)[0]


@asynccontextmanager
async def stored_registry(
    identity: Identity,
    services: Backend[NetworkService],
    endpoints: Backend[NetworkServiceEndpoint],
    settings: RegistrySettings,
    *,
    by_hand: bool = False,
) -> AsyncIterator[Registry]:
    """A registry on two backends. Entering it waits until all their records are known, even if storage is away.

    No part of a registration is kept in the process alone, so several replicas may share a backend: a client's
    registrations are counted over all of them. With `by_hand`, people edit the storage too.
    """
    registry, stores = _compose(identity, services, endpoints, settings, by_hand=by_hand)
    try:
        for store in stores:
            await store.open()
        yield registry
    finally:
        await registry.aclose()


def _compose(
    identity: Identity,
    services: Backend[NetworkService],
    endpoints: Backend[NetworkServiceEndpoint],
    settings: RegistrySettings,
    *,
    by_hand: bool,
) -> tuple[Registry, Sequence[Stored[Any]]]:
    """The chains, and their stores in the order in which they are opened."""
    policies, trust, limits, beyond = settings.policies, settings.trust, settings.limits, settings.beyond
    owned = PolicySet.select(policies).client_allowed
    quotas, allowed = Quotas(limits, is_registry=True, trust=trust), allow_services(identity, settings.registration)
    endpoint_store: Stored[NetworkServiceEndpoint] = Stored(
        endpoints,
        EndpointRules(owned=owned, trust=trust),
        EndpointLives(settings.lifetime),
        name="endpoints",
        limits=limits,
    )

    def is_provided(service: str) -> bool:
        return endpoint_store.index.records.has(NetworkServiceEndpoint(network_service_names=[service]))

    service_store: Stored[NetworkService] = Stored(
        services,
        ServiceRules(owned=owned, is_provided=is_provided, trust=trust, by_hand=by_hand),
        ServiceLives(settings.service_lifetime, is_provided),
        name="services",
        limits=limits,
    )
    service_names = RecordedNames(service_store.index.records, NetworkService(), trust)
    endpoint_names = RecordedNames(endpoint_store.index.records, NetworkServiceEndpoint(), trust)
    service_chain: RegistryChain[NetworkService] = RegistryChain(
        [
            CheckRecord(SERVICES, limits),
            LimitWatches(limits),
            RegistryUpdatePath(identity),  # before authorize, which looks at the tokens
            RegistryAuthorize(policies, trust, keeps_owners=False, names=service_names),  # the store keeps them
            allowed,
            LimitDomains(settings.admitted, identity),
            Interdomain(beyond.services if beyond is not None else None),  # before all that is for our own records
            StoredQuota(quotas, service_store.index.records, trust),
            SetPayload(),
            service_store,
        ]
    )
    endpoint_chain: RegistryChain[NetworkServiceEndpoint] = RegistryChain(
        [
            CheckRecord(ENDPOINTS, limits),
            LimitWatches(limits),
            RegistryUpdatePath(identity),
            RegistryAuthorize(policies, trust, keeps_owners=False, names=endpoint_names),
            allowed,
            AllowUrls(settings.hosts, trust, takes_descriptors=False),
            LimitDomains(settings.admitted, identity),
            Interdomain(beyond.endpoints if beyond is not None else None),
            StoredQuota(quotas, endpoint_store.index.records, trust),
            SetExpirationTime(settings.lifetime),
            endpoint_store,
        ]
    )
    return Registry(service_chain, endpoint_chain, beyond), (endpoint_store, service_store)
