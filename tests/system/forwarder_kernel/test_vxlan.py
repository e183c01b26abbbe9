"""VXLAN wires between nodes: who numbers them, what passes, what is refused, and that nothing stays."""

import asyncio
import ipaddress
import itertools
import socket

import pytest

from nsm.chains.core import Conflict, Unavailable, Unsupported
from nsm.chains.forwarding import vxlan as vxlan_module
from nsm.chains.forwarding.dataplane import VniTaken
from nsm.chains.forwarding.sides import Vxlan
from nsm.forwarder_kernel import underlay as underlay_module
from nsm.mesh import namespaces
from tests.system.forwarder_kernel.vxlan_ends import A6, B6, A, B, C, end_of, node

from .nodes import Host, Underlay, ask, mesh_at

pytestmark = pytest.mark.system


@pytest.mark.parametrize(("one", "other"), [(A, B), (A6, B6)])
@pytest.mark.parametrize("ports", [(4789, 4789), (5000, 6000)])
async def test_frames_pass_between_nodes(planes, one, other, ports):
    """Over IPv4 and IPv6, also if each node has a UDP port of its own; removed, nothing is left."""
    underlay = Underlay()
    near, far = planes(node(underlay, one)), planes(node(underlay, other))
    client, endpoint = Host(), Host()
    there = Vxlan(7, one, ports[0], other, ports[1])
    back = Vxlan(7, other, ports[1], one, ports[0])
    first = await near.create(end_of(client, "nsm-1", there), "c")
    second = await far.create(end_of(endpoint, "nse-1", back, side="endpoint"), "c")
    assert client.pings("10.0.0.0")
    assert endpoint.pings("10.0.0.1")
    link = client.links()["nsm-1"]
    assert (link["ifalias"], link["mtu"]) == ("nsm forwarder c", 1446)
    assert link["linkinfo"]["info_data"]["learning"] is False
    await near.remove(first.connection_id)
    await far.remove(second.connection_id)
    assert client.links() == endpoint.links() == {}
    assert near.open_namespaces() == far.open_namespaces() == 0


async def test_a_forwarder_that_starts_again_adopts_its_tunnel_and_replaces_one_that_has_changed(planes):
    underlay = Underlay()
    host, client = node(underlay, A), Host()
    there = Vxlan(7, A, 4789, B, 4789)
    await planes(host).create(end_of(client, "nsm-1", there), "c")
    index = client.links()["nsm-1"]["ifindex"]
    again = planes(host)
    await again.create(end_of(client, "nsm-1", there), "c")
    assert client.links()["nsm-1"]["ifindex"] == index
    third = planes(host)
    await third.create(end_of(client, "nsm-1", Vxlan(8, A, 4789, C, 4789)), "c")
    data = client.links()["nsm-1"]["linkinfo"]["info_data"]
    assert (data["id"], data["remote"]) == (8, str(C))


async def test_one_number_twice_on_a_node_is_told_and_leaves_nothing(planes):
    underlay = Underlay()
    plane, one, other = planes(node(underlay, A)), Host(), Host()
    await plane.create(end_of(one, "nsm-1", Vxlan(7, A, 4789, B, 4789)), "c")
    with pytest.raises(VniTaken, match="VNI 7 is taken on this node by another VXLAN device on UDP port 4789"):
        await plane.create(end_of(other, "nsm-1", Vxlan(7, A, 4789, C, 4789)), "d")
    assert other.links() == {}
    assert plane.open_namespaces() == 1


async def test_a_udp_port_that_is_taken_is_told_and_leaves_nothing(planes):
    underlay = Underlay()
    host, client = node(underlay, A), Host()
    plane = planes(host)

    def bind():
        namespaces.enter(host.descriptor, namespaces.NEW_NET)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", 4789))
        return sock

    with namespaces.in_thread(bind):
        with pytest.raises(
            Conflict, match="UDP port 4789 of this node is taken by another process; NSM_VXLAN_PORT names"
        ):
            await plane.create(end_of(client, "nsm-1", Vxlan(7, A, 4789, B, 4789)), "c")
    assert client.links() == {}
    assert plane.open_namespaces() == 0


async def test_the_underlay_is_looked_up_again_only_when_something_changed_in_the_node(planes, monkeypatch):
    looks = []
    look = underlay_module.look
    monkeypatch.setattr(underlay_module, "look", lambda *way: looks.append(way[1:]) or look(*way))
    host = node(Underlay(mtu=1400), A)
    plane = planes(host)
    for _ in range(3):
        assert [u.mtu for u in await asyncio.gather(*(plane.underlay(A, peer) for peer in (None, B)))] == [1400, 1400]
    assert looks == [(A, None), (A, B)]
    host.run("ip", "rule", "add", "to", f"{B}", "table", "7")
    host.run("ip", "route", "add", f"{B}", "dev", "eth0", "mtu", "1300", "table", "7")
    assert (await plane.underlay(A, B)).mtu == 1300
    host.run("ip", "link", "set", "eth0", "mtu", "1200")
    assert (await plane.underlay(A, B)).mtu == 1200
    assert (await plane.underlay(A, B)).mtu == 1200
    assert len(looks) == 4


async def test_the_underlay_is_the_way_to_the_peer_and_its_faults_are_named(planes):
    underlay = Underlay(mtu=1400)
    host = node(underlay, A)
    plane = planes(host)
    assert (await plane.underlay(A)).mtu == (await plane.underlay(A, B)).mtu == 1400
    host.run("ip", "route", "add", f"{B}/32", "dev", "eth0", "mtu", "1300")
    assert (await plane.underlay(A, B)).mtu == 1300
    with pytest.raises(Conflict, match="the tunnel address 10.9.9.9 is on no interface of this node"):
        await plane.underlay(ipaddress.ip_address("10.9.9.9"))
    with pytest.raises(Unavailable, match=r"node 10.1.1.1 cannot be reached from 172.16.1.1: there is no route"):
        await plane.underlay(A, ipaddress.ip_address("10.1.1.1"))
    with pytest.raises(Conflict, match="the peer has our own tunnel address 172.16.1.1"):
        await plane.underlay(A, A)
    with pytest.raises(Conflict, match="must be both IPv4 or both IPv6"):
        await plane.underlay(A, B6)
    host.run("ip", "link", "set", "eth0", "mtu", "100")
    with pytest.raises(Conflict, match=r"the underlay eth0 \(172.16.1.1\) has MTU 100; a wire of MTU 68 needs 122"):
        (await plane.underlay(A)).room(54)
    host.run("ip", "link", "set", "eth0", "down")
    with pytest.raises(Conflict, match=r"the underlay eth0 \(172.16.1.1\) is down"):
        await plane.underlay(A)


# --- whole chains


def picks(*vnis):
    """In place of chance: these numbers, then others."""
    return itertools.chain(vnis, itertools.count(1000)).__next__


async def three_nodes(mesh, monkeypatch, mtu=1500, pick=None):
    """Clients on a, an endpoint on b and c each; every node begins with the same numbers."""
    underlay = Underlay(mtu)
    hosts = {}
    for name, address in (("a", A), ("b", B), ("c", C)):
        monkeypatch.setattr(vxlan_module, "_random_vni", picks(*(pick or [])))
        hosts[name] = node(underlay, address)
        await mesh.add_node(name, hosts[name], monkeypatch, tunnel_ip=address)
    for name, prefix in (("b", "10.1.0.0/24"), ("c", "10.2.0.0/24")):
        await mesh.add_endpoint(f"nse-{name}", name, f"frames-{name}", "ETHERNET", prefix)
    return hosts


async def test_a_wire_crosses_nodes_is_refreshed_and_closed(tmp_path, monkeypatch):
    """The number is even, since a's address is below b's; a refresh touches nothing; nothing is left."""
    async with mesh_at(tmp_path) as mesh:
        await three_nodes(mesh, monkeypatch, mtu=1400, pick=[101])
        host, client = await mesh.add_client("client", "a")
        connection = await client.request(ask("frames-b"))
        names = ["client", "nsmgr-a", "forwarder-a", "nsmgr-b", "forwarder-b", "nse-b"]
        assert [segment.name for segment in connection.path.path_segments] == names
        assert connection.context.mtu == 1400 - 54
        (near,), (far,) = (mesh.workloads[name].links().values() for name in ("client", "nse-b"))
        for link, remote in ((near, B), (far, A)):
            data = link["linkinfo"]["info_data"]
            assert (data["id"], data["remote"], link["mtu"]) == (100, str(remote), 1346)
        assert host.pings("10.1.0.0")
        assert "VXLAN/unknown" in connection.path.path_segments[2].metrics["client_interface"]
        for _ in range(2):
            again = await client.request(ask("frames-b"))
            assert again.context == connection.context
        links = {name: links for name in ("client", "nse-b") for links in [mesh.workloads[name].links()]}
        assert [next(iter(each.values()))["ifindex"] for each in links.values()] == [near["ifindex"], far["ifindex"]]
        await client.close(ask("frames-b"))
        assert (mesh.connections(), mesh.links()) == ({}, {})
        assert [plane.open_namespaces() for plane in mesh.planes.values()] == [0, 0, 0]


async def test_two_nodes_that_give_one_number_to_a_third_are_told_another(tmp_path, monkeypatch):
    """The kernel of a takes a number once for its UDP port; a asks c again, with a number of its own, which c keeps."""
    async with mesh_at(tmp_path) as mesh:
        await three_nodes(mesh, monkeypatch, pick=[100])
        one, first = await mesh.add_client("one", "a")
        two, second = await mesh.add_client("two", "a")
        await first.request(ask("frames-b"))
        connection = await second.request(ask("frames-c"))
        vnis = {
            name: next(iter(mesh.workloads[name].links().values()))["linkinfo"]["info_data"]["id"]
            for name in ("one", "nse-b", "two", "nse-c")
        }
        assert vnis["one"] == vnis["nse-b"] == 100
        assert vnis["two"] == vnis["nse-c"] != 100
        assert vnis["two"] % 2 == 0
        assert one.pings("10.1.0.0")
        assert two.pings(connection.context.ip_context.dst_ip_addrs[0].split("/")[0])
        assert await second.request(ask("frames-c"))
        for chain, service in ((first, "frames-b"), (second, "frames-c")):
            await chain.close(ask(service))
        assert (mesh.connections(), mesh.links()) == ({}, {})


async def test_a_server_whose_number_is_a_strangers_gives_another(tmp_path, monkeypatch):
    async with mesh_at(tmp_path) as mesh:
        hosts = await three_nodes(mesh, monkeypatch, pick=[100])
        there = ["id", "100", "local", str(B), "remote", str(C), "dstport", "4789", "udp6zerocsumrx"]
        hosts["b"].run("ip", "link", "add", "strange", "type", "vxlan", *there)
        host, client = await mesh.add_client("client", "a")
        await client.request(ask("frames-b"))
        assert next(iter(host.links().values()))["linkinfo"]["info_data"]["id"] != 100
        assert host.pings("10.1.0.0") or host.pings("10.1.0.2")
        await client.close(ask("frames-b"))
        assert (mesh.connections(), mesh.links()) == ({}, {})


@pytest.mark.parametrize("where", ["a", "b"])
async def test_an_underlay_that_is_down_is_told_to_the_client(tmp_path, monkeypatch, where):
    """With the node's part of the way, and nothing is left; afterwards it works."""
    async with mesh_at(tmp_path) as mesh:
        hosts = await three_nodes(mesh, monkeypatch)
        host, client = await mesh.add_client("client", "a")
        hosts[where].run("ip", "link", "set", "eth0", "down")
        with pytest.raises(Conflict, match=rf"forwarder-{where}: .*the underlay eth0 .* is down"):
            await client.request(ask("frames-b"))
        assert (mesh.connections(), mesh.links()) == ({}, {})
        hosts[where].run("ip", "link", "set", "eth0", "up")
        await client.request(ask("frames-b"))
        assert next(iter(host.links()))


async def test_an_underlay_whose_mtu_leaves_no_room_is_told_with_what_it_would_take(tmp_path, monkeypatch):
    async with mesh_at(tmp_path) as mesh:
        await three_nodes(mesh, monkeypatch, mtu=120)
        _, client = await mesh.add_client("client", "a")
        with pytest.raises(Conflict, match=r"underlay eth0 \(172.16.1.1\) has MTU 120; a wire of MTU 68 needs 122"):
            await client.request(ask("frames-b"))
        assert (mesh.connections(), mesh.links()) == ({}, {})


async def test_a_peer_that_no_route_leads_to_is_named_and_nothing_stays(tmp_path, monkeypatch):
    """The one that asks learns the other's address by its answer, and closes there what it cannot use."""
    async with mesh_at(tmp_path) as mesh:
        far = node(Underlay(), ipaddress.ip_address("10.9.0.1"))
        far.run("ip", "route", "add", "default", "dev", "eth0")
        await mesh.add_node("a", node(Underlay(), A), monkeypatch, tunnel_ip=A)
        await mesh.add_node("b", far, monkeypatch, tunnel_ip=ipaddress.ip_address("10.9.0.1"))
        await mesh.add_endpoint("nse", "b", "frames", "ETHERNET", "10.1.0.0/24")
        _, client = await mesh.add_client("client", "a")
        with pytest.raises(Unavailable, match="forwarder-a: node 10.9.0.1 cannot be reached from 172.16.1.1"):
            await client.request(ask("frames"))
        assert (mesh.connections(), mesh.links()) == ({}, {})


async def test_a_forwarder_without_a_tunnel_address_makes_no_wires_to_other_nodes(tmp_path, monkeypatch):
    async with mesh_at(tmp_path) as mesh:
        underlay = Underlay()
        await mesh.add_node("a", node(underlay, A), monkeypatch)
        await mesh.add_node("b", node(underlay, B), monkeypatch, tunnel_ip=B)
        await mesh.add_endpoint("nse", "b", "frames", "ETHERNET", "10.1.0.0/24")
        _, client = await mesh.add_client("client", "a")
        with pytest.raises(
            Unsupported, match="no mechanism to offer to another node for payload ETHERNET; NSM_TUNNEL_IP"
        ):
            await client.request(ask("frames"))
        assert (mesh.connections(), mesh.links()) == ({}, {})
