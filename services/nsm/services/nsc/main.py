"""Clients: ask for wires on behalf of a workload; `nsm nsc` keeps them, `nsm nsc-init` asks once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from nsm.chains.component import Runtime, run
from nsm.chains.composed import client
from nsm.chains.core import Chain, Element, InvalidRequest
from nsm.chains.elements.accept_dns import AcceptDns
from nsm.chains.elements.accept_routes import AcceptRoutes
from nsm.chains.elements.client_excluded_prefixes import ClientExcludedPrefixes
from nsm.chains.elements.client_info import LABELS, ClientInfo
from nsm.chains.elements.descriptors import SendDescriptors
from nsm.chains.elements.dns_context import DnsContextClient
from nsm.chains.elements.kernel import KernelClient
from nsm.chains.elements.recover import Recover
from nsm.chains.elements.retry import Retry
from nsm.chains.elements.underlay import Underlay
from nsm.chains.logs import log
from nsm.chains.transport import RemoteMonitor, RemoteNetworkService
from nsm.services.dns.resolv_conf import copy_if_missing
from nsm.services.dns.resolver import LocalResolver

from .config import NscConfig, NscInitConfig
from .ready_file import ReadyFile, TellReady, waits
from .wires import Wires


def main(arguments: list[str]) -> int:
    """A client that keeps its wires until it is stopped."""
    return run("nsc", NscConfig, keep, arguments, waits=lambda config, why: waits(config.ready_file, why))


def main_init(arguments: list[str]) -> int:
    """A client that asks for its wires and exits."""
    return run("nsc-init", NscInitConfig, connect_once, arguments)


async def keep(config: NscConfig, runtime: Runtime) -> None:
    """Have the wires, and the names that they bring, until it is time to stop."""
    copy_if_missing(config.resolv_conf_from, config.resolv_conf_path)
    with ReadyFile(config.ready_file) as ready_file:
        more = [TellReady(ready_file), *_dns(config, ready_file)]
        wires = Wires(config.name, config.labels, ready_file)
        recover = _recover(config, runtime)
        async with _chain(config, runtime, [_retry(config, wires), recover], more, refresh=True) as chain:
            if await _connect_all(config, runtime, wires.over(chain), recover):
                ready_file.begin()
                log.info("ready", connections=len(config.network_services))
            await runtime.stopping.wait()
            await wires.close()


async def connect_once(config: NscInitConfig, runtime: Runtime) -> None:
    """Have the wires; they stay. Raises `InvalidRequest` if it is time to stop before."""
    copy_if_missing(config.resolv_conf_from, config.resolv_conf_path)
    wires, recover = Wires(config.name, config.labels), _recover(config, runtime)
    async with _chain(config, runtime, [_retry(config, wires), recover], [], refresh=False) as chain:
        if not await _connect_all(config, runtime, wires.over(chain), recover):
            await wires.stop()
            raise InvalidRequest("stopped before all wires were there")


async def _connect_all(config: NscConfig | NscInitConfig, runtime: Runtime, wires: Wires, recover: Recover) -> bool:
    """Whether all wires are there; not if it is time to stop."""
    if not config.network_services:
        log.warning("there is nothing to do: NSM_NETWORK_SERVICES is empty")

    async def connect() -> None:
        wires.set(config.network_services, await recover.standing(config.request_timeout))
        await wires.all_up()

    tasks = asyncio.ensure_future(connect()), asyncio.ensure_future(runtime.stopping.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].done() and tasks[0].result() is None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _chain(
    config: NscConfig | NscInitConfig,
    runtime: Runtime,
    first: Sequence[Element],
    more: Sequence[Element],
    *,
    refresh: bool,
) -> Chain:
    info = dict(zip(LABELS, (config.node_name, config.pod_name, config.cluster_name), strict=True))
    kernel = KernelClient()
    return client(
        config.name,
        [
            ClientInfo(info),
            kernel,
            ClientExcludedPrefixes(config.awareness_groups),
            AcceptRoutes(config.accept_routes, Underlay(wires=kernel.names)),
            SendDescriptors(),
            *more,
        ],
        RemoteNetworkService(runtime.pool, timeout=config.request_timeout),
        first=first,
        url=config.connect_to,
        refresh=refresh,
        policies=config.client_policies,
        limits=config.limits,
    )


def _retry(config: NscConfig | NscInitConfig, wires: Wires) -> Retry:
    return Retry(timeout=config.request_timeout, tell=wires.failed)


def _recover(config: NscConfig | NscInitConfig, runtime: Runtime) -> Recover:
    return Recover(config.name, RemoteMonitor(runtime.pool, config.connect_to).monitor, limits=config.limits)


def _dns(config: NscConfig, ready_file: ReadyFile) -> list[Element]:
    if not config.local_dns_server_enabled:
        return []

    def tell(fault: str) -> None:
        if fault:
            ready_file.lacks("names", fault)
        else:
            ready_file.has("names")

    resolver = LocalResolver(*config.local_dns_server_address, path=config.resolv_conf_path, tell=tell)
    resolver.recover()
    return [DnsContextClient(resolver), AcceptDns(config.accept_dns)]
