"""Clients of a registry, for components that register."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import (
    ENDPOINTS,
    SERVICES,
    MeshError,
    RegistryCall,
    RegistryChain,
    RegistryElement,
    RegistryHandler,
)
from nsm.chains.logs import log
from nsm.chains.policy import REGISTRY_CLIENT_MASKS, Learned
from nsm.chains.registry.authorize import RegistryAuthorizeClient
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.client_url import RegistryClientUrl
from nsm.chains.registry.heal import RegistryHeal
from nsm.chains.registry.refresh import RegistryRefresh
from nsm.chains.registry.retry import TRY_TIMEOUT, RegistryRetry
from nsm.chains.transport import Pool, RemoteRegistry

_LOOK_TIMEOUT = 2.0
"""Seconds that looking up the mesh's forwarders may take; a call waits for it."""


def services_client(
    url: str, pool: Pool, *, policies: Sequence[str] = REGISTRY_CLIENT_MASKS, timeout: float = TRY_TIMEOUT
) -> RegistryChain[NetworkService]:
    """Registers network services at `url`, and keeps them registered; one try takes at most `timeout` seconds."""
    return RegistryChain(
        [
            RegistryBegin(),
            RegistryRetry(timeout=timeout),
            RegistryAuthorizeClient(policies),
            RegistryHeal(SERVICES),
            RegistryClientUrl(url),
        ],
        RemoteRegistry(SERVICES, pool),
    )


def endpoints_client(
    url: str,
    pool: Pool,
    elements: Sequence[RegistryElement[NetworkServiceEndpoint]] = (),
    *,
    policies: Sequence[str] = REGISTRY_CLIENT_MASKS,
    timeout: float = TRY_TIMEOUT,
) -> RegistryChain[NetworkServiceEndpoint]:
    """Registers endpoints at `url`, and keeps them registered; `elements` are the caller's own part.

    One try takes at most `timeout` seconds.
    """
    return RegistryChain(
        [
            RegistryBegin(),
            RegistryRetry(timeout=timeout),
            RegistryHeal(ENDPOINTS),  # before refresh: a repeated registration sets its clock
            RegistryRefresh(),
            RegistryAuthorizeClient(policies),
            RegistryClientUrl(url),
            *elements,
        ],
        RemoteRegistry(ENDPOINTS, pool),
    )


def signs_in(
    registry: RegistryHandler[NetworkServiceEndpoint], *, forwarder_service: str = "forwarder"
) -> Callable[[str], Awaitable[object]]:
    """The sign that a forwarder lives, by its name: who has registered it, and until when."""

    async def sign(name: str) -> object:
        deadline = asyncio.get_running_loop().time() + _LOOK_TIMEOUT
        query = NetworkServiceEndpoint(name=name, network_service_names=[forwarder_service])
        async for batch in registry.find(RegistryCall(query, deadline=deadline)):
            for one in batch:
                if one.record.name == name and not one.deleted:
                    return (*one.record.path_ids[:1], one.record.expiration_time)
        return None

    return sign


def registry_at(url: str, pool: Pool) -> RegistryChain[NetworkServiceEndpoint]:
    """The endpoints that the manager (or registry) at `url` knows."""
    return RegistryChain([RegistryClientUrl(url)], RemoteRegistry(ENDPOINTS, pool))


def services_at(url: str, pool: Pool) -> RegistryChain[NetworkService]:
    """The network services that the manager (or registry) at `url` knows."""
    return RegistryChain([RegistryClientUrl(url)], RemoteRegistry(SERVICES, pool))


def learned_intermediaries(url: str, pool: Pool, *, forwarder_service: str = "forwarder") -> Learned:
    """Who may vouch for clients towards an endpoint, according to the manager (or registry) at `url`.

    Those are the registered forwarders, and every component that passed their registrations on: managers, registry.
    """
    registry = registry_at(url, pool)

    async def ask() -> Iterable[str]:
        deadline = asyncio.get_running_loop().time() + _LOOK_TIMEOUT
        query = NetworkServiceEndpoint(network_service_names=[forwarder_service])
        found: list[str] = []
        try:
            async for batch in registry.find(RegistryCall(query, deadline=deadline)):
                found += [spiffe_id for one in batch for spiffe_id in one.record.path_ids if not one.deleted]
        except MeshError as error:
            log.warning("cannot look up the mesh's forwarders", of=url, error=str(error))
        return found

    return Learned(ask)
