"""Several nodes: links between them, cutting and mending these, and managers that form a mesh over them."""

import json
import subprocess

import pytest

from .conftest import NSM, until

pytestmark = pytest.mark.system

CHAIN = """
nodes: [{{name: node-1}}, {{name: node-2}}, {{name: node-3}}]
links:
  - {{nodes: [node-1, node-2], network: "{0}", mtu: 9000}}
  - {{nodes: [node-2, node-3], network: "{1}"}}
endpoints:
  - {{name: here, node: node-1, services: [near], prefixes: [10.1.0.0/24]}}
  - {{name: there, node: node-3, services: [far], prefixes: [10.3.0.0/24]}}
clients:
  - {{name: client, node: node-1, wires: ["kernel://near/nsm-1"]}}
"""
FOUR = CHAIN.format("172.16.1.0/24", "172.16.2.0/30")
FOUR_OF_TWO, SIX_OF_TWO = CHAIN.format("172.16.1.0/24", "172.16.2.0/31"), CHAIN.format("fd00:1::/64", "fd00:2::/127")
"""The second link has two addresses and no more, as links between routers often do."""


def on_node(mesh, node, *command):
    """Run a command in the network namespace of a node."""
    pid = mesh.pid(f"nsmgr-{node}")
    return subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", *command], capture_output=True, text=True, check=False
    )


def pings(mesh, node, address):
    return on_node(mesh, node, "ping", "-n", "-c", "1", "-W", "1", address).returncode == 0


@pytest.fixture
def chain(mesh, tmp_path):
    def up(text):
        (tmp_path / "mesh.yaml").write_text(text)
        mesh.up("-f", str(tmp_path / "mesh.yaml"))
        return mesh

    return up


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        (FOUR_OF_TWO, ["172.16.1.1", "172.16.1.2", "172.16.2.1"]),
        (SIX_OF_TWO, ["fd00:1::1", "fd00:1::2", "fd00:2::1"]),
    ],
    ids=["IPv4", "IPv6"],
)
def test_every_node_reaches_every_other_also_over_several_links(chain, text, addresses):
    """And each link has the MTU that the file gives it."""
    mesh = chain(text)
    status = mesh.status()
    assert [node["address"] for node in status["nodes"]] == addresses
    for node in ("node-1", "node-2", "node-3"):
        for address in addresses:
            assert pings(mesh, node, address), (node, address)
    links = json.loads(on_node(mesh, "node-2", "ip", "-j", "link").stdout)
    assert {link["ifname"]: link["mtu"] for link in links if link["ifname"].startswith("eth")} == {
        "eth0": 9000,
        "eth1": 1500,
    }


def test_managers_listen_where_others_reach_them_and_endpoints_are_published_there(chain):
    """A registry's client on one node sees the endpoints of another under that one's manager."""
    mesh = chain(FOUR)
    lines = mesh.tool("client", "find endpoints --json --registry $NSM_CONNECT_TO")
    urls = {record["name"]: record["url"] for record in (json.loads(line)["record"] for line in lines)}
    assert urls["there"] == urls["forwarder-node-3"] == "tcp://172.16.2.2:5001"
    assert urls["here"].startswith("inode://")  # on the own node it is dialled as it is
    listening = on_node(mesh, "node-3", "ss", "-Hltn").stdout
    assert "172.16.2.2:5001" in listening


def test_a_cut_link_carries_nothing_until_it_is_mended(chain):
    """Status shows the port; cutting again changes nothing; the order of the nodes does not matter for mending."""
    mesh = chain(FOUR)
    for _ in range(2):
        assert mesh.nsm("cut", "node-2", "node-3").stdout == "node-2 is cut from link 172.16.2.0/30\n"
    assert not pings(mesh, "node-1", "172.16.2.2")
    assert pings(mesh, "node-1", "172.16.1.2")
    ports = {node["name"]: node["state"] for node in mesh.status()["links"][1]["nodes"]}
    assert ports == {"node-2": "cut", "node-3": "up"}
    assert "node-2 172.16.2.1 eth1 CUT" in mesh.nsm("status").stdout
    mesh.nsm("mend", "node-3", "node-2")
    assert until(lambda: pings(mesh, "node-1", "172.16.2.2"))
    mesh.nsm("cut", "node-3", "node-2")
    mesh.nsm("up")
    assert until(lambda: pings(mesh, "node-1", "172.16.2.2")), "a second up mends what was cut"


def test_what_is_no_link_cannot_be_cut(chain):
    mesh = chain(FOUR)
    assert "there is no link between 'node-1' and 'node-3'" in mesh.nsm("cut", "node-1", "node-3", code=1).stderr
    assert "there is no link between 'node-1' and 'node-1'" in mesh.nsm("mend", "node-1", "node-1", code=1).stderr
    assert (
        "there is no node 'client'; there are node-1, node-2, node-3"
        in mesh.nsm("cut", "client", "node-1", code=1).stderr
    )


def test_a_registry_that_restarted_empty_is_filled_again_by_its_clients(chain):
    """Endpoints, forwarders and services come back by themselves; wires stay; a new client gets one."""
    mesh = chain(f"{FOUR}services: [{{name: idle, matches: [{{routes: [{{destination_selector: {{a: b}}}}]}}]}}]\n")
    before = mesh.status()
    mesh.nsm("kill", "registry-node-1")
    mesh.up()
    after = mesh.status()
    assert after["wires"] == before["wires"]
    pids = {component["name"]: component["pid"] for component in before["components"]}
    assert {name for name, pid in mesh.pids().items() if pid != pids[name]} == {"registry-node-1"}
    known = {"here", "there", "idle", "near", "far", *(f"forwarder-node-{n}" for n in (1, 2, 3))}

    def names():
        tool = [f"SPIFFE_ENDPOINT_SOCKET=unix://{mesh.folder}/id/client", *NSM, "find"]
        url = ["--registry", "tcp://172.16.1.1:5002"]
        found = [on_node(mesh, "node-1", "env", *tool, what, *url).stdout for what in ("endpoints", "services")]
        return {line.split()[0] for text in found for line in text.splitlines()}

    assert until(lambda: names() == known), names() ^ known
    mesh.run("client", "env", "NSM_NAME=other", "NSM_NETWORK_SERVICES=kernel://near/nsm-2", *NSM, "nsc-init")
    assert "1 received" in mesh.run("client", "ping", "-n", "-c", "1", "-W", "2", "-I", "nsm-2", "10.1.0.2").stdout


FAR = FOUR.replace("services: [far]", "services: [far], payload: ETHERNET").replace(
    "kernel://near/nsm-1", "kernel://far/nsm-1"
)


def test_a_wire_between_nodes_is_there_again_when_a_killed_component_of_its_path_is(chain):
    """With the addresses that it had, whoever on the path has forgotten it.

    Also if the client, its manager and a far one are killed at once: no refresh tells the managers of it, and only what
    the client wrote down has its path.
    """
    mesh = chain(FAR)
    before = mesh.wire("client")
    ones = [[each] for each in ("nsmgr-node-3", "forwarder-node-3", "there", "forwarder-node-1", "nsmgr-node-1")]
    for components in (*ones, ["client", "nsmgr-node-1", "nsmgr-node-3"]):
        component = components[0]
        for each in components:
            mesh.nsm("kill", each)
        assert mesh.wire("client")["state"] != "UP"
        assert component in mesh.wire("client")["reason"]
        mesh.up()
        after = mesh.wire("client")
        for key in ("state", "path", "src_ips", "dst_ips", "endpoint"):
            assert after[key] == before[key], component
        ping = mesh.run("client", "ping", "-n", "-c", "1", "-W", "2", after["dst_ips"][0].partition("/")[0])
        assert "1 received" in ping.stdout, component


def test_a_wire_to_a_node_that_was_taken_out_goes_and_the_client_says_why(chain, tmp_path):
    mesh = chain(FAR)
    lines = [line for line in FAR.splitlines() if "node-3]" not in line and "there" not in line]
    less = "\n".join(lines).replace(", {name: node-3}", "").replace("services: [near]", "services: [near, far]")
    nowhere = "services: [{name: far, matches: [{routes: [{destination_selector: {never: there}}]}]}]\n"
    (tmp_path / "less.yaml").write_text(nowhere + less)
    told = mesh.up("-f", str(tmp_path / "less.yaml"), "--timeout", "4", code=1).stderr
    assert "client: no wire yet: nsmgr-node-1" in told
    assert [link["ifname"] for link in json.loads(mesh.run("client", "ip", "-j", "link").stdout)] == ["lo"]
