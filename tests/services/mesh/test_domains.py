"""Domains of a topology file: what a person can write, how each fault is told, and what runs where."""

import json

import jsonschema
import pytest
import yaml

from nsm.mesh.demo import demo_topology
from nsm.mesh.plan import entries, plan
from nsm.mesh.rundir import RunDir
from nsm.mesh.topology import TopologyError, parse, schema

WHOLE = """
domains:
  - {name: my.one, nodes: [node-1, node-2]}
  - {name: my.two, nodes: [node-3], admits: [{domain: my.one, services: [web]}]}
  - {name: my.sky, nodes: [node-4], floating: true}
nodes: [{name: node-1}, {name: node-2}, {name: node-3}, {name: node-4}]
links: [{nodes: [node-1, node-2, node-3, node-4], network: 172.16.1.0/24}]
endpoints:
  - {name: web, node: node-3, services: [web]}
  - {name: high, node: node-3, services: [far@my.sky]}
  - {name: near, node: node-1, services: [near]}
clients:
  - {name: shop, node: node-2, wires: [kernel://web@my.two/a, kernel://far@my.sky/b, kernel://near/c]}
"""
FAULTS = [
    ("name: my.one", "name: My.one", "3: domain 'My.one': expected a name of DNS such as my.cluster1"),
    ("name: my.two", "name: my.one", "4: the domain 'my.one' is given twice, first in line 3"),
    ("nodes: [node-1, node-2]", "nodes: []", "3: the key 'nodes' is missing or empty"),
    ("nodes: [node-1, node-2]", "nodes: [node-1]", "6: node 'node-2' is of no domain; name it under 'domains'"),
    ("nodes: [node-3],", "nodes: [node-3, node-1],", "4: node 'node-1' is of domain 'my.one' already"),
    ("nodes: [node-4]", "nodes: [node-4, node-9]", "5: there is no node 'node-9'"),
    ("floating: true", "floating: yes please", "5: expected true or false"),
    ("domain: my.one", "domain: my.none", "4: there is no domain 'my.none'; there are my.one, my.two, my.sky"),
    ("services: [web]}]", 'services: ["web@my.two"]}]', "4: service 'web@my.two': expected its name in this domain"),
    ("web@my.two/a", "web/a", "13: no endpoint of this file provides the service 'web'"),
    ("web@my.two/a", "wep@my.two/a", "did you mean 'web@my.two'?"),
    ("web@my.two/a", "near@my.two/a", "no endpoint of this file provides the service 'near@my.two'"),
    ("near, node: node-1", "near, node: node-4", "'near' cannot be on node 'node-4': its domain is floating"),
    ("name: near,", "name: nsmgr-proxy,", "the name 'nsmgr-proxy' is reserved for the mesh's nsmgr-proxy"),
]


def test_a_whole_file_is_read_and_is_what_the_schema_says():
    topology = parse(WHOLE, "mesh.yaml")
    one, two, sky = topology.domains
    assert (one.first, one.admits, one.is_floating) == ("node-1", None, False)
    assert (two.nodes, two.admits) == (("node-3",), {"my.one": ("web",)})
    assert sky.is_floating
    assert [node.name for node in topology.managed] == ["node-1", "node-2", "node-3"]
    jsonschema.validate(yaml.safe_load(WHOLE), json.loads(schema()))


@pytest.mark.parametrize(("before", "after", "told"), FAULTS)
def test_a_fault_is_told_with_its_line(before, after, told):
    assert before in WHOLE
    with pytest.raises(TopologyError) as raised:
        parse(WHOLE.replace(before, after, 1), "mesh.yaml")
    assert told in str(raised.value)


def planned(topology):
    run = RunDir.of("test")
    return run, {part.name: part for part in plan(run, topology, {})}


def test_each_domain_has_components_and_identities_of_its_own_and_a_floating_one_only_a_registry():
    topology = parse(WHOLE, "mesh.yaml")
    run, parts = planned(topology)
    own = {"nsmgr-proxy", "registry-proxy", "registry", "identity"}
    of = {each.name: {part.command for part in parts.values() if part.domain == each.name} for each in topology.domains}
    assert own | {"dns-server", "nsmgr", "forwarder-kernel", "nse", "nsc", "view"} == of["my.one"]
    assert own | {"nsmgr", "forwarder-kernel", "nse"} == of["my.two"]
    assert of["my.sky"] == {"registry", "identity"}
    assert parts["nsmgr-node-2"].identity == "spiffe://my.one/node-2/nsmgr"
    assert parts["high"].environment["NSM_NAME"] == "high@my.sky"
    registry = parts["registry-node-3"].environment
    assert registry["NSM_PROXY_REGISTRY_URL"] == "tcp://172.16.1.3:5004"
    assert registry["NSM_ADMITTED_DOMAINS"] == "my.one=web"
    assert "NSM_PROXY_REGISTRY_URL" not in parts["registry-node-4"].environment
    assert parts["registry-node-4"].environment["NSM_ADMITTED_DOMAINS"] == "my.one=*,my.two=*"
    texts = [entries(run, topology, [*parts.values()], domain) for domain in topology.domains]
    assert ["/operator\n" in text for text in texts] == [True, True, True]
    assert all(text.count("spiffe://") == text.count(f"spiffe://{name}/") for text, name in zip(texts, of, strict=True))


def test_a_mesh_without_domains_has_no_proxies_and_trusts_nobody_else():
    _, parts = planned(parse("nodes: [{name: node-1}]", "mesh.yaml"))
    assert {part.command for part in parts.values()} == {"identity", "registry", "nsmgr", "forwarder-kernel", "view"}
    assert "NSM_FEDERATED_BUNDLES" not in parts["identity"].environment
    assert (
        parts["nsmgr-node-1"].environment["NSM_MONITOR_VIEWERS"]
        == "spiffe://local.mesh/operator,spiffe://local.mesh/view"
    )
    assert "proxy" not in parts["nsmgr-node-1"].environment["NSM_INTERMEDIARIES"]


def test_the_demo_of_three_domains_leads_from_the_first_to_the_last():
    topology = demo_topology(1, 3)
    assert [domain.nodes for domain in topology.domains] == [("node-1",), ("node-2",), ("node-3",)]
    assert topology.clients[0].wires == ("kernel://icmp-responder@my.domain3/nsm-1",)
    assert topology.endpoints[0].node == "node-3"
