"""Registrations that the mesh's operator maintains, or removes on behalf of killed components."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack

from nsm.apis.registry import Destination, Metadata, NetworkService, NetworkServiceEndpoint
from nsm.apis.registry import Match as MatchMessage
from nsm.chains.composed import endpoints_client, services_client
from nsm.chains.core import ENDPOINTS, MeshError, RegistryCall, RegistryChain
from nsm.chains.identity.source import identity_from
from nsm.chains.logs import log
from nsm.chains.transport import Pool, RemoteRegistry

from .model import DEFAULT_PAYLOAD, Domain, Match, ServiceSpec, Topology

_TIMEOUT = 5.0
_PAUSE = 0.05
_TOKEN_LIFETIME = 600


class Registrations:
    """Keeps the topology's network services registered, also after a restart of the registry."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._url = ""
        self._client: RegistryChain[NetworkService] | None = None
        self._kept: dict[str, ServiceSpec] = {}

    async def keep(self, pool: Pool, url: str, services: Mapping[str, ServiceSpec]) -> None:
        """Register exactly these services, through the manager at `url`. Raises `MeshError`."""
        client = await self._client_of(pool, url)
        for name in self._kept.keys() - services.keys():
            del self._kept[name]
            await client.unregister(RegistryCall(NetworkService(name=name), deadline=_deadline()))
        for name, service in services.items():
            if self._kept.get(name) != service:
                await client.register(RegistryCall(message_of(service)))
                self._kept[name] = service

    async def aclose(self) -> None:
        """Stop, without unregistering."""
        await self._stack.aclose()

    async def _client_of(self, pool: Pool, url: str) -> RegistryChain[NetworkService]:
        if self._client is None or url != self._url:
            await self._stack.aclose()
            self._url, self._kept = url, {}
            self._client = await self._stack.enter_async_context(services_client(url, pool))
        return self._client


def services_of(topology: Topology, domain: Domain) -> dict[str, ServiceSpec]:
    """The services that the operator registers in a domain: those in the file that it provides, or all of one domain.

    All others of the endpoints that provide them are registered too.

    Such an endpoint registers no services itself, because that could contradict the file.
    """
    endpoints = [endpoint for endpoint in topology.endpoints if endpoint.node in domain.nodes]
    provided = {name for endpoint in endpoints for name in endpoint.services}
    described = {each.name: each for each in topology.services if not topology.domains or each.name in provided}
    found = dict(described)
    for endpoint in endpoints:
        if any(name in described for name in endpoint.services):
            for name in endpoint.services:
                found.setdefault(name, ServiceSpec(name, endpoint.payload or DEFAULT_PAYLOAD))
    return found


def message_of(service: ServiceSpec) -> NetworkService:
    """The record of a service."""
    matches = [_match(match) for match in service.matches]
    return NetworkService(name=service.name, payload=service.payload, matches=matches)


def _match(match: Match) -> MatchMessage:
    routes = [
        Destination(destination_selector=dict(route.destination_selector), weight=route.weight)
        for route in match.routes
    ]
    metadata = None if match.labels is None else Metadata(labels=dict(match.labels))
    selector = dict(match.source_selector)
    return MatchMessage(source_selector=selector, routes=routes, fallthrough=match.fallthrough, metadata=metadata)


async def until_registered(pool: Pool, manager: str, names: Collection[str]) -> None:
    """Wait until the manager at `manager` knows these endpoints of its node; after a restart it knows none."""
    registry = RemoteRegistry(ENDPOINTS, pool)
    while True:
        with contextlib.suppress(MeshError):
            call = RegistryCall(NetworkServiceEndpoint(), target=manager, deadline=_deadline())
            found = {each.record.name async for batch in registry.find(call) for each in batch}
            if found.issuperset(names):
                return
        await asyncio.sleep(_PAUSE)


async def unregister_endpoint(workload_api: str, manager: str, name: str) -> None:
    """Unregister the endpoint `name` with its own identity. A failure is logged, and the registration expires."""
    try:
        async with (
            asyncio.timeout(_TIMEOUT),
            identity_from(workload_api, token_lifetime=_TOKEN_LIFETIME) as identity,
            Pool(identity) as pool,
            endpoints_client(manager, pool) as client,
        ):
            await client.unregister(RegistryCall(NetworkServiceEndpoint(name=name), deadline=_deadline()))
    except (MeshError, TimeoutError) as error:
        log.warning("still registered until it expires", name=name, error=str(error) or "no response in time")


def _deadline() -> float:
    return asyncio.get_running_loop().time() + _TIMEOUT
