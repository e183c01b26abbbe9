"""The registry on custom resources, composed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.composed.registry import Registry, allow_services
from nsm.chains.core import ENDPOINTS, SERVICES, Limits, RegistryChain
from nsm.chains.identity import Identity
from nsm.chains.policy import NO_HOSTS, NO_TRUST, Hosts, PolicySet, Registration, Trust
from nsm.chains.registry.allow_urls import AllowUrls
from nsm.chains.registry.authorize import RegistryAuthorize
from nsm.chains.registry.check_record import CheckRecord
from nsm.chains.registry.limit_watches import LimitWatches
from nsm.chains.registry.quota import Quotas
from nsm.chains.registry.set_expiration_time import SetExpirationTime
from nsm.chains.registry.set_payload import SetPayload
from nsm.chains.registry.update_path import RegistryUpdatePath
from nsm.kube import connect

from .objects import ENDPOINT_FORM, SERVICE_FORM
from .place import Place
from .quota import StoredQuota
from .rules import EndpointRules, ServiceRules
from .store import CustomResources
from .taken_names import RecordedNames

_OPEN, _LIMITS = Registration(), Limits()


@asynccontextmanager
async def custom_resource_registry(
    identity: Identity,
    *,
    namespace: str,
    kubeconfig: str,
    policies: Sequence[str],
    lifetime: float,
    name: str,
    trust: Trust = NO_TRUST,
    registration: Registration = _OPEN,
    hosts: Hosts = NO_HOSTS,
    limits: Limits = _LIMITS,
) -> AsyncIterator[Registry]:
    """A registry in the custom resources of `namespace` (empty: the one that the pod or the kubeconfig says).

    Endpoints live `lifetime` seconds after they registered last. Entered once everything in the cluster is known:
    that waits for an API server that is away, and for permissions. Nothing of a registration is kept in the process,
    so any replica may get the next call for a name: there is no begin element. `trust`, `registration`, `hosts` and
    `limits` are those of `memory_registry`; what a client has registered is counted over all replicas.
    """
    owned = PolicySet.select(policies).client_allowed
    async with connect(kubeconfig) as api:
        place = Place(api, namespace or api.namespace, component=name)
        endpoint_store = CustomResources(
            place, ENDPOINT_FORM, EndpointRules(owned=owned, trust=trust), lifetime=lifetime, limits=limits
        )

        def is_provided(service: str) -> bool:
            return bool(endpoint_store.index.records.matching(NetworkServiceEndpoint(network_service_names=[service])))

        service_rules = ServiceRules(owned=owned, is_provided=is_provided, trust=trust)
        service_store = CustomResources(place, SERVICE_FORM, service_rules, lifetime=lifetime, limits=limits)
        quotas, allowed = Quotas(limits, is_registry=True, trust=trust), allow_services(identity, registration)
        service_names = RecordedNames(service_store.index.records, NetworkService(), trust)
        endpoint_names = RecordedNames(endpoint_store.index.records, NetworkServiceEndpoint(), trust)
        services: RegistryChain[NetworkService] = RegistryChain(
            [
                CheckRecord(SERVICES, limits),
                LimitWatches(limits),
                RegistryUpdatePath(identity),  # before authorize, which looks at the tokens
                RegistryAuthorize(policies, trust, keeps_owners=False, names=service_names),  # the store keeps them
                allowed,
                StoredQuota(quotas, service_store.index.records),
                SetPayload(),
                service_store,
            ]
        )
        endpoints: RegistryChain[NetworkServiceEndpoint] = RegistryChain(
            [
                CheckRecord(ENDPOINTS, limits),
                LimitWatches(limits),
                RegistryUpdatePath(identity),
                RegistryAuthorize(policies, trust, keeps_owners=False, names=endpoint_names),
                allowed,
                AllowUrls(hosts, trust, takes_descriptors=False),
                StoredQuota(quotas, endpoint_store.index.records),
                SetExpirationTime(lifetime),
                endpoint_store,
            ]
        )
        async with endpoint_store, service_store:
            await endpoint_store.synced()
            await service_store.synced()
            yield Registry(services, endpoints)
