"""WireGuard wires between nodes, where the kernel makes them: both ends by the forwarder's own dataplane."""

import asyncio
import ipaddress
import json
import socket
import subprocess
from contextlib import asynccontextmanager
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext, Route
from nsm.apis.payloads import IP
from nsm.chains.core import Unavailable
from nsm.chains.forwarding.sides import KernelInterface, Wireguard
from nsm.chains.forwarding.wires import wire_of
from nsm.forwarder_kernel import dataplane
from nsm.forwarder_kernel.dataplane import Dataplane
from nsm.mesh import namespaces
from tests.vm.guest.hosts import Host, cable

SECONDS = 90
ADDRESSES = IpContext(src_ip_addrs=["10.0.0.1/32", "fd00::1/128"], dst_ip_addrs=["10.0.0.0/32", "fd00::/128"])
MTU = 1420


class Node:
    """A node with a workload, and its end of the wire."""

    def __init__(self, name, address, is_client):
        self.host, self.workload, self.is_client = Host(), Host(), is_client
        self.name, self.address = name, ipaddress.ip_address(address)
        self.plane = Dataplane(f"forwarder-{name}")
        self.port = 51820 + is_client
        self.routes = []
        self.new_key()

    def new_key(self):
        self.key = X25519PrivateKey.generate()

    async def start(self):
        """The dataplane takes `host` for its node."""
        await self.plane.kernel.run(lambda: namespaces.enter(self.host.descriptor, namespaces.NEW_NET))
        await self.plane.check_wireguard()

    def wire_to(self, peer):
        """This end of a wire to `peer`: the client's or the endpoint's."""
        kernel = KernelInterface(self.workload.path, "nsm-1")
        tunnel = Wireguard(
            self.key.private_bytes_raw(),
            self.port,
            peer.key.public_key().public_bytes_raw(),
            peer.address,
            peer.port,
            MTU,
            is_client=self.is_client,
        )
        ip = replace(ADDRESSES, src_routes=self.routes)
        connection = Connection(payload=IP, context=ConnectionContext(ip_context=ip, mtu=MTU))
        return wire_of(connection, *((kernel, tunnel) if self.is_client else (tunnel, kernel)))

    async def make(self, peer):
        return await self.plane.create(self.wire_to(peer), "c")

    def link(self):
        (link,) = self.workload.links().values()
        return link


@asynccontextmanager
async def nodes(one="172.16.1.1", other="172.16.1.2", length=24):
    client, server = Node("a", one, True), Node("b", other, False)
    cable(client.host, server.host, addresses=([f"{one}/{length}"], [f"{other}/{length}"]))
    for node in (client, server):
        await node.start()
    yield client, server
    for node in (client, server):
        await node.plane.aclose()


def cross(client, server):
    """Packets of both families pass, both ways, also the largest."""
    for source, address in ((client, "10.0.0.0"), (client, "fd00::"), (server, "10.0.0.1"), (server, "fd00::1")):
        assert source.workload.pings(address) == 1, address
    assert "1 received" in client.workload.run(f"ping -n -c 1 -W 3 -M do -s {MTU - 28} 10.0.0.0")


async def test_packets_cross_and_nothing_is_left():
    async with nodes() as (client, server):
        at_server, at_client = await server.make(client), await client.make(server)
        for node, live in ((client, at_client), (server, at_server)):
            assert live.device.process is None
            assert node.link()["linkinfo"]["info_kind"] == "wireguard"
            assert node.link()["ifalias"] == f"nsm forwarder-{node.name} c"
            assert node.link()["mtu"] == MTU
        cross(client, server)
        index = client.link()["ifindex"]
        await client.plane.change(at_client, client.wire_to(server))
        assert client.link()["ifindex"] == index
        cross(client, server)
        await client.plane.remove(at_client.connection_id)
        await server.plane.remove(at_server.connection_id)
        assert client.workload.links() == server.workload.links() == {}
        assert client.plane.open_namespaces() == server.plane.open_namespaces() == 0


async def test_all_new_flows_leave_by_the_wire_that_has_the_default_route():
    """Of a workload that has one of its own, which is in force again afterwards."""
    async with nodes() as (client, server):
        gateway, workload = Host(), client.workload
        own = ["192.0.2.2/24", "2001:db8::2/64"]
        cable(workload, gateway, addresses=(own, ["192.0.2.1/24", "2001:db8::1/64"]))
        for hop in ("192.0.2.1", "2001:db8::1"):
            workload.ip(f"route add default via {hop}")
            assert workload.pings(hop) == 1
        client.routes = [Route("0.0.0.0/0"), Route("::/0")]
        await server.make(client)
        live = await client.make(server)
        for outside in ("203.0.113.9", "2001:db8:9::9"):
            before = sent(workload)
            namespaces.in_thread(lambda to=outside: flows(workload, to))
            by_wire, by_gateway = (sent(workload)[name] - before[name] for name in ("nsm-1", "eth0"))
            assert by_wire >= FLOWS, outside
            assert by_gateway < FLOWS // 4, outside  # neighbors are asked for
        await client.plane.remove(live.connection_id)
        assert "dev eth0" in workload.ip("route get 203.0.113.9")
        assert "proto 110" not in workload.ip("rule")


FLOWS = 40


def flows(host, address):
    """A packet from each of as many new sockets."""
    namespaces.enter(host.descriptor, namespaces.NEW_NET)
    for _ in range(FLOWS):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"?", (address, 7000))


def sent(host):
    """How many packets each interface has sent."""
    return {link["ifname"]: link["stats64"]["tx"]["packets"] for link in json.loads(host.ip("-s -j link"))}


async def test_packets_cross_over_ipv6():
    async with nodes("fd00:1::1", "fd00:1::2", 64) as (client, server):
        await server.make(client)
        await client.make(server)
        cross(client, server)


async def test_a_forwarder_that_starts_again_makes_its_wire_with_new_keys():
    async with nodes() as (client, server):
        at_server = await server.make(client)
        await client.make(server)
        await client.plane.aclose()
        client.plane = Dataplane("forwarder-a")
        client.new_key()
        await client.start()
        await server.plane.remove(at_server.connection_id)
        await server.make(client)
        await client.make(server)
        cross(client, server)


async def test_a_forwarder_that_starts_again_adopts_its_wire_with_its_keys_and_its_session():
    """It is told the keys by the kernel, where a process is in the workload's namespace."""
    async with nodes() as (client, server):
        await server.make(client)
        at_client = await client.make(server)
        cross(client, server)
        inhabitant = subprocess.Popen(["nsenter", f"--net={client.workload.path}", "sleep", "60"])
        index, heard = client.link()["ifindex"], await client.plane._last_handshake(at_client)
        await client.plane.aclose()
        client.plane = Dataplane("forwarder-a")
        await client.start()
        wanted = client.wire_to(server)
        assert await client.plane.former_wireguard("c") == wanted.tunnel.settings
        again = await client.make(server)
        assert (client.link()["ifindex"], await client.plane._last_handshake(again)) == (index, heard)
        cross(client, server)
        inhabitant.kill()
        inhabitant.wait()
        await client.plane.remove("c")
        assert client.workload.links() == {}


async def test_a_peer_of_another_key_is_told_and_nothing_is_left():
    dataplane._HANDSHAKE_TIMEOUT = 1.0  # in this process, which ends with the test
    async with nodes() as (client, server):
        await server.make(client)
        client.new_key()
        (refusal,) = await asyncio.gather(client.make(server), return_exceptions=True)
        assert isinstance(refusal, Unavailable), refusal
        assert "172.16.1.2 (UDP port 51820) does not answer WireGuard" in str(refusal)
        assert client.workload.links() == {}
