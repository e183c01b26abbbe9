"""What 500 connections leave in the components, counted from inside: all five in this process, real wires."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains import logs
from nsm.chains.composed import client, endpoint, endpoints_client, memory_registry, nsmgr, services_client
from nsm.chains.core import Begin, Call, Chain, RegistryCall, merge_with_returned
from nsm.chains.elements.descriptors import ReturnDescriptors, SendDescriptors
from nsm.chains.elements.kernel import KernelClient, KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.identity import Authority, Identity
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Methods, Pool, RemoteNetworkService, serve
from nsm.forwarder_kernel.chain import forwarder
from nsm.mesh import namespaces

_WARM, _CYCLES, _AT_ONCE = 100, 500, 5


@dataclass(frozen=True)
class Held:
    """What the process holds on behalf of connections."""

    links: int
    descriptors: int
    tasks: int
    entries: int

    def __sub__(self, other: Held) -> int:
        """How much more, of everything."""
        now = (self.links, self.descriptors, self.tasks, self.entries)
        then = (other.links, other.descriptors, other.tasks, other.entries)
        return sum(max(0, more - less) for more, less in zip(now, then, strict=True))


@dataclass(frozen=True)
class Mesh:
    """Components in this process, for clients with the identity `client` in the namespace at the URL `here`."""

    manager: str
    client: Identity
    here: str
    networks: tuple[int, int]
    begins: list[Begin]


async def measure() -> int:
    """Links, descriptors, tasks and store entries after 500 cycles, less those before."""
    async with AsyncExitStack() as stack:
        mesh = await components(stack)
        async with Pool(mesh.client) as pool:
            begin = Begin(merge=merge_with_returned)
            own = [KernelClient(mesh.here), SendDescriptors()]
            chain = client("client", own, RemoteNetworkService(pool), url=mesh.manager, begin=begin)
            mesh.begins.append(begin)
            await _cycles(chain, _WARM)
            before = await held(mesh)
            await _cycles(chain, _CYCLES)
            return await held(mesh) - before


async def _cycles(chain: Chain, count: int) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await chain.request(_ask(number))
            await chain.request(_ask(number))
            await chain.close(_ask(number))

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))


def _ask(number: int) -> Call:
    return Call(NetworkServiceRequest(connection=Connection(id=f"c{number}", network_service="icmp")))


async def held(mesh: Mesh) -> Held:
    """What is held now."""
    await asyncio.sleep(0.5)  # what the other side of a socket still has to read
    gc.collect()
    links = sum(_links(network) for network in mesh.networks)
    entries = sum(len(store) for begin in mesh.begins for store in begin.stores()) + sum(map(len, mesh.begins))
    return Held(links, len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()), entries)


def _links(network: int) -> int:
    def count() -> int:
        namespaces.enter(network, namespaces.NEW_NET)
        return len(Path("/proc/thread-self/net/dev").read_text().splitlines())

    return namespaces.in_thread(count)


async def components(stack: AsyncExitStack, serving: Callable[[str, Methods], Methods] | None = None) -> Mesh:
    """All of one node, until the stack unwinds. `serving` may replace the methods of each, by its name."""
    networks = namespaces.new_network(), namespaces.new_network()
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nsm-bench-"))
    authority = Authority.create("bench.mesh")
    urls = {name: f"unix://{folder}/{name}" for name in ("registry", "nsmgr", "forwarder", "endpoint", "client")}
    identities = {name: identity_of(authority, name) for name in urls}
    pools = {name: await stack.enter_async_context(Pool(identity)) for name, identity in identities.items()}

    async def start(name: str, methods: Methods) -> None:
        methods = methods if serving is None else serving(name, methods)
        await stack.enter_async_context(serve([urls[name]], methods, identities[name], name=name))

    async def register(name: str, service: str, labels: dict[str, str]) -> None:
        chain = await stack.enter_async_context(endpoints_client(urls["nsmgr"], pools[name], [SendUrl()]))
        has = {service: NetworkServiceLabels(labels=labels)}
        record = NetworkServiceEndpoint(name, [service], has, urls[name])
        await chain.register(RegistryCall(record))

    here, there = (f"file:///proc/{os.getpid()}/fd/{network}" for network in networks)
    registry = memory_registry(identities["registry"])
    await start("registry", registry.methods())
    manager = nsmgr("nsmgr", identities["nsmgr"], pools["nsmgr"], own_url=urls["nsmgr"], registry_url=urls["registry"])
    stack.push_async_callback(manager.aclose)
    await start("nsmgr", manager.methods())
    plane = forwarder("forwarder", identities["forwarder"], pools["forwarder"], nsmgr_url=urls["nsmgr"])
    await stack.enter_async_context(plane)
    await start("forwarder", plane.methods())
    elements = [Point2PointIpam(["10.0.0.0/16"]), Mechanisms({"KERNEL": [KernelServer(there)]}), ReturnDescriptors()]
    server = await stack.enter_async_context(endpoint("endpoint", identities["endpoint"], elements))
    await start("endpoint", server.methods())
    services = await stack.enter_async_context(services_client(urls["nsmgr"], pools["endpoint"]))
    await services.register(RegistryCall(NetworkService(name="icmp", payload="IP")))
    await register("endpoint", "icmp", {})
    await register("forwarder", "forwarder", {"p2p": "true"})
    begins = [manager.connections.begin, plane.begin, server.begin]
    return Mesh(urls["nsmgr"], identities["client"], here, networks, begins)


if __name__ == "__main__":
    logs.set_up("bench", "WARNING")
    print(asyncio.run(measure()))
