"""Breakout to tagged networks behind an uplink: two ids, two clients each."""

import re

from tests.system.forwarder_kernel.breakout import check, check_restart
from tests.vm.guest.mesh import Mesh

SECONDS = 240

NODE = """\
nodes:
  - name: node-1
uplinks:
  - {via: gw-1, nodes: [node-1]}
endpoints:
  - name: gateway
    node: node-1
    vlans: [{service: blue, via: gw-1, vlan: 100}, {service: green, via: gw-1, vlan: 200}]
    prefixes: [10.70.0.0/24]
"""
CLIENTS = """\
clients:
  - {name: blue-1, node: node-1, wires: [kernel://blue/nsm-1], environment: &slow {NSM_REQUEST_TIMEOUT: 30s}}
  - {name: blue-2, node: node-1, wires: [kernel://blue/nsm-1], environment: *slow}
  - {name: green, node: node-1, wires: [kernel://green/nsm-1], environment: *slow}
"""


async def test_clients_of_two_vlans_reach_their_own_network_and_not_the_other():
    await check(100, 200)


async def test_frames_with_and_without_a_tag_share_an_uplink():
    await check(0, 100)


async def test_a_forwarder_that_was_started_again_removes_its_interface_of_a_tag_and_no_other():
    await check_restart(100, 200)


def test_a_mesh_keeps_tags_apart_and_a_killed_forwarder_leaves_nothing_behind():
    mesh = Mesh()
    mesh.up(NODE + CLIENTS)
    tagged_links(mesh, {"gw-1.100", "gw-1.200"})
    addresses = {name: address_of(mesh, name) for name in ("blue-1", "blue-2", "green")}
    assert answers(mesh, "blue-1", addresses["blue-2"])
    assert not answers(mesh, "blue-1", addresses["green"])
    mesh.nsm("kill", "forwarder-node-1")
    assert answers(mesh, "blue-1", addresses["blue-2"])
    mesh.up(NODE + CLIENTS)
    tagged_links(mesh, {"gw-1.100", "gw-1.200"})
    assert answers(mesh, "blue-1", address_of(mesh, "blue-2"))
    mesh.up(NODE)
    tagged_links(mesh, set())


def tagged_links(mesh, names):
    assert {name for name in mesh.links("nsmgr-node-1") if name.startswith("gw-1.")} == names


def address_of(mesh, client):
    return re.search(r"inet ([\d.]+)/24", mesh.run(client, "ip address show nsm-1"))[1]


def answers(mesh, client, address):
    return "1 received" in mesh.run(client, f"ping -n -c 1 -W 3 {address}")
