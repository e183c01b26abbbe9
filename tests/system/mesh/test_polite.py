"""What a client has after its endpoint died and another one took its place, in real namespaces (heal facts 11)."""

import pytest

from .conftest import until

pytestmark = pytest.mark.system

POLICIES = """
- {from: 172.16.2.201/24, proto: 6, dstport: 6666, routes: [{prefix: 172.16.3.0/24, nexthop: 172.16.2.200}]}
- {from: 172.16.2.201/24, proto: 6, srcport: 5555}
- {proto: 17, dstport: 6666}
- {proto: 17, dstport: 6667-6670}
- {from: "2004::3/120", proto: 17, dstport: 5555, routes: [{prefix: "2004::5/120", nexthop: "2004::6"}]}
"""
FIRST = """
nodes: [{{name: node-1}}]
clients: [{{name: client, node: node-1, wires: ["kernel://pbr/nsm-1"]}}]
endpoints:
  - {{name: one, node: node-1, services: [pbr], payload: ETHERNET, prefixes: [172.16.1.100/31], {environment}}}
"""
BOTH = f"""{FIRST.rstrip()}
  - {{{{name: two, node: node-1, services: [pbr], payload: ETHERNET, prefixes: [172.16.1.102/31], {{environment}}}}}}
"""
CHECKS = [
    ("-4", "172.16.3.1 from 172.16.2.201 ipproto tcp dport 6666", "via 172.16.2.200 dev nsm-1 table 1"),
    ("-4", "172.16.3.1 from 172.16.2.201 ipproto tcp sport 5555", "dev nsm-1 table 2"),
    ("-4", "172.16.4.1 ipproto udp dport 6666", "172.16.4.1 dev nsm-1 table 3 src 172.16.1.101"),
    ("-4", "172.16.4.1 ipproto udp dport 6668", "172.16.4.1 dev nsm-1 table 4 src 172.16.1.101"),
    ("-6", "2004::5 from 2004::3 ipproto udp dport 5555", "via 2004::6 dev nsm-1 table 5 src 2004::3"),
]


def addresses(mesh):
    lines = mesh.run("client", "ip", "-o", "-4", "address", "show", "dev", "nsm-1", code=None).stdout.splitlines()
    return [line.split()[3] for line in lines]


def routes(mesh):
    asked = "; ".join(f"ip {family} route get {question}" for family, question, _ in CHECKS)
    return [line for line in mesh.run("client", "sh", "-c", asked).stdout.splitlines() if " table " in line]


def pings(mesh, workload, source, target):
    command = ["ping", "-n", "-c", "1", "-W", "2", "-I", source, target]
    return "1 received" in mesh.run(workload, *command, code=None).stdout


def test_cases_11_and_12_a_healed_client_keeps_its_first_address_and_its_policy_routes_their_tables(mesh, tmp_path):
    """The next endpoint's address is appended; packets without a source have the first one."""
    (tmp_path / "policies.yaml").write_text(POLICIES)
    topology = tmp_path / "mesh.yaml"
    environment = f"environment: {{NSM_PBR_CONFIG_PATH: {tmp_path}/policies.yaml}}"
    for text in (FIRST, BOTH):
        topology.write_text(text.format(environment=environment))
        mesh.up("-f", str(topology))
    assert addresses(mesh)[0] == "172.16.1.101/32"
    before = routes(mesh)
    mesh.nsm("kill", "one", "--namespaces")
    assert until(lambda: "172.16.1.103/32" in addresses(mesh))
    assert addresses(mesh)[:2] == ["172.16.1.101/32", "172.16.1.103/32"]
    assert pings(mesh, "client", "172.16.1.103", "172.16.1.102")
    assert pings(mesh, "two", "172.16.1.102", "172.16.1.103")
    after = routes(mesh)
    assert len(after) == len(before) == len(CHECKS)
    for line, (_, _, expected) in zip(after, CHECKS, strict=True):
        assert expected in line
