"""Every topology file of the examples is brought up and does what its comments say."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from nsm.mesh.topology import read, schema

from .conftest import NSM, until

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))


@pytest.fixture
def example(mesh):
    def up(name):
        mesh.up("-f", str(EXAMPLES / f"{name}.yaml"))
        return mesh

    return up


def answers(mesh, wire):
    """Whether every address of the wire's other end answers, asked over that wire."""
    for address in wire["dst_ips"]:
        ping = ["ping", "-n", "-c", "1", "-W", "2", "-I", wire["interface"], address.partition("/")[0]]
        if "1 received" not in mesh.run(wire["client"], *ping, code=None).stdout:
            return False
    return bool(wire["dst_ips"])


def all_up(mesh, count):
    wires = mesh.status()["wires"]
    assert [wire["state"] for wire in wires] == ["UP"] * count
    return {f"{wire['client']} {wire['interface']}": wire for wire in wires}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_what_reader_and_schema_expect(path):
    read(str(path))
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(schema()))


def test_one_node(example):
    mesh = example("one-node")
    wires = all_up(mesh, 2)
    assert {wire["endpoint"] for wire in wires.values()} == {"web", "store"}
    assert all(answers(mesh, wire) for wire in wires.values())


def test_dual_stack(example):
    mesh = example("dual-stack")
    wires = all_up(mesh, 2)
    assert [len(wire["dst_ips"]) for wire in wires.values()] == [2, 1]
    assert all(answers(mesh, wire) for wire in wires.values())


def test_selection(example):
    """Each client is at the endpoint that the file's comments say."""
    mesh = example("selection")
    wires = all_up(mesh, 3)
    assert {wire["client"]: wire["endpoint"] for wire in wires.values()} == {
        "billing": "gold",
        "report": "blue",
        "other": "iron",
    }
    assert all(answers(mesh, wire) for wire in wires.values())


def test_policy_routes(example):
    """The client has the address and the rule of the file, and the network of the rule only by that rule."""
    mesh = example("policy-routes")
    (wire,) = all_up(mesh, 1).values()
    assert answers(mesh, wire)
    assert "10.61.0.1/32" in wire["src_ips"]
    (rule,) = [r for r in json.loads(mesh.run("client", "ip", "-j", "rule").stdout) if r.get("src") == "10.61.0.1"]
    assert (rule["dport"], rule["ipproto"]) == (443, "tcp")
    (route,) = json.loads(mesh.run("client", "ip", "-j", "route", "show", "table", str(rule["table"])).stdout)
    assert (route["dst"], route["dev"]) == ("10.62.0.0/16", "nsm-1")
    assert "10.62" not in mesh.run("client", "ip", "route").stdout


def test_two_nodes(example):
    """The wire crosses the link by VXLAN, from manager to manager; status shows the way and, once cut, the cause."""
    mesh = example("two-nodes")
    (wire,) = all_up(mesh, 1).values()
    parts = ["nsmgr-node-1", "forwarder-node-1", "nsmgr-node-2", "forwarder-node-2"]
    assert wire["path"] == ["shop", *parts, "store"]
    assert wire["tunnel"]["mechanism"] == "VXLAN"
    assert (wire["tunnel"]["parameters"]["src_ip"], wire["tunnel"]["parameters"]["dst_ip"]) == (
        "172.16.1.1",
        "172.16.1.2",
    )
    assert answers(mesh, wire)
    mesh.nsm("cut", "node-2", "node-1")
    assert not answers(mesh, wire)
    (cut,) = mesh.status()["wires"]
    assert cut["state"] == "DOWN"
    assert cut["reason"] == "node-1 and node-2 cannot reach each other: node-2 is cut from link 172.16.1.0/24"
    assert cut["reason"] in mesh.nsm("status").stdout
    mesh.nsm("mend", "node-1", "node-2")
    assert until(lambda: mesh.status()["wires"][0]["state"] == "UP")
    (wire,) = all_up(mesh, 1).values()
    assert until(lambda: answers(mesh, wire))


def test_ipv6_underlay(example):
    """Over two links, with the node between only passing packets on; IPv4 and IPv6 inside."""
    mesh = example("ipv6-underlay")
    (wire,) = all_up(mesh, 1).values()
    assert wire["tunnel"]["parameters"]["dst_ip"] == "fd00:2::2"
    assert "nsmgr-node-2" not in wire["path"]
    assert [":" in address for address in wire["dst_ips"]] == [False, True]
    assert answers(mesh, wire)


def test_vlan_breakout(example, tmp_path):
    """The clients of two nodes are in one segment, and no tunnel joins the nodes.

    The process that says so can go and come back; what is taken out of the file goes, with all wires on it.
    """
    mesh = example("vlan-breakout")
    wires = all_up(mesh, 2)
    assert {wire["tunnel"]["mechanism"] for wire in wires.values()} == {"VLAN"}
    assert {wire["tunnel"]["parameters"]["interface"] for wire in wires.values()} == {"gw-1"}
    addresses = {wire["client"]: wire["src_ips"][0].partition("/")[0] for wire in wires.values()}
    assert set(addresses.values()) == {"10.70.0.1", "10.70.0.2"}
    ping = ["ping", "-n", "-c", "1", "-W", "2", addresses["client-2"]]
    mesh.run("client-1", *ping)
    (link,) = json.loads(mesh.run("client-1", "ip", "-d", "-j", "link", "show", "nsm-1").stdout)
    assert (link["linkinfo"]["info_kind"], link["mtu"]) == ("macvlan", 1500)
    mesh.nsm("kill", "gateway")
    assert until(lambda: all(wire["state"] == "DOWN" for wire in mesh.status()["wires"]))
    mesh.up()
    assert {each["client"]: each["src_ips"][0].partition("/")[0] for each in all_up(mesh, 2).values()} == addresses
    mesh.run("client-1", *ping)
    text = (EXAMPLES / "vlan-breakout.yaml").read_text().replace("via: gw-1\n", "via: gw-1\n    mtu: 1400\n")
    (tmp_path / "mesh.yaml").write_text(
        text.replace("service: outside", "service: inside").replace("//outside", "//inside")
    )
    mesh.up("-f", str(tmp_path / "mesh.yaml"))
    assert {wire["service"] for wire in all_up(mesh, 2).values()} == {"inside"}
    (link,) = json.loads(mesh.run("client-1", "ip", "-d", "-j", "link", "show", "nsm-1").stdout)
    assert link["mtu"] == 1400


def test_two_domains(example):
    """The wire leads from one domain into the other, past both proxies; what is not admitted is refused in its words."""
    mesh = example("two-domains")
    (wire,) = all_up(mesh, 1).values()
    near = ["nsmgr-node-1", "forwarder-node-1", "nsmgr-proxy-node-1"]
    far = ["nsmgr-proxy-node-2", "nsmgr-node-3", "forwarder-node-3"]
    assert wire["path"] == ["shop", *near, *far, "store"]
    assert (wire["service"], wire["endpoint"]) == ("store@my.cluster2", "store@my.cluster2")
    ends = wire["tunnel"]["parameters"]
    assert (ends["src_ip"], ends["dst_ip"]) == ("172.16.1.1", "172.16.2.2")
    assert answers(mesh, wire)
    find = f"{' '.join(NSM)} find services --registry $NSM_CONNECT_TO --name"
    assert "store@my.cluster2 " in mesh.run("shop", "sh", "-c", f"{find} store@my.cluster2").stdout
    told = mesh.run("shop", "sh", "-c", f"{find} vault@my.cluster2", code=1).stderr
    assert "may not use 'vault' of this domain; NSM_ADMITTED_DOMAINS controls who may" in told


def test_floating_domain(example):
    """The endpoint is found in the third domain, and the wire leads to where it runs; it stays after a restart."""
    mesh = example("floating-domain")
    (wire,) = all_up(mesh, 1).values()
    assert wire["endpoint"] == "store@my.sky"
    assert wire["path"][3:6] == ["nsmgr-proxy-node-1", "nsmgr-proxy-node-2", "nsmgr-node-2"]
    assert wire["tunnel"]["mechanism"] == "WIREGUARD"
    assert answers(mesh, wire)


def test_chain_over_domains(example):
    """The client's packets pass an endpoint of the other cluster, and come back to the gateway in its own."""
    mesh = example("chain-over-domains")
    (wire,) = all_up(mesh, 1).values()
    assert len(wire["path"]) == 15
    assert [name for name in wire["path"] if name.endswith("@my.sky")] == ["pass-1@my.sky", "gateway@my.sky"]
    assert answers(mesh, wire)


def test_five_nodes():
    """Fifty clients of five endpoints, some on the client's own node and most on another: every ping is answered."""
    words = [sys.executable, "-m", "bench.mesh"]
    done = subprocess.run(words, cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pss_mesh_gib"] < 1.5


def test_custom_endpoint(example):
    """A program of one's own provides the service, with the labels and the addresses that the file says."""
    mesh = example("custom-endpoint")
    wires = all_up(mesh, 2)
    assert {wire["endpoint"] for wire in wires.values()} == {"counter"}
    assert {address for wire in wires.values() for address in wire["dst_ips"]} == {"10.20.0.0/32", "10.20.0.2/32"}
    assert all(answers(mesh, wire) for wire in wires.values())
    counter = next(each for each in mesh.status()["components"] if each["name"] == "counter")
    assert counter["command"] == "program"
    assert b"serve_endpoint.py" in Path(f"/proc/{counter['pid']}/cmdline").read_bytes()


def test_a_program_that_cannot_be_run_is_told(mesh, tmp_path):
    text = (EXAMPLES / "custom-endpoint.yaml").read_text()
    (tmp_path / "mesh.yaml").write_text(text.replace("[python, serve_endpoint.py]", "[no-such-program]"))
    told = mesh.up("-f", str(tmp_path / "mesh.yaml"), code=1).stderr
    assert (
        f"counter ended with 127 before it was ready: cannot run 'no-such-program' in {tmp_path}: No such file" in told
    )
    (tmp_path / "mesh.yaml").write_text(text)
    told = mesh.up("-f", str(tmp_path / "mesh.yaml"), code=1).stderr
    assert "counter ended with 2 before it was ready" in told
    assert "serve_endpoint.py" in told
