"""What a person reads of a mesh's status."""

import ipaddress
from dataclasses import replace

from nsm.mesh.model import Link, Node, Topology, Uplink
from nsm.mesh.plan import Component
from nsm.mesh.process import Process
from nsm.mesh.status import View, describe
from nsm.mesh.tree import tree
from nsm.mesh.wires import Known

WIRE = {
    "client": "shop",
    "service": "web",
    "interface": "nsm-1",
    "mechanism": "KERNEL",
    "endpoint": "far",
    "src_ips": ["10.0.0.1/32"],
    "dst_ips": ["10.0.0.0/32"],
    "path": ["shop", "nsmgr-a", "forwarder-a", "nsmgr-c", "forwarder-c", "far"],
    "state": "UP",
}
NONE = {name: Known() for name in "abc"}
LINKS = tuple(
    Link(nodes, ipaddress.ip_network(network))
    for nodes, network in ((("a", "b"), "10.1.0.0/24"), (("b", "c"), "10.2.0.0/24"))
)


def process(name, command, node, status=None, last=""):
    found = Process(Component(name, command, node, node, {}, is_workload=command in {"nsc", "nse"}), pid=7)
    found.ready.set()
    found.status, found.last = status, last
    return found


def view(wire=WIRE, cut=(), ended=()):
    names = [("nsmgr-a", "nsmgr", "a"), ("forwarder-a", "forwarder-kernel", "a"), ("shop", "nsc", "a")]
    names += [
        ("nsmgr-b", "nsmgr", "b"),
        ("nsmgr-c", "nsmgr", "c"),
        ("forwarder-c", "forwarder-kernel", "c"),
        ("far", "nse", "c"),
    ]
    processes = [process(*each, status=-9 if each[0] in ended else None) for each in names]
    tunnel = {"mechanism": "VXLAN", "parameters": {"vni": "7"}}
    managers = {"a": Known(wires={"shop-0": wire}), "b": Known(), "c": Known(tunnels={"shop-0": tunnel})}
    topology = Topology(tuple(map(Node, "abc")), LINKS)
    return View("m", topology, processes, managers, {name: Known() for name in "abc"}, cut, {})


def wire_of(seen):
    (wire,) = describe(seen)["wires"]
    return wire


def test_a_wire_stands_below_its_client_with_the_way_that_it_takes():
    lines = tree(describe(view()))
    assert lines[0] == "link 10.1.0.0/24  mtu 1500  a 10.1.0.1, b 10.1.0.2"
    assert lines[3] == "a 10.1.0.1"
    place = next(number for number, line in enumerate(lines) if line.startswith("└─ shop"))
    assert lines[place + 1].startswith("   └─ nsm-1")
    assert "KERNEL over VXLAN  UP" in lines[place + 1]
    assert lines[place + 1].endswith("web at far  10.0.0.1/32 → 10.0.0.0/32  " + " → ".join(WIRE["path"]))


def test_a_wire_that_is_up_has_the_promised_keys_and_how_it_crosses():
    assert wire_of(view()) == {**WIRE, "tunnel": {"mechanism": "VXLAN", "parameters": {"vni": "7"}}}


def test_an_endpoint_of_another_domain_has_its_name_in_the_file_as_a_client_and_when_it_ended():
    """As one of a vL3 that is registered elsewhere, and requests wires to the others."""
    seen = view({**WIRE, "client": "far@sky", "path": ["far@sky", "nsmgr-c", "hub@sky"], "state": "DOWN"})
    far = next(each for each in seen.processes if each.name == "far")
    far.what = replace(far.what, environment={"NSM_NAME": "far@sky"})
    assert wire_of(seen)["client"] == "far"
    far.status = -9
    assert wire_of(seen)["reason"].startswith("the client ")


def test_a_breakout_says_where_it_leaves_the_node_and_an_end_that_nobody_has_is_left_out():
    breakout = {"mechanism": "VLAN", "parameters": {"interface": "gw-1.100"}}
    wire = {**WIRE, "src_ips": ["10.0.0.1/24"], "dst_ips": [], "tunnel": breakout, "path": ["shop", "far"]}
    seen = view(wire)
    seen = replace(
        seen,
        topology=replace(seen.topology, uplinks=(Uplink("gw-1", ("a", "b")),)),
        managers=NONE | {"a": Known(wires={"shop-0": wire})},
    )
    lines = tree(describe(seen))
    assert "uplink gw-1  mtu 1500  a, b" in lines
    (line,) = (line for line in lines if "nsm-1" in line)
    assert "KERNEL over VLAN" in line
    assert line.endswith("web at far  10.0.0.1/24  shop → far")


def test_a_cut_on_the_way_between_two_nodes_of_a_wire_is_its_cause_in_whichever_direction():
    """Also at a node between them; a cut elsewhere is not."""
    for port in (("10.1.0.0/24", "a"), ("10.1.0.0/24", "b"), ("10.2.0.0/24", "b"), ("10.2.0.0/24", "c")):
        wire = wire_of(view(cut={port}))
        assert wire["state"] == "DOWN"
        assert wire["reason"] == f"a and c cannot reach each other: {port[1]} is cut from link {port[0]}"
    near = {**WIRE, "path": ["shop", "nsmgr-a", "forwarder-a"]}
    assert wire_of(view(near, cut={("10.2.0.0/24", "c")}))["state"] == "UP"


def test_who_ended_is_the_cause_of_a_wire_that_is_down():
    down = {**WIRE, "state": "DOWN"}
    assert wire_of(view(down, ended={"forwarder-c"}))["reason"] == "forwarder-c ended with -9"
    assert wire_of(view(down, ended={"shop", "far"}))["reason"] == "the client ended with -9"
    assert "reason" not in wire_of(view(ended={"nsmgr-b"}))
    assert tree(describe(view(down, ended={"far"})))[7].endswith("web at far  because far ended with -9")


def test_a_client_that_is_not_in_the_file_stands_in_the_tree_below_its_node():
    """Somebody started it in a workload: the JSON shows its wire too."""
    foreign = {**WIRE, "client": "guest", "path": ["guest", "nsmgr-c", "forwarder-c", "far"]}
    seen = view()
    seen = replace(seen, managers={**seen.managers, "c": Known(wires={"guest-0": foreign})})
    lines = tree(describe(seen))
    place = lines.index("c 10.2.0.2")
    assert [line.split()[1] for line in lines[place + 1 :]] == ["nsmgr-c", "forwarder-c", "far", "guest", "nsm-1"]
    assert lines[-2].split() == ["└─", "guest", "-", "-", "-", "not", "in", "the", "file"]
    assert "web at far" in lines[-1]
