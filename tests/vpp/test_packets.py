"""Packets through a real VPP: `make test-vpp`."""

import ipaddress

import pytest

from nsm.chains.forwarding.sides import KernelInterface, Memif, Vxlan, Wireguard
from nsm.chains.netlink.offload import finish_checksums
from nsm.forwarder_vpp.ipsec import Ipsec
from tests.system.forwarder_kernel.hosts import Host, wire
from tests.system.forwarder_kernel.nodes import Underlay, end_programs, pinging, plane_in
from tests.system.forwarder_vpp.vpps import SIZE, add_memif, forwarder_in, pings, transferred, workload_in
from tests.system.forwarder_vpp.wires import between, keys

pytestmark = pytest.mark.system

A, B = map(ipaddress.ip_address, ("172.16.1.1", "172.16.1.2"))
DUAL = {"src_ip_addrs": ["10.0.0.1/32", "fd00::1/128"], "dst_ip_addrs": ["10.0.0.0/32", "fd00::/128"]}


@pytest.mark.parametrize("payload", ["IP", "ETHERNET"])
async def test_kernel_to_kernel(tmp_path, payload):
    client, endpoint, node = Host(), Host(), Host()
    async with forwarder_in(node, tmp_path) as forwarder:
        made = await forwarder.plane.create(wire(client, endpoint, payload, **DUAL), "c")
        assert client.pings("10.0.0.0")
        assert client.pings("fd00::")
        assert endpoint.pings("10.0.0.1")
        assert endpoint.pings("fd00::1")
        assert int(made.metrics()["server_rx_packets"]) >= 4
        ((seen, _),) = await forwarder.plane.traffic([made])
        assert seen.tx_packets >= 4
        await forwarder.plane.remove("c")
        assert client.links() == endpoint.links() == {}
        assert await forwarder.interfaces() == set()
        assert set(node.links()) == set()


async def test_kernel_to_memif(tmp_path):
    client, endpoint, node = Host(), Host(), Host()
    async with forwarder_in(node, tmp_path / "node") as forwarder, workload_in(endpoint, tmp_path / "nse") as vpp:
        await add_memif(vpp, "@/run/nse.sock", is_master=True, address="10.0.0.0/32", peer="10.0.0.1/32")
        far = Memif("@/run/nse.sock", endpoint.path)
        await forwarder.plane.create(between(KernelInterface(client.path, "nsm-1"), far), "c")
        assert client.pings("10.0.0.0")
        assert await pings(vpp, "10.0.0.1")


async def test_memif_to_kernel(tmp_path):
    client, endpoint, node = Host(), Host(), Host()
    async with forwarder_in(node, tmp_path / "node") as forwarder, workload_in(client, tmp_path / "nsc") as vpp:
        near = Memif("@/run/nsc.sock", client.path)
        await forwarder.plane.create(between(near, KernelInterface(endpoint.path, "nse-1")), "c")
        await add_memif(vpp, "@/run/nsc.sock", is_master=False, address="10.0.0.1/32", peer="10.0.0.0/32")
        assert await pings(vpp, "10.0.0.0")
        assert endpoint.pings("10.0.0.1")


async def test_memif_to_memif_passes_no_vpp_between_and_outlives_the_forwarder(tmp_path):
    client, endpoint, node = Host(), Host(), Host()
    async with (
        workload_in(client, tmp_path / "nsc") as near,
        workload_in(endpoint, tmp_path / "nse") as far,
        forwarder_in(node, tmp_path / "node") as forwarder,
    ):
        await add_memif(far, "@/run/nse.sock", is_master=True, address="10.0.0.0/32", peer="10.0.0.1/32")
        wanted = between(Memif("@/run/nsc.sock", client.path), Memif("@/run/nse.sock", endpoint.path))
        await forwarder.plane.create(wanted, "c")
        assert await forwarder.interfaces() == set()
        await add_memif(near, "@/run/nsc.sock", is_master=False, address="10.0.0.1/32", peer="10.0.0.0/32")
        assert await pings(near, "10.0.0.0")
        async with forwarder.successor() as again:
            assert await pings(near, "10.0.0.0")
            await again.plane.create(wanted, "c")
            assert await pings(near, "10.0.0.0")
            await again.plane.remove("c")
            assert not await pings(near, "10.0.0.0")


async def test_vxlan_to_the_kernel_forwarder_of_another_node(tmp_path):
    underlay, client, endpoint = Underlay(), Host(), Host()
    here, there = underlay.node(f"{A}/24"), underlay.node(f"{B}/24")
    plane = plane_in(there, "kernel")
    async with forwarder_in(here, tmp_path, address=A) as forwarder:
        far = between(Vxlan(7, B, 4789, A, 4789), KernelInterface(endpoint.path, "nse-1"), "ETHERNET", 1446)
        await plane.create(far, "e")
        near = between(KernelInterface(client.path, "nsm-1"), Vxlan(7, A, 4789, B, 4789), "ETHERNET", 1446)
        await forwarder.plane.create(near, "c")
        assert client.pings("10.0.0.0")
        assert endpoint.pings("10.0.0.1")
        assert here.pings(str(B))  # the node's own packets are still the kernel's
        await forwarder.plane.remove("c")
        assert len(await forwarder.interfaces()) == 1
    await plane.aclose()


@pytest.mark.parametrize("kind", ["kernel", "vxlan", "wireguard"])
async def test_tcp_passes_both_ways(tmp_path, kind):
    underlay, client, endpoint = Underlay(), Host(), Host()
    here, there = underlay.node(f"{A}/24"), underlay.node(f"{B}/24")
    finish_checksums(there.descriptor, "eth0")
    plane = plane_in(there, "kernel")
    near, far = KernelInterface(client.path, "nsm-1"), KernelInterface(endpoint.path, "nse-1")
    async with forwarder_in(here, tmp_path, address=A) as forwarder:
        match kind:
            case "kernel":
                await forwarder.plane.create(between(near, far), "c")
            case "vxlan":
                await plane.create(between(Vxlan(7, B, 4789, A, 4789), far, "ETHERNET", 1446), "e")
                await forwarder.plane.create(between(near, Vxlan(7, A, 4789, B, 4789), "ETHERNET", 1446), "c")
            case "wireguard":
                (own, own_public), (other, other_public) = keys(), keys()
                tunnel = Wireguard(other, 51999, own_public, A, 51820, 1440, is_client=False)
                await plane.create(between(tunnel, far, mtu=1440), "e")
                tunnel = Wireguard(own, 51820, other_public, B, 51999, 1440, is_client=True)
                await forwarder.plane.create(between(near, tunnel, mtu=1440), "c")
        assert (
            await transferred(endpoint, client, "10.0.0.0") == await transferred(client, endpoint, "10.0.0.1") == SIZE
        )
    await end_programs(plane)
    await plane.aclose()


async def test_wireguard_to_the_kernel_forwarder_of_another_node(tmp_path):
    underlay, client, endpoint = Underlay(), Host(), Host()
    here, there = underlay.node(f"{A}/24"), underlay.node(f"{B}/24")
    plane = plane_in(there, "kernel")
    async with forwarder_in(here, tmp_path, address=A) as forwarder:
        (own, own_public), (other, other_public) = keys(), keys()
        far = Wireguard(other, 51999, own_public, A, 51820, 1440, is_client=False)
        await plane.create(between(far, KernelInterface(endpoint.path, "nse-1"), mtu=1440), "e")
        near = Wireguard(own, 51820, other_public, B, 51999, 1440, is_client=True)
        await forwarder.plane.create(between(KernelInterface(client.path, "nsm-1"), near, mtu=1440), "c")
        assert client.pings("10.0.0.0")
        assert endpoint.pings("10.0.0.1")
    await end_programs(plane)
    await plane.aclose()


async def test_ipsec_between_two_vpps(tmp_path):
    underlay, client, endpoint = Underlay(), Host(), Host()
    here, there = underlay.node(f"{A}/24"), underlay.node(f"{B}/24")
    async with (
        forwarder_in(here, tmp_path / "a", address=A) as near,
        forwarder_in(there, tmp_path / "b", address=B) as far,
    ):
        for number in ("1", "2"):
            own, other = await near.key.certificate("client", number), await far.key.certificate("server", number)
            tunnel = Ipsec(f"server-{number}", other, own, A, is_client=False)
            ip = {"src": f"10.0.{number}.1/32", "dst": f"10.0.{number}.0/32"}
            names = {"nsm": f"nsm-{number}", "nse": f"nse-{number}"}
            await far.plane.create(
                between(tunnel, KernelInterface(endpoint.path, names["nse"]), mtu=1419, **ip), number
            )
            tunnel = Ipsec(f"client-{number}", own, other, B, is_client=True)
            await near.plane.create(between(KernelInterface(client.path, names["nsm"]), tunnel, mtu=1419, **ip), number)
        for number in ("1", "2"):
            assert client.pings(f"10.0.{number}.0")
            assert endpoint.pings(f"10.0.{number}.1")
        await near.plane.remove("1")
        assert client.pings("10.0.2.0")


async def test_a_forwarder_that_was_killed_is_followed_without_a_lost_packet(tmp_path):
    client, endpoint, node = Host(), Host(), Host()
    async with forwarder_in(node, tmp_path) as forwarder:
        wanted = wire(client, endpoint)
        await forwarder.plane.create(wanted, "c")
        with pinging(client, "10.0.0.0") as lost:
            async with forwarder.successor() as again:
                assert [each.connection_id for each in await again.plane.owned()] == ["c"]
                await again.plane.create(wanted, "c")
                assert len(await again.interfaces()) == 2
        assert lost() <= 1
        async with forwarder.successor() as another:
            await another.plane.remove("c")
            assert await another.interfaces() == set()
        assert client.links() == {}


async def test_vpp_is_killed_under_traffic(tmp_path):
    client, endpoint, node = Host(), Host(), Host()
    async with forwarder_in(node, tmp_path) as forwarder:
        made = await forwarder.plane.create(wire(client, endpoint), "c")
        before = client.links()["nsm-1"]["ifindex"]
        was = await forwarder.session.vpp()
        forwarder.process.kill()
        await was.ended()
        assert await forwarder.plane.resume(made, made.wire)
        await forwarder.session.vpp()
        assert client.pings("10.0.0.0")
        assert client.links()["nsm-1"]["ifindex"] == before
