"""Breakout to networks behind an uplink. This kernel has no 802.1q, so frames are untagged here."""

import pytest

from nsm.chains.core import Conflict, NotFound, Unsupported
from nsm.chains.elements.vlan import VlanServer
from nsm.chains.forwarding.vlan import Uplink
from nsm.chains.model.vlans import VlanService

from .breakout import Network, check, wire_to
from .nodes import Host, ask, mesh_at, plane_in

pytestmark = pytest.mark.system

UPLINKS = (Uplink("eth1", ((("via", "gw1"),),)), Uplink("eth9", ((("via", "gw9"),),)))


async def test_clients_share_an_uplink_and_reach_each_other_and_the_network():
    await check(0)


async def test_a_forwarder_that_starts_again_adopts_its_breakout():
    network, host = Network(), Host()
    first, second = plane_in(network.node), plane_in(network.node)
    await first.create(wire_to(host, 0, "10.0.0.1"), "c")
    index = host.links()["nsm-1"]["ifindex"]
    await first.aclose()
    live = await second.create(wire_to(host, 0, "10.0.0.1"), "c")
    assert host.links()["nsm-1"]["ifindex"] == index
    await second.remove(live.connection_id)
    assert host.links() == {}
    await second.aclose()


@pytest.mark.parametrize(
    ("spoil", "vlan", "kind", "told"),
    [
        (("ip", "link", "set", "eth1", "down"), 0, Conflict, "the uplink eth1 is down"),
        (("ip", "link", "delete", "eth1"), 0, Conflict, "this node has no uplink eth1; NSM_DEVICE_SELECTOR_FILE has"),
        (("true",), 7, Unsupported, "this kernel has no 802.1q, which VLAN 7 of eth1 needs"),
        (
            ("ip", "link", "add", "eth1.7", "type", "bridge"),
            7,
            Conflict,
            "interface eth1.7 of this node is not VLAN 7 of eth1",
        ),
    ],
)
async def test_an_uplink_that_cannot_be_used_is_named_and_nothing_stays(spoil, vlan, kind, told):
    network, host = Network(), Host()
    network.node.run(*spoil)
    plane = plane_in(network.node)
    with pytest.raises(kind, match=told):
        await plane.create(wire_to(host, vlan, "10.0.0.1"), "c")
    assert host.links() == {}
    assert plane.open_namespaces() == 0
    await plane.aclose()


async def breakout_mesh(mesh, monkeypatch, via="gw1", vlan=0):
    """A node with uplinks, and an endpoint that is nowhere but on TCP."""
    network = Network()
    network.node.run("ip", "link", "set", "eth1", "mtu", "1400")
    network.machine.run("ip", "link", "set", "eth0", "mtu", "1400")
    await mesh.add_node("a", network.node, monkeypatch, uplinks=UPLINKS)
    mechanisms = {"VLAN": [VlanServer([VlanService("outside", via, vlan)])]}
    await mesh.add_remote_endpoint("gateway", "outside", "ETHERNET", "10.1.0.0/24", mechanisms)
    network.machine.run("ip", "address", "add", "10.1.0.0/32", "dev", "eth0")
    network.machine.run("ip", "route", "add", "10.1.0.0/24", "dev", "eth0")
    return network


async def test_a_client_is_wired_to_the_network_that_the_endpoint_names(tmp_path, monkeypatch):
    async with mesh_at(tmp_path) as mesh:
        network = await breakout_mesh(mesh, monkeypatch)
        host, client = await mesh.add_client("client", "a")
        connection = await client.request(ask("outside", labels={"via": "gw9"}))
        assert connection.context.mtu == next(iter(host.links().values()))["mtu"] == 1400
        assert connection.path.path_segments[2].metrics["client_interface"] == "VLAN/eth1"
        assert host.pings("10.1.0.0")
        again = await client.request(ask("outside", labels={"via": "gw9"}))
        assert again.context == connection.context
        await client.close(ask("outside"))
        assert (mesh.connections(), mesh.links()) == ({}, {})
        assert set(network.node.links()) == {"eth1"}


@pytest.mark.parametrize(
    ("via", "told"),
    [
        ("gw2", "no uplink of this node is for via=gw2; there is: eth1 for via=gw1; eth9 for via=gw9"),
        ("gw9", "this node has no uplink eth9"),
    ],
)
async def test_a_label_that_no_uplink_fits_is_named_and_nothing_stays(tmp_path, monkeypatch, via, told):
    async with mesh_at(tmp_path) as mesh:
        await breakout_mesh(mesh, monkeypatch, via)
        _, client = await mesh.add_client("client", "a")
        with pytest.raises((NotFound, Conflict), match=told):
            await client.request(ask("outside"))
        assert (mesh.connections(), mesh.links()) == ({}, {})
