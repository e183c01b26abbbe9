"""How an endpoint's process registers what it provides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.composed import endpoints_client, services_client
from nsm.chains.config import Common
from nsm.chains.core import RegistryCall, RegistryHandler
from nsm.chains.registry.client_info import RegistryClientInfo
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.transport import Pool


async def register(
    stack: AsyncExitStack,
    pool: Pool,
    url: str,
    record: NetworkServiceEndpoint,
    services: Iterable[NetworkService],
    *,
    config: Common,
    policies: Sequence[str],
) -> RegistryHandler[NetworkServiceEndpoint]:
    """Register `services`, then the endpoint, at `url`; they stay registered as long as `stack` is open.

    The endpoint gets labels of where it runs, out of `config`. Returns what can unregister it.
    """
    where = {"nodeName": config.node_name, "podName": config.pod_name, "clusterName": config.cluster_name}
    of_services = await stack.enter_async_context(services_client(url, pool, policies=policies))
    of_endpoints = endpoints_client(url, pool, [RegistryClientInfo(where), SendUrl()], policies=policies)
    await stack.enter_async_context(of_endpoints)
    for service in services:
        await of_services.register(RegistryCall(service))
    await of_endpoints.register(RegistryCall(record))
    return of_endpoints
