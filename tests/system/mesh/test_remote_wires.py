"""Wires between nodes with every component a process of its own: managers, forwarders, endpoints, clients."""

import subprocess

import pytest

from .conftest import until

pytestmark = pytest.mark.system

TWO = """
nodes:
  - {{name: node-1}}
  - {{name: node-2, forwarder: {{environment: {{{environment}}}}}}}
links:
  - {{nodes: [node-1, node-2], network: "{network}", mtu: 1400}}
endpoints:
  - {{name: frames, node: node-2, services: [frames], payload: ETHERNET, prefixes: [10.1.0.0/24]}}
  - {{name: packets, node: node-2, services: [packets], payload: IP, prefixes: [10.2.0.0/24]}}
clients:
  - {{name: client, node: node-1, wires: ["kernel://frames/nsm-1", "kernel://packets/nsm-2"]}}
"""


@pytest.fixture
def up(mesh, tmp_path):
    def start(network="172.16.1.0/24", environment="", **options):
        (tmp_path / "mesh.yaml").write_text(TWO.format(network=network, environment=environment))
        return mesh.up("-f", str(tmp_path / "mesh.yaml"), **options)

    return start


def programs(mesh, *nodes):
    """Pids of the WireGuard programs of nodes: they are children of the forwarder there."""
    pids = ",".join(str(mesh.pid(f"forwarder-{node}")) for node in nodes)
    found = subprocess.run(["pgrep", "-P", pids, "wireguard-go"], capture_output=True, text=True, check=False)
    return found.stdout.split()


def is_running(pid):
    """One that has ended may wait for long to be noticed by its new parent."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False).stdout
    return state.strip() != "" and not state.startswith("Z")


def pings(mesh, address):
    return mesh.run("client", "ping", "-n", "-c", "1", "-W", "2", address, code=None).returncode == 0


@pytest.mark.parametrize(("network", "overheads"), [("172.16.1.0/31", (54, 60)), ("fd00:1::/127", (74, 80))])
def test_frames_and_packets_cross_and_nothing_is_left(mesh, up, network, overheads):
    """Also over a link that has no more than the two nodes' addresses. Each by its mechanism, both ends with the MTU that the link leaves; programs end with the mesh."""
    up(network)
    assert pings(mesh, "10.1.0.0")
    assert pings(mesh, "10.2.0.0")
    for name, overhead in (("nsm-1", overheads[0]), ("nsm-2", overheads[1])):
        shown = mesh.run("client", "ip", "link", "show", name).stdout
        assert f"mtu {1400 - overhead} " in shown
    before = programs(mesh, "node-1", "node-2")
    assert len(before) >= 2
    mesh.nsm("down")
    assert not list(filter(is_running, before))


def test_a_forwarder_that_was_killed_leaves_all_packets_passing_and_takes_over_the_programs(mesh, up):
    """What needs a program outlives it; when it is back, wires stay as they are and new ones are made."""
    up()
    before = programs(mesh, "node-1")
    assert before
    mesh.nsm("kill", "forwarder-node-1")
    assert pings(mesh, "10.1.0.0")
    assert pings(mesh, "10.2.0.0")
    mesh.up()
    assert pings(mesh, "10.2.0.0")
    assert all(map(is_running, before))
    lines = mesh.tool("client", "bench connect --url $NSM_CONNECT_TO --service packets -n 3 --cycle --first-packet")
    assert "errors: 0" in lines


def test_a_tunnel_address_of_another_node_is_refused_at_the_start(mesh, up):
    done = up(environment="NSM_TUNNEL_IP: 192.0.2.1", code=1)
    told = "the tunnel address 192.0.2.1 is on no interface of this node; NSM_TUNNEL_IP has to be one of the node's own"
    assert told in done.stdout + done.stderr
    assert until(lambda: not mesh.folder.exists())
