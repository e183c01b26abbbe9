"""A load balancer in a vL3: connections to its address go to other clients of the network, chosen by their labels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from nsm.apis.connection import Connection, ConnectionEvent, MonitorScopeSelector
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.component import Runtime, run
from nsm.chains.core import ENDPOINTS, Backoff, Call, Element, Handler, MeshError, RegistryChain, Tasks
from nsm.chains.elements.kernel_liveness import KernelLiveness
from nsm.chains.logs import log
from nsm.chains.model.addresses import Address
from nsm.chains.model.ipcontext import interfaces, ip_context_of
from nsm.chains.registry.client_url import RegistryClientUrl
from nsm.chains.registry.descriptors import ReceiveUrls
from nsm.chains.transport import RemoteMonitor, RemoteRegistry
from nsm.services.forwarding import forward, send_no_redirects
from nsm.services.nsc.main import PATIENCE, requested
from nsm.services.nsc.ready_file import ReadyFile, TellReady

from .balancer import Balancer
from .config import LbVl3Config
from .servers import Events, Servers, follow_endpoints

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


def main(arguments: list[str]) -> int:
    """A load balancer in a vL3."""
    return run("lb-vl3", LbVl3Config, balance, arguments)


class TellAddresses(Element):
    """Report the client's own addresses, with every answer that has others."""

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self.changed = asyncio.Event()

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Report those of the answer."""
        connection = await rest.request(call)
        addresses = [each.ip for each in interfaces(ip_context_of(connection).src_ip_addrs)]
        if addresses != self.addresses:
            self.addresses = addresses
            self.changed.set()
        return connection


async def balance(config: LbVl3Config, runtime: Runtime) -> None:
    """Balance until it is time to stop. Raises `MeshError` if the kernel cannot be set."""
    send_no_redirects()
    own, balancer = TellAddresses(), Balancer(config.protocol.lower(), config.port, config.target_port or config.port)
    await balancer.begin()
    limit = config.liveness_check_timeout
    liveness = KernelLiveness(limit, patience=PATIENCE) if config.liveness_check_enabled else None
    service = config.network_services[0].network_service
    with ReadyFile(config.ready_file) as ready_file:
        more = [TellReady(ready_file), own]
        wanted = requested(config, runtime, ready_file, more, refresh=True, liveness=liveness)
        async with wanted as wires, Tasks("balancing") as tasks:
            servers = Servers(service, config.selector, _events(runtime), own.changed.set, tasks)
            if config.managers:
                servers.watch(config.managers)
            else:
                found = follow_endpoints(service, _registry(config, runtime), config.limits, servers.watch)
                tasks.spawn(found, name="endpoints")
            tasks.spawn(_keep_balanced(balancer, own, servers), name="balancing")
            if await runtime.ends(wires.all_up()):
                ready_file.begin()
                log.info("ready", addresses=list(map(str, own.addresses)), port=config.port, protocol=config.protocol)
            await runtime.stopping.wait()
            await wires.close()
    await balancer.end()


async def _keep_balanced(balancer: Balancer, own: TellAddresses, servers: Servers) -> None:
    """Follow the changes of addresses and servers."""
    pauses, forwards = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE), set[int]()
    while True:
        await own.changed.wait()
        own.changed.clear()
        found = servers.addresses(own.addresses)
        try:
            for version in {address.version for address in own.addresses} - forwards:
                forward(version)
                forwards.add(version)
            await balancer.use(own.addresses, found)
            pauses.reset()
            log.info("balancing", of=list(map(str, own.addresses)), to=list(map(str, found)))
        except MeshError as error:
            log.error("cannot balance", error=str(error))
            await asyncio.sleep(pauses.next())
            own.changed.set()


def _registry(config: LbVl3Config, runtime: Runtime) -> RegistryChain[NetworkServiceEndpoint]:
    """The endpoints that the manager knows; sockets of those on this node arrive as descriptors."""
    return RegistryChain(
        [ReceiveUrls(runtime.pool.adopt), RegistryClientUrl(config.connect_to)], RemoteRegistry(ENDPOINTS, runtime.pool)
    )


def _events(runtime: Runtime) -> Events:
    def events(target: str, selector: MonitorScopeSelector) -> AsyncIterator[ConnectionEvent]:
        return RemoteMonitor(runtime.pool, target).monitor(selector)

    return events
