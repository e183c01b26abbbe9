"""Clients of a registry, for those who register."""

from __future__ import annotations

from collections.abc import Sequence

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import ENDPOINTS, SERVICES, RegistryChain, RegistryElement
from nsm.chains.policy import REGISTRY_CLIENT_MASKS
from nsm.chains.registry.authorize import AuthorizeClient
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.client_url import ClientUrl
from nsm.chains.registry.heal import Heal
from nsm.chains.registry.refresh import Refresh
from nsm.chains.registry.retry import Retry
from nsm.chains.transport import Pool, RemoteRegistry


def services_client(
    url: str, pool: Pool, *, policies: Sequence[str] = REGISTRY_CLIENT_MASKS
) -> RegistryChain[NetworkService]:
    """Registers network services at `url`, and keeps them registered."""
    return RegistryChain(
        [
            RegistryBegin(),
            Retry(),
            AuthorizeClient(policies),
            Heal(SERVICES),
            ClientUrl(url),
        ],
        RemoteRegistry(SERVICES, pool),
    )


def endpoints_client(
    url: str,
    pool: Pool,
    elements: Sequence[RegistryElement[NetworkServiceEndpoint]] = (),
    *,
    policies: Sequence[str] = REGISTRY_CLIENT_MASKS,
) -> RegistryChain[NetworkServiceEndpoint]:
    """Registers endpoints at `url`, and keeps them registered; `elements` are the caller's own part."""
    return RegistryChain(
        [
            RegistryBegin(),
            Retry(),
            Heal(ENDPOINTS),  # before refresh: a registration that it makes anew sets that one's clock
            Refresh(),
            AuthorizeClient(policies),
            ClientUrl(url),
            *elements,
        ],
        RemoteRegistry(ENDPOINTS, pool),
    )
