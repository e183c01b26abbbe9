"""The topology file: what a person can write, and how each fault is told; the published schema says the same."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from nsm.chains.model.vlans import VlanService
from nsm.mesh.cli import main
from nsm.mesh.model import Uplink
from nsm.mesh.topology import DEFAULT, TopologyError, parse, schema

WHOLE = """
# Everything that the file can say;
# the lines are counted by the tests below.
nodes:
  - name: node-1
    forwarder: {labels: {rack: a}, environment: {NSM_DIAL_TIMEOUT: 1s}}
    manager: {environment: {NSM_DIAL_TIMEOUT: 2s}}
  - {name: node-2}
  - {name: node-3}
links:
  - {nodes: [node-1, node-2], network: 172.16.1.0/24, mtu: 9000}
  - {nodes: [node-2, node-3], network: 172.16.2.0/30}
services:
  - name: web
    payload: ETHERNET
    matches:
      - source_selector: {app: shop}
        routes: [{destination_selector: {tier: gold}, weight: 2}, {destination_selector: {tier: iron}}]
        fallthrough: true
      - metadata: {labels: {rack: a}}
endpoints:
  - {name: gold, node: node-3, services: [web, mail], labels: {tier: gold, level: 1}, prefixes: [10.1.0.0/24, "fd00::/120"]}
  - {name: own, node: node-1, command: [python, own.py], environment: {OWN: yes}}
  - {name: gate, node: node-2, vlans: [{service: blue, via: gw-1, vlan: 100}, {service: plain, via: gw-1}], labels: {a: b}}
clients:
  - {name: shop, node: node-1, wires: ["kernel://web/nsm-1?a=b", kernel://mail], labels: {app: shop}, environment: {NSM_DIAL_TIMEOUT: 9s}}
uplinks:
  - {via: gw-1, nodes: [node-1, node-3], mtu: 1400}
"""
SHAPE = [
    ("name: node-2", "name: Node_2", "8: name 'Node_2': expected up to 30 of a-z, 0-9 and -"),
    (
        "name: node-2",
        "nam: node-2",
        "8: unknown key 'nam' in a node; there are forwarder, manager, name; did you mean 'name'?",
    ),
    (
        "destination_selector: {tier: iron}",
        "destinationSelector: {tier: iron}",
        "18: unknown key 'destinationSelector' in a route; there are destination_selector, weight; did you mean 'dest",
    ),
    ("name: node-2", "name: node-2, forwarder: ovs", "8: forwarder 'ovs': expected kernel or vpp"),
    ("name: node-2", "name: node-2, forwarder: []", "8: a node needs a forwarder; leave the key out for the kernel's"),
    ("name: node-2}", "name: node-2, name: x}", "8: the key 'name' is given twice in a node"),
    ("{name: node-2}", "node-2", "8: a node must be a mapping with the keys forwarder, manager, name"),
    ("name: node-2", "name: 17", "8: expected a text; write '17' with quotes"),
    ("mtu: 9000", "mtu: 12", "11: MTU '12': expected a number from 68 to 65535"),
    ("mtu: 9000", "mtu: 65536", "11: MTU '65536': expected a number"),
    ("mtu: 9000", "mtu: large", "11: MTU 'large': expected a number"),
    (", network: 172.16.2.0/30", "", "12: the key 'network' is missing"),
    ("172.16.2.0/30", "everywhere", "12: 'everywhere' is not a network; expected one such as 172.16.1.0/24"),
    ("[node-2, node-3]", "[node-2]", "12: the link connects 'node-2' to no other node"),
    ("[node-2, node-3]", "[node-2, node-3, node-3]", "12: the link connects 'node-3' to itself"),
    ("[node-2, node-3]", "[]", "12: the key 'nodes' is missing or empty"),
    ("payload: ETHERNET", "payload: FRAMES", "15: payload 'FRAMES' is neither IP nor ETHERNET"),
    ("fallthrough: true", "fallthrough: perhaps", "19: expected true or false"),
    ("weight: 2", "weight: -1", "18: weight '-1': expected a number from 0"),
    ("weight: 2", "wait: 2", "18: unknown key 'wait' in a route; there are destination_selector, weight"),
    ("labels: {rack: a}}\n", "label: {}}\n", "20: unknown key 'label' in metadata; there are labels"),
    ("tier: gold, level", '"ti:er": gold, level', "22: label 'ti:er': 'gold': expected no comma"),
    ("tier: gold, level", 'tier: "gold,iron", level', "22: label 'tier': 'gold,iron': expected no comma"),
    ("level: 1", "level: [1]", "22: labels: expected a name and one value"),
    ("[web, mail]", "[]", "22: the key 'services' is missing or empty"),
    ("[web, mail]", '["web,mail"]', "22: service 'web,mail': expected a name without commas"),
    ("[10.1.0.0/24", "[10.1.0.0/24/24", "22: '10.1.0.0/24/24' is not a prefix"),
    ("[python, own.py]", "[]", "23: the key 'command' is missing or empty"),
    ("OWN: yes", "2OWN: yes", "23: '2OWN' is not the name of a variable"),
    ("OWN: yes", "NSM_NAME: other", "23: NSM_NAME is set by the mesh itself"),
    (", command: [python, own.py]", "", "23: the key 'services' is missing or empty"),
    ("kernel://mail", "mail", "26: 'mail' names no service"),
    ("kernel://mail", "'kernel://mail,kernel://web'", "26: 'kernel://mail,kernel://web' has a comma"),
    (
        "links:",
        "lynx:",
        "10: unknown key 'lynx' in the file; there are clients, domains, endpoints, links, nodes, services, up",
    ),
    ("clients:\n  - {name: shop", "clients:\n    other: {name: shop", "26: expected a list"),
    ("vlan: 100", "vlan: 4095", "24: VLAN '4095': expected a number from 0 to 4094"),
    ("vlan: 100", "vlan: -1", "24: VLAN '-1': expected a number from 0 to 4094"),
    (", via: gw-1, vlan: 100", ", vlan: 100", "24: the key 'via' is missing or empty"),
    ("service: blue, ", "", "24: the key 'service' is missing or empty"),
    ("service: blue", "service: blue sky", "24: service 'blue sky': its name and labels must not contain blanks"),
    ("vlan: 100", "tag: 100", "24: unknown key 'tag' in a VLAN; there are service, via, vlan"),
    ("labels: {a: b}}", "services: [web]}", "24: an endpoint with 'vlans' cannot have 'services'"),
    ("labels: {a: b}}", "command: [own]}", "24: an endpoint with 'vlans' cannot have 'command'"),
    ("labels: {a: b}}", "payload: ETHERNET}", "24: an endpoint with 'vlans' cannot have 'payload'"),
    ("[{service: blue, via: gw-1, vlan: 100}, {service: plain, via: gw-1}]", "[]", "24: the key 'vlans' is empty"),
    ("{via: gw-1, nodes", "{nodes", "28: via '': expected up to 15 of a-z, 0-9 and -"),
    (
        "{via: gw-1, nodes",
        "{via: eth0, nodes",
        "28: via 'eth0': expected up to 15 of a-z, 0-9 and -, and neither lo nor",
    ),
    ("[node-1, node-3]", "[]", "28: the key 'nodes' is missing or empty"),
    ("[node-1, node-3]", "[node-1, node-1]", "28: the uplink 'gw-1' names 'node-1' twice"),
    ("mtu: 1400", "mtu: 10", "28: MTU '10': expected a number from 68 to 65535"),
    ("mtu: 1400", "network: 10.0.0.0/8", "28: unknown key 'network' in an uplink; there are mtu, nodes, via"),
]
MEANING = [
    (
        "name: node-2",
        "name: node-2, forwarder: [vpp, {kind: vpp}]",
        "8: a second forwarder of kind 'vpp': a node has one of each kind",
    ),
    ("name: shop, node", "name: forwarder-vpp-node-1, node", "26: the name 'forwarder-vpp-node-1' is reserved for the"),
    ("name: node-2", "name: node-1", "8: the name 'node-1' is given twice, first in line 5"),
    ("name: shop, node: node-1", "name: gold, node: node-1", "26: the name 'gold' is given twice, first in line 22"),
    ("name: shop, node: node-1", "name: shop, node: node-9", "26: there is no node 'node-9'; there are node-1, node-2"),
    ("[node-2, node-3]", "[node-2, node-4]", "12: there is no node 'node-4'"),
    ("172.16.2.0/30", "172.16.2.0/32", "12: 172.16.2.0/32 is too small: it has 0 addresses for 2 nodes"),
    (
        "[node-2, node-3], network: 172.16.2.0/30",
        "[node-2, node-3, node-1], network: 172.16.2.0/31",
        "12: 172.16.2.0/31 is too small: it has 2 addresses for 3 nodes",
    ),
    ("172.16.2.0/30", "172.16.2.1/30", "12: '172.16.2.1/30' is an address within a network; write '172.16.2.0/30'"),
    ("172.16.2.0/30", "127.0.0.0/8", "12: '127.0.0.0/8' has no usable addresses for nodes"),
    (
        "[node-2, node-3], network: 172.16.2.0/30",
        "[node-3, node-2], network: 172.16.0.0/16",
        "12: 172.16.0.0/16 overlaps with 172.16.1.0/24 (line 11)",
    ),
    (
        "[node-2, node-3], network: 172.16.2.0/30",
        "[node-3, node-1], network: 172.16.1.0/28",
        "12: 172.16.1.0/28 overlaps with 172.16.1.0/24 (line 11): 'node-1' and 'node-3' would both be 172.16.1.1",
    ),
    ("172.16.2.0/30", '"fd00:2::/64"', "12: fd00:2::/64 and 172.16.1.0/24 (line 11) are of different families"),
    ("[node-2, node-3]", "[node-1, node-2]", "9: the other nodes cannot reach 'node-3': it has no link"),
    ("services: [web, mail]", "services: [web, mail], payload: IP", "payload IP, but the service 'web' has payload"),
    ("  - name: web\n", "  - {name: web}\n  - name: web\n", "15: the service 'web' is given twice, first in line 14"),
    ("[node-1, node-3]", "[node-1, node-9]", "28: there is no node 'node-9'; there are node-1, node-2"),
    ("vlan: 100", "vlan: 100}, {service: blue, via: gw-1", "24: the service 'blue' is given twice"),
    (
        "services:\n  - name: web\n",
        "services:\n  - {name: plain, payload: IP}\n  - name: web\n",
        "25: payload ETHERNET, but the service 'plain' has payload IP",
    ),
    ("service: blue, via: gw-1", "service: blue, via: gw-9", "24: there is no uplink 'gw-9'; there are gw-1"),
    (
        "uplinks:\n",
        "uplinks:\n  - {via: gw-1, nodes: [node-2]}\n",
        "29: the uplink 'gw-1' is given twice, first in line 28",
    ),
    (
        "labels: {a: b}}",
        "labels: {a: b&c}}",
        "24: service 'blue': its name and labels must not contain blanks or any",
    ),
]


CLOSED = """
nodes: [{name: n}]
endpoints:
  - {name: e, node: n, services: [web, mail], environment: {ENV}}
clients:
  - {name: c, node: n, wires: [WIRE], environment: {CENV}}
"""


@pytest.mark.parametrize(
    ("wire", "told"),
    [
        ("kernel://wep", "6: no endpoint of this file provides the service 'wep'; did you mean 'web'?"),
        ("kernel://nothing", "6: no endpoint of this file provides the service 'nothing'; there are mail, web"),
        ("kernel://web@far.example", "6: no endpoint of this file provides the service 'web@far.example'; there are"),
        ("vxlan://web", "6: mechanism vxlan is not supported by this client; use kernel:// or memif://"),
        ("vfio://web", "6: mechanism vfio is not supported by this client; use kernel:// or memif://"),
        ("'kernel://web?app'", "6: 'kernel://web?app': label 'app' has no =; expected ?label=value&label=value"),
        ("kernel://web/lo", "6: 'lo' is a name that the kernel reserves; choose another, such as nsm-1"),
        ("kernel://web/all", "6: 'all' is not an interface name; choose another, such as nsm-1"),
        ("kernel://web/default", "6: 'default' is not an interface name"),
        ('"kernel://web/nsm-1", "kernel://mail/nsm-1"', "6: interface 'nsm-1' is requested twice"),
    ],
)
def test_a_wire_that_can_never_be_is_told_before_anything_is_started(wire, told):
    """Not after two minutes."""
    text = CLOSED.replace("WIRE", wire).replace("CENV", "").replace("ENV", "")
    assert f"mesh.yaml:{told}" in faults(text)


def test_what_a_program_of_one_s_own_provides_is_not_known_before_it_runs():
    text = CLOSED.replace("WIRE", "kernel://else").replace("CENV", "").replace("ENV", "")
    assert parse(text.replace("services: [web, mail]", "command: [own]"), "m").clients
    assert parse(text.replace("environment: {}}\nclients", "environment: {NSM_SERVICE_NAMES: else}}\nclients"), "m")


@pytest.mark.parametrize(
    ("endpoint", "client", "told"),
    [
        ("NSM_IPAM_POLCY: strict", "", "4: NSM_IPAM_POLCY is not a variable of nsm nse; did you mean NSM_IPAM_POLICY?"),
        (
            "NSM_NETWORK_SERVICE: web",
            "",
            "4: NSM_NETWORK_SERVICE is not a variable of nsm nse; did you mean NSM_SERVICE_NAMES?",
        ),
        (
            "NSM_NETWORK_SERVICES: web",
            "",
            "4: NSM_NETWORK_SERVICES is not a variable of nsm nse; did you mean NSM_SERVICE_NA",
        ),
        (
            "",
            "NSM_SERVICE_NAMES: web",
            "6: NSM_SERVICE_NAMES is not a variable of nsm nsc; did you mean NSM_NETWORK_SERV",
        ),
        ("NSM_COLOUR: red", "", "4: NSM_COLOUR is not a variable of nsm nse; `nsm nse --help` lists its variables"),
        ("", "nsm_log_level: DEBUG", "6: nsm_log_level is not a variable of nsm nsc; did you mean NSM_LOG_LEVEL?"),
        (
            "",
            "NSM_REQUEST_TIMEOUTS: 1s",
            "6: NSM_REQUEST_TIMEOUTS is not a variable of nsm nsc; did you mean NSM_REQUEST_TIMEOUT?",
        ),
    ],
)
def test_a_misspelt_variable_of_a_component_is_told_with_the_right_one(endpoint, client, told):
    text = CLOSED.replace("WIRE", "kernel://web").replace("CENV", client).replace("ENV", endpoint)
    assert f"mesh.yaml:{told}" in faults(text)


def test_variables_of_upstream_and_of_programs_of_one_s_own_are_no_faults():
    text = CLOSED.replace("WIRE", "kernel://web").replace("CENV", "NSM_VPP_INIT: NONE, OTHER: x")
    assert parse(text.replace("ENV", "NSM_POINT2POINT: yes"), "m")
    program = text.replace("services: [web, mail]", "command: [own]").replace("ENV", "NSM_COLOUR: red")
    assert parse(program, "m").endpoints[0].environment == {"NSM_COLOUR": "red"}


def changed(old, new):
    assert old in WHOLE
    return WHOLE.replace(old, new)


def faults(text):
    with pytest.raises(TopologyError) as caught:
        parse(text, "mesh.yaml")
    return str(caught.value)


def schema_refuses(text):
    data = yaml.load(text, Loader=yaml.BaseLoader if "given twice" in text else yaml.SafeLoader)
    return not jsonschema.Draft202012Validator(json.loads(schema())).is_valid(data)


def test_everything_that_can_be_written_is_read():
    topology = parse(WHOLE, "mesh.yaml")
    assert [node.name for node in topology.nodes] == ["node-1", "node-2", "node-3"]
    assert [(each.kind, each.labels) for each in topology.nodes[0].forwarders] == [("kernel", {"rack": "a"})]
    assert topology.nodes[0].manager_environment == {"NSM_DIAL_TIMEOUT": "2s"}
    assert [topology.address_of(node.name) for node in topology.nodes] == ["172.16.1.1", "172.16.1.2", "172.16.2.2"]
    assert [link.mtu for link in topology.links] == [9000, 1500]
    match = topology.services[0].matches[0]
    assert (match.fallthrough, [route.weight for route in match.routes], match.labels) == (True, [2, 0], None)
    assert topology.services[0].matches[1].labels == {"rack": "a"}
    assert topology.endpoints[0].labels == {"tier": "gold", "level": "1"}
    assert topology.endpoints[1].environment == {"OWN": "yes"}
    gate = topology.endpoints[2]
    assert (gate.services, gate.payload) == (("blue", "plain"), "ETHERNET")
    assert gate.vlans == (VlanService("blue", "gw-1", 100, {"a": "b"}), VlanService("plain", "gw-1", 0, {"a": "b"}))
    assert topology.uplinks == (Uplink("gw-1", ("node-1", "node-3"), 1400),)
    assert [workload.name for workload in topology.workloads] == ["gold", "own", "shop"]
    assert topology.clients[0].wires == ("kernel://web/nsm-1?a=b", "kernel://mail")


@pytest.mark.parametrize("text", [WHOLE, DEFAULT], ids=["whole", "built-in"])
def test_the_schema_accepts_what_is_read(text):
    assert not schema_refuses(text)


@pytest.mark.parametrize(("old", "new", "told"), SHAPE + MEANING, ids=[case[2][:60] for case in SHAPE + MEANING])
def test_a_fault_is_told_with_its_line(old, new, told):
    assert f"mesh.yaml:{told}" in faults(changed(old, new)) or f": {told}" in faults(changed(old, new))


@pytest.mark.parametrize(("old", "new", "told"), SHAPE, ids=[case[2][:60] for case in SHAPE])
def test_the_schema_refuses_what_has_a_wrong_shape(old, new, told):
    """All but keys that are given twice and prefixes in detail, which JSON schema cannot say."""
    if "given twice" in told or "is not a prefix" in told:
        return
    assert schema_refuses(changed(old, new))


@pytest.mark.parametrize(("old", "new", "told"), MEANING, ids=[case[2][:60] for case in MEANING])
def test_the_schema_leaves_meaning_to_the_reader(old, new, told):
    """Names that are unknown, addresses that overlap: an editor cannot know."""
    assert not schema_refuses(changed(old, new))


def test_all_faults_are_told_at_once_in_the_order_of_the_file():
    text = (
        changed("payload: ETHERNET", "payload: FRAMES")
        .replace("mtu: 9000", "mtu: 1")
        .replace("node: node-3", "node: x")
    )
    lines = [int(line.split(":")[1]) for line in faults(text).splitlines()]
    assert lines == [11, 15, 22]


def test_a_ring_of_links_is_no_fault_since_each_link_is_a_bridge_of_its_own():
    text = changed(
        "network: 172.16.2.0/30}", "network: 172.16.2.0/30}\n  - {nodes: [node-3, node-1], network: 10.0.0.0/29}"
    )
    assert len(parse(text, "mesh.yaml").links) == 3


def test_a_file_that_contains_itself_is_refused():
    """YAML can say that, with an alias."""
    text = "nodes:\n  - name: node-1\nservices:\n  - name: a\n    matches: &again\n      - routes: *again\n"
    assert faults(text) == "mesh.yaml:5: this contains itself through an alias"


def test_aliases_that_contain_no_circle_are_fine_and_take_no_time():
    """A billion of leaves by nine aliases."""
    bombs = "\n".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10))
    assert "unknown key 'bomb' in the file" in faults(f"bomb:\n  l0: &l0 [x]\n{bombs}\nnodes: [{{name: a}}]")
    shared = "nodes: [{name: a}]\nendpoints: [{name: e, node: a, services: [x]}]\nclients:\n - {name: b, node: a, wires: [kernel://x], labels: &l {q: r}}\n"
    assert parse(f"{shared} - {{name: c, node: a, wires: [kernel://x], labels: *l}}", "m").clients[1].labels == {
        "q": "r"
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "mesh.yaml:1: there are no nodes; describe at least one"),
        (
            "nodes",
            "mesh.yaml:1: the file must be a mapping with the keys clients, domains, endpoints, links, nodes, services",
        ),
        ("nodes: []", "there are no nodes; describe at least one"),
        ("{}", "there are no nodes; describe at least one"),
        ("nodes: [{name: a}", "mesh.yaml:1: "),
        ("nodes: [{name: a}]\n\x00", "mesh.yaml:1: "),
        ("? [a]\n: b", "unknown key that is not text"),
        ("[" * 3000, "mesh.yaml:1: "),
        ("nodes: [{name: !!python/name:os.system a}]", "mesh.yaml:1: expected a text"),
    ],
    ids=range(9),
)
def test_what_is_no_topology_at_all_is_refused(text, told):
    assert told in faults(text)


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    from nsm.mesh.topology import read

    for path, told in (
        (tmp_path / "no", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "b", "the file is not UTF-8 text"),
    ):
        if path.name == "b":
            Path(path).write_bytes(b"nodes: \xff")
        with pytest.raises(TopologyError, match=told):
            read(str(path))


def test_the_schema_is_published_by_a_command(capsys):
    assert main(["schema"]) == 0
    published = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(published)
    assert published["title"].startswith("A local mesh")


CHAIN = """
nodes: [{name: node-1}]
services:
  - {name: shop, matches: [{routes: [{destination_selector: {app: wall}}]}]}
endpoints:
  - {name: wall, node: node-1, services: [shop], labels: {app: wall}, runs: nse-firewall}
  - {name: later, node: node-1, services: [shop], on_demand: true}
  - {name: giver, node: node-1, services: [shop], runs: nse-supplier}
"""


def test_an_endpoint_says_which_component_provides_it_and_whether_it_waits():
    wall, later, giver = parse(CHAIN, "mesh.yaml").endpoints
    assert [each.runs for each in (wall, later, giver)] == ["nse-firewall", "nse", "nse-supplier"]
    assert [each.on_demand for each in (wall, later, giver)] == [False, True, False]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "runs: nse-firewall",
            "runs: firewall",
            "6: runs 'firewall': expected nse, nse-passthrough, nse-firewall, nse-s",
        ),
        (
            "labels: {app: wall}",
            "prefixes: [10.0.0.0/24]",
            "6: an endpoint that runs nse-firewall cannot have 'prefixes'",
        ),
        ("labels: {app: wall}", "on_demand: true", "6: an endpoint that runs nse-firewall cannot have 'on_demand'"),
        ("labels: {app: wall}", "command: [own]", "6: an endpoint that runs nse-firewall cannot have 'command'"),
        ("on_demand: true", "on_demand: soon", "7: expected true or false"),
    ],
)
def test_what_a_stage_cannot_have_is_told_by_reader_and_schema(old, new, told):
    text = CHAIN.replace(old, new)
    assert f"mesh.yaml:{told}" in faults(text)
    assert schema_refuses(text)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            ", matches: [{routes: [{destination_selector: {app: wall}}]}]",
            "",
            "6: nse-firewall needs the matches of the service 'shop', which select the next endpoint; describe it under",
        ),
        (", on_demand: true", "", "8: no endpoint of its services has 'on_demand': there is nothing to start"),
        (
            "runs: nse-firewall",
            "runs: nse-firewall, environment: {NSM_CIDR_PREFIX: 10.0.0.0/8}",
            "6: NSM_CIDR_PREFIX is not a variable of nsm nse-firewall",
        ),
    ],
)
def test_a_chain_without_an_order_and_a_supplier_without_supplies_are_told(old, new, told):
    assert f"mesh.yaml:{told}" in faults(CHAIN.replace(old, new))


VL3 = """
nodes: [{name: node-1}]
vl3: [172.16.0.0/16, "2001:db8::/32"]
endpoints: [{name: hub, node: node-1, services: [office], runs: nse-vl3}]
clients: [{name: shop, node: node-1, runs: lb-vl3, wires: ["kernel://office"], environment: {NSM_PORT: "80", NSM_SELECTOR: "a:b"}}]
"""


def test_a_vl3_and_a_balancer_in_it_are_read():
    topology = parse(VL3, "vl3.yaml")
    assert [str(network) for network in topology.vl3] == ["172.16.0.0/16", "2001:db8::/32"]
    assert (topology.endpoints[0].is_vl3, topology.clients[0].runs) == (True, "lb-vl3")
    jsonschema.validate(yaml.safe_load(VL3), json.loads(schema()))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('vl3: [172.16.0.0/16, "2001:db8::/32"]', "", "4: the key 'vl3' of the file is missing: the networks that"),
        ("172.16.0.0/16", "172.16.0.0/25", "3: 172.16.0.0/25 is too small: each endpoint gets a /24 of it"),
        ("172.16.0.0/16", "172.16.0.1/16", "3: '172.16.0.1/16' is an address within a network; write '172.16.0.0/16'"),
        ("nse-vl3", "nse-vl3, prefixes: [10.0.0.0/8]", "4: an endpoint that runs nse-vl3 cannot have 'prefixes'"),
        ("runs: nse-vl3", "runs: nse-vl4", "4: runs 'nse-vl4': expected nse, nse-passthrough, nse-firewall,"),
        ("runs: lb-vl3", "runs: lb", "5: runs 'lb': expected nsc or lb-vl3"),
        ("NSM_PORT", "NSM_PRT", "5: NSM_PRT is not a variable of nsm lb-vl3; did you mean NSM_PORT?"),
    ],
)
def test_a_fault_of_a_vl3_is_told_with_its_line(old, new, told):
    with pytest.raises(TopologyError) as error:
        parse(VL3.replace(old, new, 1), "vl3.yaml")
    assert told in str(error.value)
