"""A mesh of real chains and sockets in one process; only the kernel is not real."""

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.composed import client, endpoint, endpoints_client, memory_registry, nsmgr, services_client
from nsm.chains.composed.forwarder import forwarder
from nsm.chains.core import (
    Begin,
    Call,
    Element,
    RegistryCall,
    merge_with_returned,
)
from nsm.chains.elements import idle
from nsm.chains.elements.descriptors import ReturnDescriptors, SendDescriptors
from nsm.chains.elements.kernel import KernelClient, KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.forwarding.dataplane import NOBODY
from nsm.chains.forwarding.kernel import kernel
from nsm.chains.identity import Authority
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.testing.dataplane import FakeDataplane
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Methods, Pool, RemoteNetworkService, serve

AUTHORITY = Authority.create("test.mesh")


class Kernel(FakeDataplane):
    """In place of the dataplane: what wires there are, and how many were made."""

    def __init__(self):
        super().__init__()
        self.made = 0

    async def create(self, wire, connection_id, begun=None, client=NOBODY):
        await asyncio.sleep(0)
        for place in wire.interfaces:
            assert os.path.exists(place.path), place
        self.made += 1
        return await super().create(wire, connection_id, begun, client)


def forwarder_of(name, identity, pool, nsmgr_url, dataplane):
    """A forwarder that makes wires inside its node."""
    return forwarder(name, identity, pool, dataplane, [kernel()], nsmgr_url=nsmgr_url)


class Interrupts(Element):
    """Stands behind one element of a chain and cancels or fails the call there, once."""

    def __init__(self):
        self.work = None

    async def request(self, call, rest):
        if self.work is not None:
            work, self.work = self.work, None
            await work()
        return await rest.request(call)


class Mesh:
    """The components, their stores, and what they hold."""

    def __init__(self, tmp_path, monkeypatch):
        self.path, self.kernel = tmp_path, Kernel()
        monkeypatch.setattr(idle, "IDLE_AFTER", 3600.0)  # descriptors are counted here
        self.begins, self.chains = {}, {}

    def url(self, name):
        return f"unix://{self.path}/{name}.sock"

    async def serve(self, stack, name, methods: Methods, identity):
        await stack.enter_async_context(serve([self.url(name)], methods, identity, name=name))

    async def start(self, stack, *, prefixes=("10.0.0.0/24",), with_forwarder=True, extra=()):
        identities = {n: identity_of(AUTHORITY, n) for n in ("registry", "nsmgr", "forwarder", "nse", "client")}
        self.identities = identities
        self.pools = {n: await stack.enter_async_context(Pool(i, dial_timeout=2)) for n, i in identities.items()}
        registry = memory_registry(identities["registry"])
        stack.push_async_callback(registry.aclose)
        await self.serve(stack, "registry", registry.methods(), identities["registry"])
        manager = nsmgr(
            "nsmgr",
            identities["nsmgr"],
            self.pools["nsmgr"],
            own_url=self.url("nsmgr"),
            registry_url=self.url("registry"),
        )
        stack.push_async_callback(manager.aclose)
        await self.serve(stack, "nsmgr", manager.methods(), identities["nsmgr"])
        joins = forwarder_of(
            "forwarder", identities["forwarder"], self.pools["forwarder"], self.url("nsmgr"), self.kernel
        )
        await stack.enter_async_context(joins)
        await self.serve(stack, "forwarder", joins.methods(), identities["forwarder"])
        server = endpoint(
            "nse",
            identities["nse"],
            [Point2PointIpam(list(prefixes)), Mechanisms({"KERNEL": [KernelServer()]}), *extra, ReturnDescriptors()],
        )
        await stack.enter_async_context(server)
        await self.serve(stack, "nse", server.methods(), identities["nse"])
        if with_forwarder:
            await self.register("forwarder", "forwarder", {"p2p": "true"})
        services = await stack.enter_async_context(services_client(self.url("nsmgr"), self.pools["nse"]))
        self.services = services
        await services.register(RegistryCall(NetworkService(name="icmp", payload="IP")))
        await self.register("nse", "icmp", {})
        begin = Begin(merge=merge_with_returned)
        self.client = client(
            "client",
            [KernelClient(), SendDescriptors()],
            RemoteNetworkService(self.pools["client"]),
            url=self.url("nsmgr"),
            begin=begin,
        )
        self.begins = {
            "client": begin,
            "nsmgr": manager.connections.begin,
            "forwarder": joins.begin,
            "nse": server.begin,
        }
        self.chains |= {
            "client": self.client,
            "nsmgr": manager.connections.chain,
            "forwarder": joins.chain,
            "nse": server.chain,
        }
        return self

    async def register(self, name, service, labels):
        chain = endpoints_client(self.url("nsmgr"), self.pools[name], [SendUrl()])
        record = NetworkServiceEndpoint(
            name=name,
            network_service_names=[service],
            network_service_labels={service: NetworkServiceLabels(labels=labels)},
            url=self.url(name),
        )
        await chain.register(RegistryCall(record))
        self.chains[f"{name} registration"] = chain

    def left(self):
        """Connections anywhere, wires, and descriptors."""
        return {name: len(begin) for name, begin in self.begins.items()}, len(self.kernel.wires)

    async def close(self):
        for name in ("forwarder registration", "nse registration"):
            if name in self.chains:
                await self.chains[name].aclose()


NOTHING = {"client": 0, "nsmgr": 0, "forwarder": 0, "nse": 0}, 0
ONE = {"client": 1, "nsmgr": 1, "forwarder": 1, "nse": 1}, 1


@asynccontextmanager
async def mesh_of(tmp_path, monkeypatch, **options):
    async with AsyncExitStack() as stack:
        mesh = await Mesh(tmp_path, monkeypatch).start(stack, **options)
        try:
            yield mesh
        finally:
            await mesh.close()


def ask(connection_id="c", service="icmp", timeout=10, **fields):
    request = NetworkServiceRequest(connection=Connection(id=connection_id, network_service=service, **fields))
    return Call(request, deadline=asyncio.get_running_loop().time() + timeout)


async def settled(mesh):
    """Undoing may still be on its way at other components."""
    async with asyncio.timeout(3):
        while mesh.left() != NOTHING:
            await asyncio.sleep(0.01)
