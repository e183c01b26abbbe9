"""The proxy of a domain: connections to and from other domains pass it, and registrations in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.config.table import NoTable, Table
from nsm.chains.core import DEFAULT_LIMITS, ENDPOINTS, SERVICES, Kind, Limits, R, RegistryChain
from nsm.chains.elements.admit_domains import AdmitDomains
from nsm.chains.elements.cluster_info import ClusterInfo
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.discover import Discover
from nsm.chains.elements.not_back import NotBack
from nsm.chains.elements.orphans import Orphans
from nsm.chains.elements.own_names import OwnNames
from nsm.chains.elements.registered_elsewhere import RegisteredElsewhere
from nsm.chains.elements.round_robin import RoundRobin
from nsm.chains.elements.swap_addresses import SwapClientAddresses, SwapServerAddresses
from nsm.chains.identity import Identity
from nsm.chains.policy import (
    CLIENT_MASKS,
    NO_HOSTS,
    NO_TRUST,
    REGISTRY_CLIENT_MASKS,
    REGISTRY_SERVER_MASKS,
    SERVER_MASKS,
    Admitted,
    Hosts,
    Trust,
)
from nsm.chains.registry.allow_urls import AllowUrls
from nsm.chains.registry.authorize import RegistryAuthorize, RegistryAuthorizeClient
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.cache_elsewhere import CacheElsewhere
from nsm.chains.registry.cache_providers import CacheProviders
from nsm.chains.registry.check_record import CheckRecord
from nsm.chains.registry.client_url import RegistryClientUrl
from nsm.chains.registry.cluster_info import RegistryClusterInfo
from nsm.chains.registry.connect import RegistryConnect
from nsm.chains.registry.expire import Expire
from nsm.chains.registry.expire_services import ExpireServices
from nsm.chains.registry.interdomain import Interdomain
from nsm.chains.registry.limit_watches import LimitWatches
from nsm.chains.registry.own_domain_only import OwnDomainOnly
from nsm.chains.registry.publish_under import PublishUnder
from nsm.chains.registry.quota import Quota, Quotas
from nsm.chains.registry.swap_urls import SwapUrls
from nsm.chains.registry.update_path import RegistryUpdatePath
from nsm.chains.transport import Methods, Pool, RemoteNetworkService, RemoteRegistry, registry

from .client import client
from .endpoint import Endpoint, endpoint

_NOTHING: Table = NoTable()
_NO_OTHERS = Admitted()


@dataclass(frozen=True)
class NsmgrProxy:
    """The three servers of a proxy: connections and both kinds of record."""

    connections: Endpoint
    services: RegistryChain[NetworkService]
    endpoints: RegistryChain[NetworkServiceEndpoint]
    _others: tuple[RegistryChain[NetworkService] | RegistryChain[NetworkServiceEndpoint], ...]

    def methods(self) -> Methods:
        """All APIs of a proxy, those of a manager."""
        records = {**registry(SERVICES, self.services), **registry(ENDPOINTS, self.endpoints)}
        return {**self.connections.methods(), **records}

    async def aclose(self) -> None:
        """Release the elements of all servers."""
        await self.connections.chain.aclose()
        for chain in (self.services, self.endpoints, *self._others):
            await chain.aclose()


def nsmgr_proxy(
    name: str,
    identity: Identity,
    pool: Pool,
    *,
    own_url: str,
    registry_url: str,
    registry_proxy_url: str,
    addresses: Table = _NOTHING,
    labels: Table = _NOTHING,
    admitted: Admitted = _NO_OTHERS,
    server_policies: Sequence[str] = REGISTRY_SERVER_MASKS,
    client_policies: Sequence[str] = REGISTRY_CLIENT_MASKS,
    connection_policies: Sequence[str] = SERVER_MASKS,
    answer_policies: Sequence[str] = CLIENT_MASKS,
    trust: Trust = NO_TRUST,
    hosts: Hosts = NO_HOSTS,
    endpoint_lifetime: float = 60.0,
    limits: Limits = DEFAULT_LIMITS,
    orphans: Orphans | None = None,
) -> NsmgrProxy:
    """A proxy called `name` that its own domain reaches at `own_url`.

    Its own domain's records are at `registry_url`, those of others at `registry_proxy_url`. `addresses` has the outside
    addresses of nodes and of the proxy itself, `labels` those of the cluster. `admitted` lists what other trust domains
    may request; `trust` who may vouch for others in a path, in all domains. The policies are those of a manager.
    """
    elsewhere: dict[str, str] = {}
    quotas = Quotas(limits, is_registry=True, trust=trust)
    other_services = RegistryChain(_client(SERVICES, pool, registry_proxy_url, client_policies))
    other_endpoints = RegistryChain(
        [CacheElsewhere(ENDPOINTS, limits=limits), *_client(ENDPOINTS, pool, registry_proxy_url, client_policies)]
    )
    services: RegistryChain[NetworkService] = RegistryChain(
        [Interdomain(other_services), *_client(SERVICES, pool, registry_url, client_policies)]
    )
    endpoints: RegistryChain[NetworkServiceEndpoint] = RegistryChain(
        [
            Interdomain(other_endpoints),
            CacheProviders(),
            *_client(ENDPOINTS, pool, registry_url, client_policies),
        ]
    )
    connections = endpoint(
        name,
        identity,
        [
            AdmitDomains(admitted, identity),
            RegisteredElsewhere(elsewhere),  # before the names are translated: it knows them as others do
            OwnNames(identity),  # before discover, which looks names with a domain up in that domain
            Discover(services, endpoints),
            RoundRobin(),
            NotBack(own_url, addresses),
            SwapServerAddresses(addresses),
            ClusterInfo(labels),
            Connect(
                client(
                    name,
                    [SwapClientAddresses(addresses)],
                    RemoteNetworkService(pool),
                    policies=answer_policies,
                    limits=limits,
                )
            ),
        ],
        policies=connection_policies,
        trust=trust,
        pool=pool,
        limits=limits,
        orphans=orphans,
    )
    service_server: RegistryChain[NetworkService] = RegistryChain(
        [
            CheckRecord(SERVICES, limits),
            LimitWatches(limits),
            RegistryUpdatePath(identity),
            RegistryBegin(),
            RegistryAuthorize(server_policies, trust),
            OwnDomainOnly(identity),
            Quota(quotas),
            ExpireServices(other_endpoints, forgets=True),
        ],
        other_services,
    )
    endpoint_server: RegistryChain[NetworkServiceEndpoint] = RegistryChain(
        [
            CheckRecord(ENDPOINTS, limits),
            LimitWatches(limits),
            RegistryUpdatePath(identity),
            RegistryBegin(),
            RegistryAuthorize(server_policies, trust),
            OwnDomainOnly(identity),
            AllowUrls(hosts, trust, takes_descriptors=False),
            Quota(quotas),
            Expire(endpoint_lifetime, forgets=True),
            PublishUnder(own_url, elsewhere),
            SwapUrls(addresses),  # behind it: others reach the proxy by its outside address
            RegistryClusterInfo(labels),
        ],
        other_endpoints,
    )
    return NsmgrProxy(
        connections,
        service_server,
        endpoint_server,
        (services, endpoints, other_services, other_endpoints),
    )


def _client(kind: Kind[R], pool: Pool, url: str, policies: Sequence[str]) -> list[RegistryConnect[R]]:
    """The registry at `url`, as the last part of a chain."""
    remote: RegistryChain[R] = RegistryChain(
        [RegistryClientUrl(url), RegistryAuthorizeClient(policies)], RemoteRegistry(kind, pool)
    )
    return [RegistryConnect(remote)]
