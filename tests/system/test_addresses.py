"""Addresses and policy routes from the files of manager and endpoint to the kernel, over real chains and sockets."""

import asyncio
import os
import socket
from contextlib import AsyncExitStack

import pytest

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import Destination, Match, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.composed import client, endpoint, endpoints_client, nsmgr, services_client
from nsm.chains.core import Begin, Call, MeshError, RegistryCall, merge_with_returned
from nsm.chains.elements.client_excluded_prefixes import ClientExcludedPrefixes
from nsm.chains.elements.descriptors import ReturnDescriptors, SendDescriptors
from nsm.chains.elements.kernel import KernelClient, KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.policy_routing import PolicyRouting
from nsm.chains.elements.strict_ipam import StrictIpam
from nsm.chains.identity import Authority
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteNetworkService, serve
from nsm.forwarder_kernel.chain import forwarder
from tests.system.forwarder_kernel.hosts import Host
from tests.system.forwarder_kernel.policies import Echo, nothing_is_left, rules, send

pytestmark = pytest.mark.system

AUTHORITY = Authority.create("test.mesh")
SERVER = "203.0.113.9"


class Mesh:
    """A manager that is the registry too, a forwarder, and workloads in namespaces of their own."""

    def __init__(self, path, stack):
        self.path, self.stack, self.hosts = path, stack, []
        self.excluded, self.policies = path / "excluded_prefixes.yaml", path / "policies.yaml"

    def url(self, name):
        return f"unix://{self.path}/{name}.sock"

    async def pool(self, name):
        identity = identity_of(AUTHORITY, name)
        return identity, await self.stack.enter_async_context(Pool(identity, dial_timeout=2))

    def host(self):
        self.hosts.append(Host())
        return self.hosts[-1]

    async def start(self):
        identity, pool = await self.pool("nsmgr")
        manager = nsmgr(
            "nsmgr",
            identity,
            pool,
            own_url=self.url("nsmgr"),
            registry_url=None,
            excluded_prefixes=str(self.excluded),
        )
        self.stack.push_async_callback(manager.aclose)
        await self.stack.enter_async_context(serve([self.url("nsmgr")], manager.methods(), identity, name="nsmgr"))
        await self.start_forwarder("forwarder")

    async def start_forwarder(self, name):
        identity, pool = await self.pool(name)
        built = await self.stack.enter_async_context(forwarder(name, identity, pool, nsmgr_url=self.url("nsmgr")))
        await self.add(name, built, identity, pool, "forwarder", {"p2p": "true"})

    async def start_endpoint(self, name, service="svc", prefixes=("10.0.0.0/24",), **labels):
        host, ipam = self.host(), Point2PointIpam(list(prefixes))
        host.run("ip", "link", "set", "lo", "up")
        host.run("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
        identity, pool = await self.pool(name)
        elements = [
            ipam,
            StrictIpam([ipam]),
            PolicyRouting(str(self.policies)),
            Mechanisms({"KERNEL": [KernelServer(f"file://{host.path}")]}),
            ReturnDescriptors(),
        ]
        built = await self.stack.enter_async_context(endpoint(name, identity, elements))
        await self.add(name, built, identity, pool, service, labels)
        return host

    async def register_service(self, name, *matches):
        _, pool = await self.pool("operator")
        services = await self.stack.enter_async_context(services_client(self.url("nsmgr"), pool))
        await services.register(RegistryCall(NetworkService(name=name, payload="IP", matches=list(matches))))

    async def add(self, name, built, identity, pool, service, labels):
        await self.stack.enter_async_context(serve([self.url(name)], built.methods(), identity, name=name))
        chain = endpoints_client(self.url("nsmgr"), pool, [SendUrl()])
        self.stack.push_async_callback(chain.aclose)
        labels = {service: NetworkServiceLabels(labels=labels)}
        record = NetworkServiceEndpoint(
            name=name, network_service_names=[service], network_service_labels=labels, url=self.url(name)
        )
        await chain.register(RegistryCall(record))

    async def client(self, name="client"):
        host = self.host()
        _, pool = await self.pool(name)
        elements = [KernelClient(f"file://{host.path}"), ClientExcludedPrefixes(), SendDescriptors()]
        begin = Begin(merge=merge_with_returned)
        chain = client(name, elements, RemoteNetworkService(pool), url=self.url("nsmgr"), begin=begin)
        return host, chain


@pytest.fixture
async def mesh(tmp_path):
    async with AsyncExitStack() as stack:
        made = Mesh(tmp_path, stack)
        await made.start()
        yield made
    for host in made.hosts:
        os.close(host.descriptor)


def ask(connection_id="c", service="svc", timeout=10):
    connection = Connection(id=connection_id, network_service=service)
    return Call(NetworkServiceRequest(connection=connection), deadline=asyncio.get_running_loop().time() + timeout)


def refresh(connection):
    return Call(NetworkServiceRequest(connection=connection), deadline=asyncio.get_running_loop().time() + 10)


def addresses(host):
    return {a["local"] for link in host.links().values() for a in link["addr_info"] if a["scope"] == "global"}


async def test_policies_of_the_endpoint_s_file_decide_where_a_client_s_packets_go(mesh):
    """And go with the next refresh after the file changed; nothing of them is left when the wire is closed."""
    await mesh.register_service("svc")
    mesh.policies.write_text("[{from: 192.0.2.7/32, proto: 17, dstport: 80-90}]")
    server = await mesh.start_endpoint("nse")
    host, chain = await mesh.client()
    echo = Echo(server, SERVER, [80, 90, 91])
    try:
        connection = await chain.request(ask())
        assert addresses(host) == {"10.0.0.1", "192.0.2.7"}
        for port in (80, 90):
            send(host, "192.0.2.7", SERVER, port)
            assert echo.got() == [port]
        for source, port in (("192.0.2.7", 91), ("10.0.0.1", 80)):
            with pytest.raises(OSError, match="unreachable"):
                send(host, source, SERVER, port)
        mesh.policies.write_text("[{dstport: 91}]")
        await chain.request(refresh(connection))
        assert (rules(host), addresses(host)) == ([("all", None, 91)], {"10.0.0.1"})
        send(host, "10.0.0.1", SERVER, 91)
        assert echo.got() == [91]
        await chain.close(ask())
        assert nothing_is_left(host)
        assert host.links() == server.links() == {} or set(server.links()) == set()
    finally:
        echo.close()


async def test_a_policy_that_cannot_be_is_told_to_the_client_and_leaves_nothing(mesh, monkeypatch):
    """One that an endpoint of another make let pass."""
    monkeypatch.setattr("nsm.chains.model.policies.check", lambda _policy: None)
    mesh.policies.write_text("[{dstport: 90-80}]")
    await mesh.register_service("svc")
    server = await mesh.start_endpoint("nse")
    host, chain = await mesh.client()
    told = r"nsmgr → forwarder: policy route 1 \(dst_port 90-80\) is invalid: '90-80' is not a port or range of ports"
    with pytest.raises(MeshError, match=told):
        await chain.request(ask())
    assert nothing_is_left(host)
    assert host.links() == server.links() == {}


async def test_prefixes_of_the_manager_s_file_are_given_to_no_wire_and_taken_from_those_that_have_them(mesh):
    await mesh.register_service("svc")
    await mesh.start_endpoint("nse")
    host, chain = await mesh.client()
    connection = await chain.request(ask())
    assert addresses(host) == {"10.0.0.1"}
    mesh.excluded.write_text("prefixes: [10.0.0.0/28]")
    connection = await chain.request(refresh(connection))
    assert addresses(host) == {"10.0.0.17"}
    assert host.pings("10.0.0.16")
    mesh.excluded.write_text("prefixes: [10.0.0.0/99]")
    await chain.request(refresh(connection))
    assert addresses(host) == {"10.0.0.17"}


async def test_two_services_of_one_client_that_give_the_same_prefix_do_not_meet(mesh):
    """Asked for at once."""
    for service in ("one", "two"):
        await mesh.register_service(service)
        await mesh.start_endpoint(f"nse-{service}", service)
    host, chain = await mesh.client()
    await asyncio.gather(chain.request(ask("a", "one")), chain.request(ask("b", "two")))
    assert len(addresses(host)) == 2
    ends = {address for mesh_host in mesh.hosts if mesh_host is not host for address in addresses(mesh_host)}
    ends.discard(SERVER)
    assert len(ends) == 2
    assert all(host.pings(address) for address in ends)
    await asyncio.gather(chain.close(ask("a")), chain.close(ask("b")))
    assert host.links() == {}


async def test_an_endpoint_that_is_full_or_stopped_is_passed_over(mesh):
    """By weight, both would get the same share."""
    both = Match(routes=[Destination(destination_selector={"size": "{{.size}}"}, weight=0), Destination(weight=1)])
    await mesh.register_service("svc", both)
    await mesh.start_endpoint("small", prefixes=["10.1.0.0/31"], size="s")
    await mesh.start_endpoint("large", prefixes=["10.2.0.0/24"], size="l")
    _, chain = await mesh.client()
    found = [await chain.request(ask(f"c{number}")) for number in range(4)]
    names = [connection.network_service_endpoint_name for connection in found]
    assert sorted(names) == ["large", "large", "large", "small"]
    hangs = socket.socket(socket.AF_UNIX)
    hangs.bind(str(mesh.path / "hangs.sock"))
    hangs.listen()
    _, pool = await mesh.pool("stopped")
    registration = endpoints_client(mesh.url("nsmgr"), pool, [SendUrl()])
    mesh.stack.push_async_callback(registration.aclose)
    record = NetworkServiceEndpoint(name="stopped", network_service_names=["svc"], url=mesh.url("hangs"))
    await registration.register(RegistryCall(record))
    try:
        begin = asyncio.get_running_loop().time()
        found = [await chain.request(ask(f"d{number}", timeout=3)) for number in range(3)]
        assert {connection.network_service_endpoint_name for connection in found} == {"large"}
        assert asyncio.get_running_loop().time() - begin < 3
    finally:
        hangs.close()
