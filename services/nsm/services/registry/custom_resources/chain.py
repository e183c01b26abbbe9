"""The registry on custom resources, composed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from nsm.chains.composed.registry import Registry, RegistrySettings, stored_registry
from nsm.chains.identity import Identity
from nsm.kube import connect

from .backend import CustomResources
from .objects import ENDPOINT_FORM, SERVICE_FORM
from .place import Place


@asynccontextmanager
async def custom_resource_registry(
    identity: Identity, settings: RegistrySettings, *, namespace: str, kubeconfig: str, name: str
) -> AsyncIterator[Registry]:
    """A registry in the custom resources of `namespace` (empty: that of the pod or the kubeconfig).

    Entered once all objects are known; waits for an unreachable API server, and for permissions.
    Services stay until they are deleted.
    """
    async with connect(kubeconfig) as api:
        place = Place(api, namespace or api.namespace, component=name)
        services, endpoints = CustomResources(place, SERVICE_FORM), CustomResources(place, ENDPOINT_FORM)
        settings = replace(settings, service_lifetime=0.0)
        async with stored_registry(identity, services, endpoints, settings, by_hand=True) as registry:
            yield registry
