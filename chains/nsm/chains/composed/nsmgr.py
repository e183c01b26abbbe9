"""The manager of a node: the entry point for its clients and endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import (
    DEFAULT_LIMITS,
    ENDPOINTS,
    SERVICES,
    Limits,
    MeshError,
    RegistryCall,
    RegistryChain,
    RegistryElement,
)
from nsm.chains.elements.accept_routes import AcceptRoutes
from nsm.chains.elements.attempts import Attempts
from nsm.chains.elements.client_info import ClientInfo
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.descriptors import ReceiveDescriptors, ReceiveReturned, ReturnDescriptors, SendDescriptors
from nsm.chains.elements.discover_forwarder import DiscoverForwarder
from nsm.chains.elements.excluded_prefixes import DEFAULT_PATH, ExcludedPrefixes
from nsm.chains.elements.orphans import Orphans
from nsm.chains.elements.rematch import Rematch
from nsm.chains.identity import Identity
from nsm.chains.model.networks import EVERYTHING, Networks
from nsm.chains.policy import (
    CLIENT_MASKS,
    FORWARDERS,
    NO_HOSTS,
    NO_TRUST,
    REGISTRY_CLIENT_MASKS,
    REGISTRY_SERVER_MASKS,
    SERVER_MASKS,
    Hosts,
    Registration,
    Trust,
)
from nsm.chains.registry.allow_services import AllowServices
from nsm.chains.registry.allow_urls import AllowUrls
from nsm.chains.registry.authorize import RegistryAuthorize, RegistryAuthorizeClient
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.cache import Cache
from nsm.chains.registry.cache_elsewhere import CacheElsewhere
from nsm.chains.registry.check_record import CheckRecord
from nsm.chains.registry.client_info import RegistryClientInfo
from nsm.chains.registry.client_url import RegistryClientUrl
from nsm.chains.registry.connect import RegistryConnect
from nsm.chains.registry.descriptors import ReceiveUrl, ReturnUrls, Sockets, WithoutPaths
from nsm.chains.registry.end_with_socket import EndWithSocket
from nsm.chains.registry.expire import Expire
from nsm.chains.registry.expire_services import LIFETIME, ExpireServices
from nsm.chains.registry.interdomain import Interdomain
from nsm.chains.registry.limit_watches import LimitWatches
from nsm.chains.registry.local_bypass import LocalBypass
from nsm.chains.registry.memory import Memory
from nsm.chains.registry.quota import Quota, Quotas
from nsm.chains.registry.set_payload import SetPayload
from nsm.chains.registry.set_registration_time import SetRegistrationTime
from nsm.chains.registry.update_path import RegistryUpdatePath
from nsm.chains.transport import Methods, Pool, RemoteNetworkService, RemoteRegistry, registry

from .beyond import Beyond
from .client import client
from .endpoint import Endpoint, endpoint
from .registry_client import signs_in

EndpointChain = RegistryChain[NetworkServiceEndpoint]
ServiceChain = RegistryChain[NetworkService]

_OPEN = Registration()


@dataclass(frozen=True)
class Nsmgr:
    """The three servers of a manager: connections and both kinds of record."""

    connections: Endpoint
    services: ServiceChain
    endpoints: EndpointChain
    _inner: tuple[ServiceChain | EndpointChain, ...]
    _beyond: Beyond | None = None

    def methods(self) -> Methods:
        """All APIs of a manager."""
        records = {**registry(SERVICES, self.services), **registry(ENDPOINTS, self.endpoints)}
        return {**self.connections.methods(), **records}

    async def watch(self) -> None:
        """Start watching the registry before the first call needs it: a missing registry is noticed early."""
        for chain, nobody in zip(
            self._inner, (NetworkService(name="-"), NetworkServiceEndpoint(name="-")), strict=True
        ):
            with suppress(MeshError):
                async for _ in cast("ServiceChain", chain).find(RegistryCall(cast("NetworkService", nobody))):
                    pass

    async def aclose(self) -> None:
        """Release the elements of all servers."""
        await self.connections.chain.aclose()
        for chain in (self.services, self.endpoints, *self._inner):
            await chain.aclose()
        if self._beyond is not None:
            await self._beyond.aclose()


def nsmgr(
    name: str,
    identity: Identity,
    pool: Pool,
    *,
    own_url: str,
    registry_url: str | None,
    forwarder_service: str = "forwarder",
    labels: Mapping[str, str] | None = None,
    server_policies: Sequence[str] = REGISTRY_SERVER_MASKS,
    client_policies: Sequence[str] = REGISTRY_CLIENT_MASKS,
    connection_policies: Sequence[str] = SERVER_MASKS,
    answer_policies: Sequence[str] = CLIENT_MASKS,
    trust: Trust = NO_TRUST,
    endpoint_lifetime: float = 60.0,
    excluded_prefixes: str = DEFAULT_PATH,
    service_lifetime: float = LIFETIME,
    registration: Registration = _OPEN,
    hosts: Hosts = NO_HOSTS,
    accept_routes: Networks = EVERYTHING,
    limits: Limits = DEFAULT_LIMITS,
    unchecked_namespaces: bool = False,
    orphans: Orphans | None = None,
    beyond: Beyond | None = None,
) -> Nsmgr:
    """A manager called `name` that others reach at `own_url`; without a `registry_url` it is the registry too.

    `server_policies` apply to components that register and `client_policies` to the registry's answers;
    `connection_policies` to components that request connections and `answer_policies` to the forwarder's answers.
    `trust` lists who may vouch for others in a path, and who may watch; `registration` who may register for which
    service, `hosts` where endpoints may be that pass no socket, `accept_routes` which routes wires may bring. With
    `unchecked_namespaces` it accepts a client's namespace even if the kernel does not show whose it is.
    `orphans` sets for how long connections are kept whose caller cannot be reached. Records of other domains are found
    and registered `beyond`, or, without that, through the registry.
    """
    known_services = RegistryChain(
        [
            *([Interdomain(beyond.services)] if beyond is not None else []),
            *_services_store(pool, registry_url, client_policies, limits),
        ]
    )
    known_endpoints = RegistryChain(
        [
            LocalBypass(own_url),
            WithoutPaths(own_url),
            *([Interdomain(beyond.endpoints)] if beyond is not None else []),
            *_endpoints_store(pool, registry_url, client_policies, limits),
        ]
    )
    if orphans is not None:
        orphans.looks_by(signs_in(known_endpoints, forwarder_service=forwarder_service))
    sockets, quotas = Sockets(), Quotas(limits)
    allowed: AllowServices[Any] = AllowServices(
        registration, identity, forwarder_service=forwarder_service, forwarders=FORWARDERS
    )
    connections = endpoint(
        name,
        identity,
        [
            ClientInfo(labels or {}),
            Rematch(known_services, known_endpoints),
            DiscoverForwarder(known_services, known_endpoints, forwarder_service=forwarder_service, own_url=own_url),
            ExcludedPrefixes(excluded_prefixes),
            AcceptRoutes(accept_routes),
            ReceiveDescriptors(unchecked=unchecked_namespaces, limits=limits),
            Connect(
                client(
                    name,
                    [ReceiveReturned(passes_on=True, forgets=True), SendDescriptors()],
                    RemoteNetworkService(pool),
                    policies=answer_policies,
                    limits=limits,
                )
            ),
            ReturnDescriptors(),  # last: it sends the descriptors that the client chain received
        ],
        policies=connection_policies,
        trust=trust,
        pool=pool,
        limits=limits,
        orphans=orphans,
        attempts=Attempts(),
    )
    services: ServiceChain = RegistryChain(
        [
            CheckRecord(SERVICES, limits),
            LimitWatches(limits),
            RegistryUpdatePath(identity),  # before authorize, which looks at the tokens
            RegistryBegin(),  # before authorize, which keeps the owner of a name with the registration
            RegistryAuthorize(server_policies, trust, keeps_owners=registry_url is None, endpoints=known_endpoints),
            allowed,
            Quota(quotas),
            ExpireServices(known_endpoints, service_lifetime),
        ],
        known_services,
    )
    endpoints: EndpointChain = RegistryChain(
        [
            CheckRecord(ENDPOINTS, limits),
            LimitWatches(limits),
            RegistryUpdatePath(identity),
            RegistryBegin(),
            RegistryAuthorize(server_policies, trust),
            allowed,
            AllowUrls(hosts, trust, takes_descriptors=True),
            Quota(quotas),
            RegistryClientInfo(labels or {}),
            Expire(endpoint_lifetime),
            ReceiveUrl(pool.forget, sockets),
            EndWithSocket(sockets, pool.presence, pool.listens, forwarders=forwarder_service),
            ReturnUrls(sockets),
        ],
        known_endpoints,  # behind the descriptors: inside the manager a URL can be dialled unchanged
    )
    return Nsmgr(connections, services, endpoints, (known_services, known_endpoints), beyond)


def _services_store(
    pool: Pool, registry_url: str | None, policies: Sequence[str], limits: Limits
) -> list[RegistryElement[NetworkService]]:
    if registry_url is None:
        return [SetPayload(), Memory()]
    remote: ServiceChain = RegistryChain(
        [RegistryClientUrl(registry_url), RegistryAuthorizeClient(policies)], RemoteRegistry(SERVICES, pool)
    )
    return [CacheElsewhere(SERVICES, limits=limits), Cache(SERVICES, limits=limits), RegistryConnect(remote)]


def _endpoints_store(
    pool: Pool, registry_url: str | None, policies: Sequence[str], limits: Limits
) -> list[RegistryElement[NetworkServiceEndpoint]]:
    if registry_url is None:
        return [SetRegistrationTime(), Memory()]
    remote: EndpointChain = RegistryChain(
        [RegistryClientUrl(registry_url), RegistryAuthorizeClient(policies)], RemoteRegistry(ENDPOINTS, pool)
    )
    return [CacheElsewhere(ENDPOINTS, limits=limits), Cache(ENDPOINTS, limits=limits), RegistryConnect(remote)]
