"""What upstream's example of policy routes looks for (deployments-k8s, features/policy-based-routing): each `ip route get`.

A table is the number of its policy; one without routes leads to the link, and packets arrive nevertheless.
"""

import os

import pytest

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import ConnectionContext, IpContext, PolicyRoute, Route
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain
from nsm.chains.forwarding.sides import local_side
from nsm.chains.forwarding.wires import wire_of
from nsm.forwarder_kernel.dataplane import Dataplane
from nsm.forwarder_kernel.policy_routes import PolicyRoutes
from tests.system.forwarder_kernel.hosts import Host
from tests.system.forwarder_kernel.policies import Echo, received, send

pytestmark = pytest.mark.system

POLICIES = [
    PolicyRoute("172.16.2.201/24", "6", "6666", routes=[Route(prefix="172.16.3.0/24", next_hop="172.16.2.200")]),
    PolicyRoute("172.16.2.201/24", "6", src_port="5555"),
    PolicyRoute(proto="17", dst_port="6666"),
    PolicyRoute(proto="17", dst_port="6668-6669"),
    PolicyRoute("2004::3/120", "17", "5555", routes=[Route(prefix="2004::5/120", next_hop="2004::6")]),
]
ADDRESSES = ["172.16.1.101/32", "172.16.2.201/24", "2004::3/120"]
CHECKS = [
    ("172.16.3.1 from 172.16.2.201 ipproto tcp dport 6666", "via 172.16.2.200 dev nsm-1 table 1"),
    ("172.16.3.1 from 172.16.2.201 ipproto tcp sport 5555", "172.16.3.1 from 172.16.2.201 dev nsm-1 table 2"),
    ("172.16.4.1 ipproto udp dport 6666", "172.16.4.1 dev nsm-1 table 3 src 172.16.1.101"),
    ("172.16.4.1 ipproto udp dport 6668", "172.16.4.1 dev nsm-1 table 4 src 172.16.1.101"),
    ("2004::5 from 2004::3 ipproto udp dport 5555", "via 2004::6 dev nsm-1 table 5 src 2004::3"),
]


@pytest.fixture
async def pods():
    client, endpoint = Host(), Host()
    ip = IpContext(src_ip_addrs=ADDRESSES, dst_ip_addrs=["172.16.1.100/32"], policies=POLICIES)
    near, far = (
        Mechanism(type="KERNEL", parameters={"inodeURL": f"file://{host.path}", "name": name})
        for host, name in ((client, "nsm-1"), (endpoint, "nse-1"))
    )
    connection = Connection("nsc-0", mechanism=near, context=ConnectionContext(ip_context=ip), payload="ETHERNET")
    plane = Dataplane("forwarder")
    chain = Chain([Begin(), PolicyRoutes(plane.kernel)])
    await plane.create(wire_of(connection, local_side(near), local_side(far)), "c")
    await chain.request(Call(NetworkServiceRequest(connection=connection)))
    yield client, endpoint
    await chain.aclose()
    await plane.aclose()
    for host in (client, endpoint):
        os.close(host.descriptor)


async def test_each_route_is_found_as_the_example_looks_for_it(pods):
    client, _ = pods
    for question, expected in CHECKS:
        family = "-6" if "::" in question else "-4"
        assert expected in client.run("ip", family, "route", "get", *question.split())


async def test_packets_arrive_at_and_behind_the_endpoint_also_where_the_route_names_no_next_hop(pods):
    """It answers for what it routes to; a machine behind it has no address of the wire."""
    client, endpoint = pods
    behind = Host()
    endpoint.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    endpoint.run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "lan", "netns", behind.path)
    for host, address in ((endpoint, "172.16.4.254/24"), (behind, "172.16.4.1/24")):
        host.run("ip", "link", "set", "lan", "up")
        host.run("ip", "address", "add", address, "dev", "lan")
    echo = Echo(behind, "172.16.4.1", [6666])
    send(client, "0.0.0.0", "172.16.4.1", 6666)
    assert received([echo]) == [[6666]]
    echo.close()
    os.close(behind.descriptor)
