"""Whose packets go where: a client rules the endpoint's routing, an endpoint its clients', a wire the node's."""

import ipaddress
import json
import subprocess
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.connectioncontext import ConnectionContext, DnsConfig, DnsContext, IpContext, PolicyRoute, Route
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkService
from nsm.apis.wellknown import Timestamp
from nsm.chains.composed import client, endpoint, endpoints_client, services_client
from nsm.chains.core import Call, Element, MeshError, Refused, RegistryCall
from nsm.chains.elements.accept_dns import AcceptDns, AcceptedDns
from nsm.chains.elements.accept_routes import AcceptRoutes
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.strict_ipam import StrictIpam
from nsm.chains.forwarding.protect_node import check_own_namespace
from nsm.chains.forwarding.wires import Settings
from nsm.chains.identity import Authority
from nsm.chains.model.networks import Networks
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import serve

from .attacker import Attacker, endpoint_record

HOSTILE = [
    "8.8.8.8/32",
    "0.0.0.0/0",
    "10.0.0.0/8",
    "127.0.0.1/32",
    "169.254.169.254/32",
    "224.0.0.1/32",
    "192.168.7.1/0",
]
SOON = Timestamp.from_seconds(time.time() + 600)
OWN = Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "x", "inodeURL": "file:///proc/self/ns/net"})
NODE = Networks([ipaddress.ip_network("10.244.0.0/16")])


def in_network(network, *what):
    """What the kernel has in a network namespace: ``addr``, ``route``, .."""
    told = subprocess.run(
        ["nsenter", f"--net={network}", "ip", "-j", *what], capture_output=True, text=True, check=True
    )
    return json.loads(told.stdout or "[]")


def destinations(network):
    return {
        route["dst"] for route in in_network(network, "route", "show", "table", "all") if route.get("type") != "local"
    }


def local_addresses(network):
    return {
        f"{each['local']}/{each['prefixlen']}"
        for link in in_network(network, "addr")
        for each in link["addr_info"]
        if "local" in each
    }


def context(**fields):
    return ConnectionContext(ip_context=IpContext(**fields))


# --- a client, of an endpoint


async def test_an_endpoint_gets_no_address_and_no_route_that_a_client_made_up(mesh):
    """Looked at in the endpoint's kernel."""
    endpoint_network = mesh.networks["endpoint"]
    before = destinations(endpoint_network), local_addresses(endpoint_network)
    async with Attacker(mesh) as attacker:
        for number, hostile in enumerate(HOSTILE):
            fields = {"src_ip_addrs": [hostile], "dst_ip_addrs": [hostile], "dst_routes": [Route(prefix=hostile)]}
            asked = attacker.connection(f"routes-{number}", context=context(**fields))
            made = await attacker.request(asked, attacker.kernel(), files=[attacker.network])
            ip = made.context.ip_context
            (own,), (far,) = ip.src_ip_addrs, ip.dst_ip_addrs
            assert [route.prefix for route in ip.dst_routes] == [own]
            assert destinations(endpoint_network) - before[0] == {own.removesuffix("/32")}
            assert local_addresses(endpoint_network) - before[1] - {far} <= {
                each for each in local_addresses(endpoint_network) if each.startswith("fe80")
            }
            await attacker.close(made)


async def test_nobody_gets_the_packets_of_another_client(composed):
    async with Attacker(composed) as attacker, Attacker(composed, "victim") as victim:
        of_victim = await victim.request(victim.connection("v"), victim.kernel(), files=[victim.network])
        taken = of_victim.context.ip_context.src_ip_addrs
        fields = {"src_ip_addrs": taken, "dst_ip_addrs": taken, "dst_routes": [Route(prefix=taken[0])]}
        made = await attacker.request(
            attacker.connection("a", context=context(**fields)), attacker.kernel(), files=[attacker.network]
        )
        ip = made.context.ip_context
        assert taken[0] not in [*ip.src_ip_addrs, *ip.dst_ip_addrs, *(route.prefix for route in ip.dst_routes)]
        again = codec.clone(made)
        again.context.ip_context.dst_routes.append(Route(prefix=taken[0], next_hop="10.0.0.1"))
        refreshed = await attacker.request(again, files=[attacker.network])
        assert taken[0] not in [route.prefix for route in refreshed.context.ip_context.dst_routes]


@pytest.mark.parametrize("is_strict", [False, True])
async def test_whatever_the_policy_routes_of_a_client_are_not_the_endpoints(is_strict):
    pool = Point2PointIpam(["10.0.0.0/24"])
    elements = [pool, *([StrictIpam([pool])] if is_strict else []), Mechanisms({"KERNEL": [KernelServer()]})]
    async with endpoint("nse", identity_of(Authority.create("test.mesh"), "nse"), elements) as server:
        asked = context(src_ip_addrs=HOSTILE, dst_ip_addrs=HOSTILE, dst_routes=[Route(prefix=each) for each in HOSTILE])
        segment = PathSegment(name="client", id="c", token="x", expires=SOON)
        connection = Connection(id="c", network_service="icmp", context=asked, path=Path(path_segments=[segment]))
        ip = (await server.chain.request(Call(NetworkServiceRequest(connection, [OWN])))).context.ip_context
    (src,), (dst,) = ip.src_ip_addrs, ip.dst_ip_addrs
    assert src in {f"10.0.0.{n}/32" for n in range(4)} - {dst}
    assert [(route.prefix, route.next_hop) for route in ip.dst_routes] == [(src, "")]


# --- an endpoint, of its clients


class Gives(Element):
    """An endpoint's element that gives what it is told to."""

    def __init__(self):
        self.ip, self.dns = IpContext(), []

    async def request(self, call, rest):
        call.connection.context = ConnectionContext(
            ip_context=codec.clone(self.ip), dns_context=DnsContext(configs=self.dns)
        )
        return await rest.request(call)


@asynccontextmanager
async def hostile_endpoint(target, tmp_path, gives):
    """An endpoint of the attacker's own, of its own service, registered as any other."""
    async with AsyncExitStack() as stack:
        attacker = await stack.enter_async_context(Attacker(target))
        kernel = KernelServer(f"file://{attacker.network}")
        server = endpoint("evil-nse", attacker.identity, [gives, Mechanisms({"KERNEL": [kernel]}), ReturnDescriptors()])
        await stack.enter_async_context(server)
        bound = await stack.enter_async_context(
            serve([f"unix://{tmp_path}/evil.sock"], server.methods(), attacker.identity, name="evil-nse")
        )
        manager = target.urls["nsmgr"]
        services = await stack.enter_async_context(services_client(manager, attacker.pool))
        await services.register(RegistryCall(NetworkService(name="evil", payload="IP")))
        endpoints = await stack.enter_async_context(endpoints_client(manager, attacker.pool, [SendUrl()]))
        await endpoints.register(RegistryCall(endpoint_record("evil-nse", "evil", bound[0])))
        yield


PUSHED = {
    "loopback": {"src_routes": [Route(prefix="127.0.0.0/8")]},
    "multicast": {"src_routes": [Route(prefix="224.0.0.0/4")]},
    "link-local": {"src_routes": [Route(prefix="169.254.0.0/16")]},
    "metadata": {"dst_ip_addrs": ["169.254.169.254/32"]},
    "own loopback": {"src_ip_addrs": ["127.0.0.2/32"]},
    "policy": {"policies": [PolicyRoute(dst_port="80", routes=[Route(prefix="127.0.0.0/8")])]},
}


async def test_an_endpoint_cannot_take_over_what_is_every_machines_own(mesh, tmp_path):
    gives, victim_network = Gives(), mesh.networks["victim"]
    before = destinations(victim_network), local_addresses(victim_network)
    async with hostile_endpoint(mesh, tmp_path, gives), Attacker(mesh, "victim") as victim:
        for number, pushed in enumerate(PUSHED.values()):
            gives.ip = IpContext(**{"src_ip_addrs": ["10.9.0.1/32"], "dst_ip_addrs": ["10.9.0.0/32"], **pushed})
            with pytest.raises(MeshError, match="would take over addresses outside the mesh|is not accepted here"):
                await victim.request(
                    victim.connection(f"p-{number}", service="evil"), victim.kernel(), files=[victim.network]
                )
            assert destinations(victim_network) == before[0]
            assert local_addresses(victim_network) == before[1]


class Far:
    """Answers with what it is told to; notes what is closed."""

    def __init__(self):
        self.answer, self.closed = ConnectionContext(), 0

    async def request(self, call):
        answer = codec.clone(call.connection)
        answer.context = codec.clone(self.answer)
        return answer

    async def close(self, call):
        self.closed += 1


TAKEN = [
    {"src_routes": [Route(prefix="10.244.0.0/16")]},
    {"src_routes": [Route(prefix="10.244.7.0/24", next_hop="10.0.0.0")]},
    {"src_routes": [Route(prefix="127.0.0.1/32")]},
    {"src_routes": [Route(prefix="169.254.169.254/32")]},
    {"src_routes": [Route(prefix="fe80::/10")]},
    {"src_routes": [Route(prefix="ff00::/8")]},
    {"dst_ip_addrs": ["10.244.0.1/32"]},
    {"src_ip_addrs": ["10.244.0.9/32"]},
    {"src_ip_addrs": ["10.244.0.9/24"]},
    {"policies": [PolicyRoute(dst_port="80", routes=[Route(prefix="10.244.0.0/16")])]},
    {"policies": [PolicyRoute()]},
    {"policies": [PolicyRoute(routes=[Route(prefix="0.0.0.0/1")])]},
]


@pytest.mark.parametrize("given", TAKEN)
@pytest.mark.parametrize("when", ["first", "refresh"])
async def test_a_client_takes_no_route_to_networks_that_it_is_on(given, when):
    far = Far()
    async with client("client", [AcceptRoutes(underlay=lambda: NODE)], far, url="unix:///x") as chain:
        call = Call(NetworkServiceRequest(connection=Connection(id="c", network_service="icmp")))
        if when == "refresh":
            far.answer = context(src_ip_addrs=["10.0.0.1/32"], src_routes=[Route(prefix="0.0.0.0/0")])
            call = Call(NetworkServiceRequest(connection=await chain.request(call)))
        far.answer = context(**given)
        with pytest.raises(Refused, match="NSM_ACCEPT_ROUTES lists what is"):
            await chain.request(call)
        assert far.closed >= 1, "its wire is there already, and goes"


@pytest.mark.parametrize(
    ("given", "is_fine"),
    [
        ({"src_routes": [Route(prefix="10.1.0.0/16")]}, True),
        ({"src_routes": [Route(prefix="0.0.0.0/0")]}, False),
        ({"src_routes": [Route(prefix="8.8.8.8/32")]}, False),
        ({"dst_ip_addrs": ["8.8.8.8/32"]}, False),
        ({"src_ip_addrs": ["8.8.8.8/32"]}, False),
        ({"policies": [PolicyRoute(dst_port="1", routes=[Route(prefix="9.0.0.0/8")])]}, False),
    ],
)
async def test_a_client_or_its_manager_says_which_networks_wires_may_reach(given, is_fine):
    far = Far()
    far.answer = context(**given)
    async with client("client", [AcceptRoutes(Networks.parse(["10.0.0.0/8"]))], far, url="unix:///x") as chain:
        call = Call(NetworkServiceRequest(connection=Connection(id="c", network_service="icmp")))
        if is_fine:
            await chain.request(call)
        else:
            with pytest.raises(Refused, match=r"is not in 10.0.0.0/8; NSM_ACCEPT_ROUTES"):
                await chain.request(call)


@pytest.mark.parametrize(
    ("accepted", "servers", "domains"),
    [
        ("*", ["10.0.0.53", "8.8.8.8"], ["example.org", "com"]),
        ("10.0.0.0/8,example.org", ["10.0.0.53"], ["example.org"]),
        ("10.0.0.0/8", ["10.0.0.53"], []),
    ],
)
async def test_a_client_asks_only_servers_and_searches_only_domains_that_it_accepts(accepted, servers, domains):
    far = Far()
    told = DnsConfig(["10.0.0.53", "127.0.0.1", "8.8.8.8", "169.254.169.254", "::1"], ["example.org", "com"])
    far.answer = ConnectionContext(dns_context=DnsContext(configs=[told]))
    async with client("client", [AcceptDns(AcceptedDns.parse(accepted.split(",")))], far, url="unix:///x") as chain:
        call = Call(NetworkServiceRequest(connection=Connection(id="c", network_service="icmp")))
        (config,) = (await chain.request(call)).context.dns_context.configs
    assert (config.dns_server_ips, config.search_domains) == (servers, domains)


# --- a wire, of the node


@pytest.mark.parametrize("reached", ["0.0.0.0/0", "10.244.0.0/16", "10.0.0.0/8", "10.244.0.9/32"])
def test_a_wire_into_the_nodes_own_namespace_takes_nothing_from_it(reached):
    route = Settings(frozenset(), frozenset({(ipaddress.ip_network(reached), None)}), frozenset(), frozenset())
    address = Settings(frozenset({ipaddress.ip_interface(reached)}), frozenset(), frozenset(), frozenset())
    for settings in (route, address):
        with pytest.raises(Refused, match="would cut the node off"):
            check_own_namespace(settings, NODE)
