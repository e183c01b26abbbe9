"""Several nodes in one process: real chains, sockets and kernels; only the processes are missing.

The control plane talks over unix sockets and loopback; each node's dataplane works in a namespace of its own, and
those are joined by a bridge, as machines are by a switch.
"""

import asyncio
import itertools
import os
import re
import signal
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.composed import client, endpoint, endpoints_client, memory_registry, nsmgr, services_client
from nsm.chains.core import Begin, Call, RegistryCall, merge_with_returned
from nsm.chains.elements.descriptors import ReturnDescriptors, SendDescriptors
from nsm.chains.elements.kernel import KernelClient, KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.identity import Authority
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteNetworkService, serve
from nsm.forwarder_kernel import chain as forwarder_chain
from nsm.forwarder_kernel.dataplane import Dataplane
from nsm.mesh import namespaces

from . import hosts

AUTHORITY = Authority.create("test.mesh")


class Host(hosts.Host):
    """A namespace that lives as long as this object."""

    def __del__(self):
        os.close(self.descriptor)


def plane_in(host, owner="forwarder", **options):
    """A dataplane that takes `host` for its node."""
    plane = Dataplane(owner, **options)
    plane.kernel._executor.submit(namespaces.enter, host.descriptor, namespaces.NEW_NET).result()
    plane.host = host  # lives as long as what works in it
    return plane


async def end_programs(plane):
    """They would outlive it."""
    await plane._programs.end([*plane._programs._all])


@contextmanager
def pinging(host, address):
    """Pings 200 times a second meanwhile; yields what tells afterwards how many packets were lost."""
    command = ["nsenter", f"--net={host.path}", "ping", "-n", "-i", "0.005", address]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    told = []
    for _ in range(2):
        running.stdout.readline()  # the second one is the first answer
    try:
        yield lambda: int(told[0]) - int(told[1])
    finally:
        running.send_signal(signal.SIGINT)
        told += re.findall(r"(\d+) (?:packets transmitted|received)", running.communicate(timeout=10)[0])


class Underlay:
    """A switch; nodes are plugged in with an address, at once as machines with a cable."""

    def __init__(self, mtu=1500):
        self.switch, self.mtu = Host(), mtu
        self.switch.run("ip", "link", "add", "br0", "type", "bridge")
        self.switch.run("ip", "link", "set", "br0", "mtu", str(mtu), "up")
        self.numbers = itertools.count()

    def node(self, *addresses):
        host, port = Host(), f"port{next(self.numbers)}"
        host.underlay = self  # lives as long as the node
        peer = ["peer", "name", "eth0", "netns", host.path]
        self.switch.run("ip", "link", "add", port, "type", "veth", *peer)
        self.switch.run("ip", "link", "set", port, "mtu", str(self.mtu), "master", "br0", "up")
        host.run("ip", "link", "set", "eth0", "mtu", str(self.mtu), "up")
        for address in addresses:
            host.run("ip", "address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
        return host


class Mesh:
    """Nodes by name, the chains on them, and what they hold."""

    def __init__(self, path, stack):
        self.path, self.stack = path, stack
        self.registry_url = f"unix://{path}/registry.sock"
        self.forwarders, self.planes, self.begins, self.workloads = {}, {}, {}, {}
        self.running, self.numbers = {}, itertools.count(1)

    async def pool(self, name):
        identity = identity_of(AUTHORITY, name)
        return identity, await self.stack.enter_async_context(Pool(identity, dial_timeout=2))

    async def serve(self, name, urls, methods, identity):
        return await self.stack.enter_async_context(serve(urls, methods, identity, name=name))

    async def start_registry(self):
        identity, _ = await self.pool("registry")
        registry = memory_registry(identity)
        self.stack.push_async_callback(registry.aclose)
        await self.serve("registry", [self.registry_url], registry.methods(), identity)

    def url(self, name):
        return f"unix://{self.path}/{name}.sock"

    async def add_node(self, name, host, monkeypatch, **options):
        """A manager and a forwarder, whose dataplane is in `host`."""
        manager = f"nsmgr-{name}"
        identity, pool = await self.pool(manager)
        listening = f"tcp://127.0.0.1:{_free_port()}"
        chains = nsmgr(manager, identity, pool, own_url=listening, registry_url=self.registry_url)
        self.stack.push_async_callback(chains.aclose)
        await self.serve(manager, [self.url(manager), listening], chains.methods(), identity)
        await self.start_forwarder(name, host, monkeypatch, **options)

    async def start_forwarder(self, name, host, monkeypatch, **options):
        manager, forwarder = f"nsmgr-{name}", f"forwarder-{name}"
        stack = self.running[name] = AsyncExitStack()
        self.stack.push_async_callback(stack.aclose)
        identity = identity_of(AUTHORITY, forwarder)
        pool = await stack.enter_async_context(Pool(identity, dial_timeout=2))
        plane = self.planes[name] = plane_in(host, forwarder)
        self.stack.push_async_callback(end_programs, plane)
        monkeypatch.setattr(forwarder_chain, "Dataplane", lambda *_, **__: plane)
        built = forwarder_chain.forwarder(forwarder, identity, pool, nsmgr_url=self.url(manager), **options)
        await stack.enter_async_context(built)
        self.forwarders[name], self.begins[forwarder] = built, built.begin
        served = serve([self.url(forwarder)], built.methods(), identity, name=forwarder)
        await stack.enter_async_context(served)
        await self.register(forwarder, manager, pool, "forwarder", {"p2p": "true"}, stack=stack)

    async def restart_forwarder(self, name, monkeypatch, **options):
        """Ends it, and starts another one of its name, which knows nothing."""
        await self.running[name].aclose()
        await self.start_forwarder(name, self.planes[name].host, monkeypatch, **options)

    async def add_endpoint(self, name, node, service, payload, prefix):
        """An endpoint in a namespace of its own."""
        host = self.workloads[name] = Host()
        mechanisms = {"KERNEL": [KernelServer(f"file://{host.path}")]}
        await self._add(name, f"nsmgr-{node}", self.url(name), service, payload, prefix, mechanisms)

    async def add_remote_endpoint(self, name, service, payload, prefix, mechanisms):
        """An endpoint that is on TCP only, and tells the registry itself."""
        url = f"tcp://127.0.0.1:{_free_port()}"
        await self._add(name, "registry", url, service, payload, prefix, mechanisms)

    async def _add(self, name, at, url, service, payload, prefix, mechanisms):
        identity, pool = await self.pool(name)
        elements = [Point2PointIpam([prefix]), Mechanisms(mechanisms), ReturnDescriptors()]
        chain = endpoint(name, identity, elements)
        await self.stack.enter_async_context(chain)
        self.begins[name] = chain.begin
        await self.serve(name, [url], chain.methods(), identity)
        services = await self.stack.enter_async_context(services_client(self.url(at), pool))
        await services.register(RegistryCall(NetworkService(name=service, payload=payload)))
        await self.register(name, at, pool, service, {}, url=url)

    async def register(self, name, manager, pool, service, labels, url=None, stack=None):
        chain = endpoints_client(self.url(manager), pool, [SendUrl()])
        (stack or self.stack).push_async_callback(chain.aclose)
        labels = {service: NetworkServiceLabels(labels=labels)}
        url = url or self.url(name)
        record = NetworkServiceEndpoint(
            name=name, network_service_names=[service], network_service_labels=labels, url=url
        )
        await chain.register(RegistryCall(record))

    async def add_client(self, name, node):
        """A client in a namespace of its own; returns its chain."""
        host = self.workloads[name] = Host()
        _, pool = await self.pool(name)
        begin = self.begins[name] = Begin(merge=merge_with_returned)
        elements = [KernelClient(f"file://{host.path}"), SendDescriptors()]
        url = self.url(f"nsmgr-{node}")
        return host, client(name, elements, RemoteNetworkService(pool), url=url, begin=begin)

    def connections(self):
        return {name: len(begin) for name, begin in self.begins.items() if len(begin)}

    def links(self):
        return {name: set(host.links()) for name, host in self.workloads.items() if host.links()}


def ask(service, connection_id="c", timeout=10, **fields):
    request = NetworkServiceRequest(connection=Connection(id=connection_id, network_service=service, **fields))
    return Call(request, deadline=asyncio.get_running_loop().time() + timeout)


@asynccontextmanager
async def mesh_at(path):
    async with AsyncExitStack() as stack:
        mesh = Mesh(path, stack)
        await mesh.start_registry()
        yield mesh


def _free_port():
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
