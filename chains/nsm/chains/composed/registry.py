"""A registry that keeps its records in memory."""

from __future__ import annotations

from collections.abc import Sequence
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
    Hosts,
    IdPatterns,
    Registration,
    Trust,
)
from nsm.chains.registry.allow_services import AllowServices
from nsm.chains.registry.allow_urls import AllowUrls
from nsm.chains.registry.authorize import RegistryAuthorize
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.check_record import CheckRecord
from nsm.chains.registry.expire import Expire
from nsm.chains.registry.expire_services import LIFETIME, ExpireServices
from nsm.chains.registry.limit_watches import LimitWatches
from nsm.chains.registry.memory import Memory
from nsm.chains.registry.quota import Quota, Quotas
from nsm.chains.registry.set_payload import SetPayload
from nsm.chains.registry.set_registration_time import SetRegistrationTime
from nsm.chains.registry.update_path import RegistryUpdatePath
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


FORWARDER_SERVICE = "forwarder"
_OPEN, _LIMITS = Registration(), Limits()


def allow_services(identity: Identity, registration: Registration) -> AllowServices[Any]:
    """For a registry: forwarders come by their managers, who stand for them where nobody is to vouch for others."""
    usual = IdPatterns([*FORWARDERS.patterns, *MANAGERS.patterns])
    return AllowServices(registration, identity, forwarder_service=FORWARDER_SERVICE, forwarders=usual)


def memory_registry(
    identity: Identity,
    *,
    policies: Sequence[str] = REGISTRY_SERVER_MASKS,
    lifetime: float = 60.0,
    service_lifetime: float = LIFETIME,
    trust: Trust = NO_TRUST,
    registration: Registration = _OPEN,
    hosts: Hosts = NO_HOSTS,
    limits: Limits = _LIMITS,
) -> Registry:
    """A registry in memory; endpoints live `lifetime` seconds after they registered last.

    A network service stays for `service_lifetime` seconds, and as long as it has endpoints. `trust` says who may vouch
    for others in a path, `registration` who may register for which service, `hosts` where endpoints may be beside the
    places of those who register them.
    """
    quotas = Quotas(limits, is_registry=True, trust=trust)
    allowed = allow_services(identity, registration)
    records: Memory[NetworkServiceEndpoint] = Memory()
    provided = RegistryChain([records])
    endpoints: RegistryChain[NetworkServiceEndpoint] = RegistryChain(
        [
            CheckRecord(ENDPOINTS, limits),
            LimitWatches(limits),
            RegistryUpdatePath(identity),  # before authorize, which looks at the tokens
            RegistryBegin(),  # before authorize, which keeps the owner of a name with the registration
            RegistryAuthorize(policies, trust),
            allowed,
            AllowUrls(hosts, trust, takes_descriptors=False),
            Quota(quotas),
            SetRegistrationTime(),
            Expire(lifetime),
            records,
        ]
    )
    services: RegistryChain[NetworkService] = RegistryChain(
        [
            CheckRecord(SERVICES, limits),
            LimitWatches(limits),
            RegistryUpdatePath(identity),
            RegistryBegin(),
            RegistryAuthorize(policies, trust, endpoints=provided),
            allowed,
            Quota(quotas),
            ExpireServices(provided, service_lifetime),
            SetPayload(),
            Memory(),
        ]
    )
    return Registry(services, endpoints)
