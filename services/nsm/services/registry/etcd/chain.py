"""The registry in etcd, composed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nsm.chains.composed import Registry, RegistrySettings, stored_registry
from nsm.chains.core import ENDPOINTS, SERVICES, MeshError
from nsm.chains.identity import Identity
from nsm.services.registry.store_url import EtcdStore

from .backend import EtcdBackend
from .client import Etcd

_DAY = 86_400.0


@asynccontextmanager
async def etcd_registry(identity: Identity, settings: RegistrySettings, store: EtcdStore) -> AsyncIterator[Registry]:
    """A registry in an etcd cluster. Entered once all records are known; waits for an unreachable cluster.

    Raises `MeshError` for files that cannot be read. If no registry runs for a day, etcd removes the records.
    """
    try:
        client = Etcd(store)
    except ValueError as error:
        raise MeshError(f"NSM_STORE: {error}") from error
    keep = settings.service_lifetime and max(_DAY, 2 * settings.service_lifetime)
    async with client as etcd:
        services = EtcdBackend(etcd, SERVICES, store.prefix, keep=keep)
        endpoints = EtcdBackend(etcd, ENDPOINTS, store.prefix, keep=max(_DAY, 2 * settings.lifetime))
        async with stored_registry(identity, services, endpoints, settings) as registry:
            yield registry
