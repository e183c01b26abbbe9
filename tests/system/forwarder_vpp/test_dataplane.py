"""Wires through VPP: what VPP and the kernel have, what a restart of either leaves, and what is adopted.

By the stand-in, or with NSM_TEST_VPP by a real VPP.
"""

import ipaddress
from dataclasses import replace

import pytest

from nsm.chains.forwarding.sides import Breakout, KernelInterface, Memif, Vxlan, Wireguard
from nsm.forwarder_vpp.ipsec import Ipsec
from tests.system.forwarder_kernel.hosts import Host, wire
from tests.system.forwarder_kernel.nodes import Underlay

from .vpps import forwarder_in
from .wires import between, keys

pytestmark = pytest.mark.system

A, B = map(ipaddress.ip_address, ("172.16.1.1", "172.16.1.2"))


@pytest.fixture
async def forwarder(tmp_path):
    underlay = Underlay()
    node, _peer = underlay.node(f"{A}/24"), underlay.node(f"{B}/24")
    node.run("ip", "link", "add", "out", "up", "type", "veth", "peer", "name", "beyond")
    node.run("ip", "link", "set", "beyond", "up")
    async with forwarder_in(node, tmp_path, address=A, devices=("out",)) as made:
        yield made


async def dump(forwarder, message, **fields):
    return await (await forwarder.session.vpp()).dump(message, **fields)


async def tagged(forwarder):
    """VPP's interfaces of wires, by their names."""
    found = await dump(forwarder, "sw_interface_dump")
    return {each.interface_name: each for each in found if each.tag and " u " not in each.tag}


async def test_interfaces_are_up_have_tags_and_the_mtu_of_the_wire(forwarder):
    client, endpoint = Host(), Host()
    await forwarder.plane.create(wire(client, endpoint, mtu=1400), "connection-1")
    found = list((await tagged(forwarder)).values())
    assert sorted(each.tag.split()[2] for each in found) == ["c", "e"]
    assert {each.tag.split()[-1] for each in found} == {"connection-1"}
    assert {each.mtu[0] for each in found} == {1400}
    assert all("IF_STATUS_API_FLAG_ADMIN_UP" in each.flags for each in found)
    assert client.links()["nsm-1"]["mtu"] == 1400


async def test_packets_are_cross_connected_both_ways_in_both_families(forwarder):
    await forwarder.plane.create(wire(Host(), Host()), "c")
    one, other = [each.sw_if_index for each in (await tagged(forwarder)).values()]
    found = [each.l3xc for each in await dump(forwarder, "l3xc_dump", sw_if_index=0xFFFFFFFF)]
    ways = sorted((each.sw_if_index, each.paths[0].sw_if_index) for each in found)
    assert ways == sorted([(one, other), (one, other), (other, one), (other, one)])


async def test_frames_are_cross_connected_both_ways(forwarder):
    await forwarder.plane.create(wire(Host(), Host(), "ETHERNET"), "c")
    one, other = [each.sw_if_index for each in (await tagged(forwarder)).values()]
    found = {(each.rx_sw_if_index, each.tx_sw_if_index) for each in await dump(forwarder, "l2_xconnect_dump")}
    assert found == {(one, other), (other, one)}


async def test_wires_of_a_vlan_share_its_bridge_and_the_last_one_takes_it_away(forwarder):
    for number in ("1", "2"):
        near = KernelInterface(Host().path, "nsm-1")
        await forwarder.plane.create(between(near, Breakout("out", 100), "ETHERNET"), number)
    (domain,) = await dump(forwarder, "bridge_domain_dump", bd_id=0xFFFFFFFF)
    assert len(domain.sw_if_details) == 3
    await forwarder.plane.remove("1")
    assert len(await dump(forwarder, "bridge_domain_dump", bd_id=0xFFFFFFFF)) == 1
    await forwarder.plane.remove("2")
    assert await dump(forwarder, "bridge_domain_dump", bd_id=0xFFFFFFFF) == []
    assert {each for each in await forwarder.interfaces() if "." in each} == set()


async def test_the_node_s_interface_passes_nothing_but_neighbor_discovery_and_the_ports_of_tunnels(forwarder):
    def wanted(number):
        return between(KernelInterface(Host().path, "nsm-1"), Vxlan(number, A, 4789, B, 4790), "ETHERNET", 1400)

    async def tags():
        return [each.tag for each in await dump(forwarder, "acl_dump", acl_index=0xFFFFFFFF)]

    denials = ["nsm-vppinit-denyall-ingress", "nsm-vppinit-denyall-egress"]
    assert await tags() == denials
    await forwarder.plane.create(wanted(7), "1")
    opened = await tags()
    assert sorted(set(opened) - set(denials)) == ["nsm-pinhole port 4789", "nsm-pinhole port 4790"]
    await forwarder.plane.create(wanted(8), "2")
    assert await tags() == opened
    (lists,) = await dump(forwarder, "acl_interface_list_dump", sw_if_index=forwarder.uplinks.index)
    assert (lists.count, lists.n_input) == (6, 3)


async def test_a_refresh_without_changes_calls_vpp_for_nothing(forwarder):
    made = await forwarder.plane.create(wire(Host(), Host()), "c")
    vpp = await forwarder.session.vpp()
    calls, call = [], vpp.call
    vpp.call = lambda name, **fields: calls.append(name) or call(name, **fields)
    assert await forwarder.plane.resume(made, made.wire)
    assert calls == []


async def test_another_mtu_is_set_everywhere(forwarder):
    client = Host()
    made = await forwarder.plane.create(wire(client, Host(), mtu=1400), "c")
    await forwarder.plane.change(made, replace(made.wire, mtu=1300))
    assert {each.mtu[0] for each in (await tagged(forwarder)).values()} == {1300}
    assert client.links()["nsm-1"]["mtu"] == 1300


@pytest.mark.parametrize("kind", ["kernel", "vxlan", "wireguard", "ipsec"])
async def test_a_restarted_forwarder_adopts_what_is_there_and_touches_nothing(forwarder, kind):
    near = KernelInterface(Host().path, "nsm-1")
    match kind:
        case "kernel":
            wanted = between(near, KernelInterface(Host().path, "nse-1"))
        case "vxlan":
            wanted = between(near, Vxlan(7, A, 4789, B, 4789), "ETHERNET", 1400)
        case "wireguard":
            tunnel = Wireguard(keys()[0], 51820, keys()[1], B, 51820, 1400, is_client=False)
            wanted = between(tunnel, near, mtu=1400)
        case "ipsec":
            own, peer = [await forwarder.key.certificate(role, "c") for role in ("server", "client")]
            wanted = between(Ipsec("server-c", own, peer, B, is_client=False), near, mtu=1400)
    await forwarder.plane.create(wanted, "c")
    before = {name: each.sw_if_index for name, each in (await tagged(forwarder)).items()}
    async with forwarder.successor() as again:
        if kind == "vxlan":
            assert again.plane.former_vni("c") == 7
        if kind == "wireguard":
            assert (await again.plane.former_wireguard("c")).private_key == tunnel.private_key
        assert {(each.connection_id, each.is_live) for each in await again.plane.owned()} == {("c", False)}
        made = await again.plane.create(wanted, "c")
        assert {name: each.sw_if_index for name, each in (await tagged(again)).items()} == before
        await again.plane.remove(made.connection_id)
        assert await tagged(again) == {}


async def test_a_restarted_forwarder_removes_what_nobody_claims(forwarder):
    client, endpoint = Host(), Host()
    await forwarder.plane.create(wire(client, endpoint), "kernel")
    near = Memif("@/run/nsm/memif/memif/memif.sock", client.path)
    await forwarder.plane.create(between(near, Vxlan(7, A, 4789, B, 4789), "ETHERNET"), "memif")
    async with forwarder.successor() as again:
        assert {each.connection_id for each in await again.plane.owned()} == {"kernel", "memif"}
        await again.plane.remove_former(["kernel", "memif"])
        assert await again.plane.owned() == []
        assert await tagged(again) == {}
    assert client.links() == endpoint.links() == {}


async def test_vpp_is_killed_and_every_wire_is_made_again_by_itself(forwarder):
    client, endpoint, node = Host(), Host(), forwarder.host
    one = await forwarder.plane.create(wire(client, endpoint), "1")
    await forwarder.plane.create(
        between(KernelInterface(Host().path, "nsm-1"), Vxlan(7, A, 4789, B, 4789), "ETHERNET"), "2"
    )
    reported = []
    one.when_repaired = lambda is_whole: reported.append((one.fault, is_whole))
    before, hosts = {name: each.tag for name, each in (await tagged(forwarder)).items()}, set(node.links())
    index, was = client.links()["nsm-1"]["ifindex"], await forwarder.session.vpp()
    forwarder.process.kill()
    await was.ended()
    assert {name: each.tag for name, each in (await tagged(forwarder)).items()} == before
    assert reported == [("VPP has ended, and is started again", False), ("", True)]
    assert client.links()["nsm-1"]["ifindex"] == index
    assert set(node.links()) == hosts
    await forwarder.plane.remove("1")
    await forwarder.plane.remove("2")
    assert await tagged(forwarder) == {}


async def test_wires_that_are_made_and_removed_leave_nothing(forwarder):
    client, endpoint = Host(), Host()
    before = await forwarder.interfaces()
    for _ in range(10):
        await forwarder.plane.create(wire(client, endpoint), "c")
        await forwarder.plane.remove("c")
    assert await forwarder.interfaces() == before
    assert client.links() == endpoint.links() == {}
    assert await dump(forwarder, "l3xc_dump", sw_if_index=0xFFFFFFFF) == []
    assert {name for name in forwarder.host.links() if name.startswith("nsm")} == set()


async def test_a_deleted_link_is_made_again_with_its_part_of_vpp(forwarder):
    client, endpoint = Host(), Host()
    made = await forwarder.plane.create(wire(client, endpoint), "c")
    client.run("ip", "link", "delete", "nsm-1")
    assert await forwarder.plane.remake(made)
    assert set(client.links()) == {"nsm-1"}
    assert len(await tagged(forwarder)) == 2
