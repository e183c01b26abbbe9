"""Clients: request wires on behalf of a workload; `nsm nsc` keeps them, `nsm nsc-init` requests them once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from nsm.chains.component import Runtime, run
from nsm.chains.composed import client, monitors
from nsm.chains.core import Element, InvalidRequest
from nsm.chains.elements.accept_dns import AcceptDns
from nsm.chains.elements.accept_routes import AcceptRoutes
from nsm.chains.elements.client_excluded_prefixes import ClientExcludedPrefixes
from nsm.chains.elements.client_info import LABELS, ClientInfo
from nsm.chains.elements.descriptors import SendDescriptors
from nsm.chains.elements.dns_context import DnsContextClient
from nsm.chains.elements.heal import Heal
from nsm.chains.elements.kernel import KernelClient
from nsm.chains.elements.kernel_liveness import KernelLiveness
from nsm.chains.elements.liveness import Liveness
from nsm.chains.elements.memif import MemifClient
from nsm.chains.elements.recover import Recover
from nsm.chains.elements.remember import Memory, Remember
from nsm.chains.elements.retry import Retry
from nsm.chains.elements.sriov_token import SriovTokenClient
from nsm.chains.elements.underlay import Underlay
from nsm.chains.elements.vfio import VfioClient
from nsm.chains.logs import log
from nsm.chains.model.sriov import tokens_in
from nsm.chains.transport import Monitors, RemoteNetworkService
from nsm.services.dns.resolv_conf import copy_if_missing
from nsm.services.dns.resolver import LocalResolver

from .config import ClientConfig, NscConfig, NscInitConfig
from .ready_file import ReadyFile, TellReady, waits
from .services import Services
from .wires import Wires, is_here

PATIENCE = 0.6
"""Seconds after which a cut wire is checked again: its forwarder repairs what it can within half a second."""
_FIRST = 6.0
"""Seconds that a new wire has for its first answer: a lost handshake of WireGuard is sent again after five."""
_QUICK = 0.2
"""Seconds that a check waits for pings if the mesh has already reported that a component on the path is gone."""


def main(arguments: list[str]) -> int:
    """A client that keeps its wires until it is stopped."""
    return run("nsc", NscConfig, keep, arguments, waits=lambda config, why: waits(config.ready_file, why))


def main_init(arguments: list[str]) -> int:
    """A client that requests its wires and exits."""
    return run("nsc-init", NscInitConfig, connect_once, arguments)


async def keep(config: NscConfig, runtime: Runtime) -> None:
    """Keep the wires, and the DNS names that they bring, until it is time to stop."""
    with ReadyFile(config.ready_file) as ready_file:
        more = [TellReady(ready_file), *_dns(config, ready_file)]
        limit = config.liveness_check_timeout
        liveness = KernelLiveness(limit, patience=PATIENCE) if config.liveness_check_enabled else None
        async with requested(config, runtime, ready_file, more, refresh=True, liveness=liveness) as wires:
            if await runtime.ends(wires.all_up()):
                ready_file.begin()
                log.info("ready", connections=len(wires))
            await runtime.stopping.wait()
            await wires.close()


async def connect_once(config: NscInitConfig, runtime: Runtime) -> None:
    """Create the wires; they stay. Raises `InvalidRequest` if it has to stop before."""
    async with requested(config, runtime, ReadyFile(""), [], refresh=False) as wires:
        if not await runtime.ends(wires.all_up()):
            raise InvalidRequest("stopped before all wires were there")


@asynccontextmanager
async def requested(
    config: ClientConfig,
    runtime: Runtime,
    ready_file: ReadyFile,
    more: Sequence[Element],
    *,
    refresh: bool,
    liveness: Liveness | None = None,
) -> AsyncIterator[Wires]:
    """The wanted wires, requested in the background; they stay when this ends."""
    copy_if_missing(config.resolv_conf_from, config.resolv_conf_path)
    wires, kernel = Wires(config.name, config.labels, ready_file, is_here if refresh else None), KernelClient()
    services = Services(config.network_services, config.network_services_file, partial(ready_file.tell, "services"))
    manager = monitors(runtime.pool)
    present = partial(manager.present, config.connect_to)
    memory = Memory(config.state_folder, config.limits) if config.state_folder else None
    recover = Recover(config.name, present, liveness=liveness, memory=memory, limits=config.limits)
    chain = client(
        config.name,
        [
            *([Remember(memory)] if memory is not None else []),
            ClientInfo(dict(zip(LABELS, (config.node_name, config.pod_name, config.cluster_name), strict=True))),
            kernel,
            MemifClient(),
            VfioClient(),
            SriovTokenClient(_tokens()),  # behind those that add mechanisms
            ClientExcludedPrefixes(config.awareness_groups),
            AcceptRoutes(config.accept_routes, Underlay(wires=kernel.names)),
            SendDescriptors(),
            *more,
        ],
        RemoteNetworkService(runtime.pool, timeout=config.request_timeout),
        first=[Retry(timeout=config.request_timeout, tell=wires.failed), recover],
        url=config.connect_to,
        refresh=refresh,
        heal=_heal(config, manager, liveness) if isinstance(config, NscConfig) else None,
        liveness=liveness,
        policies=config.client_policies,
        limits=config.limits,
    )
    async with chain:
        wires.over(chain).follow(services.lists(), partial(recover.standing, config.request_timeout))
        try:
            yield wires
        finally:
            await wires.stop()


def _tokens() -> dict[str, tuple[str, ...]]:
    try:
        return tokens_in(os.environ)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def _heal(config: NscConfig, manager: Monitors, liveness: Liveness | None) -> Heal:
    quick = KernelLiveness(min(_QUICK, config.liveness_check_timeout)) if liveness is not None else None
    interval, timeout = config.liveness_check_interval, config.heal_timeout or None
    return Heal(manager, liveness, quick=quick, interval=interval, timeout=timeout, first=_FIRST)


def _dns(config: NscConfig, ready_file: ReadyFile) -> list[Element]:
    if not config.local_dns_server_enabled:
        return []
    tell = partial(ready_file.tell, "names")
    resolver = LocalResolver(*config.local_dns_server_address, path=config.resolv_conf_path, tell=tell)
    resolver.recover()
    return [DnsContextClient(resolver), AcceptDns(config.accept_dns)]
