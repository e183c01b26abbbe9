"""The registry on whichever store a URL names."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from nsm.chains.composed import Registry, RegistrySettings, stored_registry
from nsm.chains.core import MeshError
from nsm.chains.identity import Identity
from nsm.chains.registry.stored import MemoryBackend

from .store_url import CustomResourceStore, EtcdStore, MemoryStore, SqliteStore, StoreUrl


def open_registry(
    identity: Identity,
    settings: RegistrySettings,
    store: StoreUrl,
    *,
    namespace: str = "",
    kubeconfig: str = "",
    name: str = "registry",
) -> AbstractAsyncContextManager[Registry]:
    """A registry that is entered once its store has been read. A store's libraries are imported only if it is used.

    `namespace` and `kubeconfig` are for custom resources if the URL has no namespace; `name` is the source of events.
    Entering raises `MeshError` if the store cannot be used.
    """
    match store:
        case MemoryStore():
            return stored_registry(identity, MemoryBackend(), MemoryBackend(), settings)
        case SqliteStore(path):
            from .sqlite import sqlite_registry  # noqa: PLC0415

            return sqlite_registry(identity, settings, path)
        case EtcdStore():
            from .etcd import etcd_registry  # noqa: PLC0415

            return etcd_registry(identity, settings, store)
        case CustomResourceStore(named):
            try:
                from .custom_resources import custom_resource_registry  # noqa: PLC0415
            except ImportError as error:
                raise MeshError(f"NSM_STORE=k8s: needs the extra nsm-services[k8s]: {error}") from error
            return custom_resource_registry(
                identity, settings, namespace=named or namespace, kubeconfig=kubeconfig, name=name
            )
