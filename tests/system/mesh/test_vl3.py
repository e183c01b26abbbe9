"""A vL3 over two nodes: real processes, real packets, and what is left of it when parts of it die."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system.vl3 import addresses, silent, unreached

from .conftest import local_mesh, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

EXAMPLE = Path(__file__).parents[3] / "examples" / "vl3.yaml"
NAMES = [f"{name}.office" for name in ("alice", "bob", "carol", "dave")]


@pytest.fixture(scope="module")
def vl3():
    """The mesh of the example, in which each test restores what it breaks."""
    with local_mesh() as mesh:
        mesh.up("-f", str(EXAMPLE))
        assert until(lambda: not unreached(mesh, names=NAMES), 20), unreached(mesh, names=NAMES)
        yield mesh


def endpoints(mesh):
    """Of each client."""
    clients = addresses(mesh)
    return {each["client"]: each["endpoint"] for each in mesh.status()["wires"] if each["client"] in clients}


def test_every_client_reaches_every_other_one_and_every_endpoint_in_both_families(vl3):
    found = addresses(vl3)
    assert [len(found[name]) for name in ("alice", "bob", "carol", "dave")] == [2, 2, 2, 2]
    assert not unreached(vl3)
    for own in ("172.16.0.0", "172.16.1.0", "2001:db8::", "2001:db8:0:1::"):
        assert not silent(vl3, "alice", [own]) | silent(vl3, "dave", [own])


def test_every_client_is_found_by_its_full_and_its_short_name_and_by_its_address(vl3):
    for client, other in (("alice", "bob"), ("alice", "dave"), ("dave", "bob")):
        (four,), (six,) = ([each for each in addresses(vl3)[other] if mark in each] for mark in (".", ":"))
        lookup = f"getent ahostsv4 {other}.office; getent ahostsv6 {other}; getent hosts {four}; getent hosts {six}"
        lines = vl3.run(client, "sh", "-c", lookup).stdout.splitlines()
        found = {tuple(line.split()[:1]) for line in lines}
        assert {(four,), (six,)} <= found
        assert [line.split()[1] for line in lines[-2:]] == [f"{other}.office"] * 2


def test_what_nobody_has_is_unreachable_and_not_sent_elsewhere(vl3):
    for address in ("172.16.0.200", "172.16.77.1", "2001:db8:0:77::1"):
        said = vl3.run("alice", "ping", "-n", "-c", "1", "-W", "2", address, code=None).stdout
        assert "nreachable" in said or "No route" in said, said


def test_the_whole_network_has_one_mtu(vl3):
    links = [vl3.run(name, "ip", "link", "show", "nsm-1").stdout for name in ("alice", "bob", "carol", "dave")]
    (mtu,) = {text.partition("mtu ")[2].split()[0] for text in links}
    size = int(mtu) - 28
    other = next(each for each in addresses(vl3)["dave"] if "." in each)
    vl3.run("alice", "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", str(size), other)


def test_packets_pass_while_an_endpoint_restarts_and_its_clients_keep_their_addresses(vl3):
    before = addresses(vl3)
    for name in ("office-1", "office-2"):
        vl3.nsm("kill", name)
        assert not unreached(vl3)
        vl3.nsm("start", name)
        assert until(lambda: not unreached(vl3, names=NAMES), 10), unreached(vl3, names=NAMES)
    assert addresses(vl3) == before


def test_clients_of_an_endpoint_that_dies_move_to_another_one_and_reach_everybody(vl3):
    gone = endpoints(vl3)["alice"]
    (left,) = {"office-1", "office-2"} - {gone}
    moving = [name for name, endpoint in endpoints(vl3).items() if endpoint == gone]
    vl3.nsm("kill", gone, "--namespaces")
    assert until(lambda: set(endpoints(vl3).values()) == {left} and not unreached(vl3, names=NAMES), 20)
    vl3.nsm("start", gone)
    assert until(lambda: len(addresses(vl3)[""]) == 2 and not unreached(vl3, names=NAMES), 20)
    vl3.nsm("kill", moving[0], "--namespaces")
    vl3.nsm("start", moving[0])
    assert until(lambda: len(endpoints(vl3)) == 4 and not unreached(vl3, names=NAMES), 20)


def test_an_endpoint_that_dies_while_it_heals_its_own_wire_is_gone_for_its_clients_too(vl3):
    """Nobody keeps its namespace open, which would go on answering their pings."""
    (between,) = [each for each in vl3.status()["wires"] if each["client"] in ("office-1", "office-2")]
    namespace = f"net:[{Path('/proc', str(vl3.pid(between['client'])), 'ns/net').stat().st_ino}]"
    vl3.nsm("kill", between["endpoint"], "--namespaces")
    assert until(lambda: vl3.wire(between["client"])["state"] != "UP", 5)
    vl3.nsm("kill", between["client"], "--namespaces")
    assert until(lambda: not holders(vl3, namespace), 2), holders(vl3, namespace)
    vl3.nsm("start", "office-1", "office-2")
    assert until(lambda: len(endpoints(vl3)) == 4 and not unreached(vl3, names=NAMES), 20)


def holders(mesh, file):
    """The processes that have it open."""
    found = set()
    for process in mesh.processes():
        with suppress(OSError):
            found |= {process for each in Path(f"/proc/{process}/fd").iterdir() if os.readlink(each) == file}
    return found


def test_the_prefix_service_may_be_away_and_a_restarted_endpoint_gets_its_prefix_again(vl3):
    before = addresses(vl3)
    vl3.nsm("kill", "ipam-node-1")
    vl3.nsm("kill", "office-2")
    vl3.nsm("start", "ipam-node-1")
    vl3.nsm("start", "office-2")
    assert until(lambda: not unreached(vl3, names=NAMES), 10), unreached(vl3, names=NAMES)
    assert addresses(vl3) == before


def test_a_forwarder_that_dies_takes_no_packet_and_no_address_along(vl3):
    before = addresses(vl3)
    vl3.nsm("kill", "forwarder-node-1")
    assert not unreached(vl3)
    vl3.nsm("start", "forwarder-node-1")
    assert until(lambda: not unreached(vl3, names=NAMES), 10)
    assert addresses(vl3) == before


IPV6 = """
nodes: [{name: node-1}]
vl3: ["2001:db8::/32"]
endpoints:
  - {name: one, node: node-1, services: [six], runs: nse-vl3}
  - {name: two, node: node-1, services: [six], runs: nse-vl3}
clients:
  - {name: a, node: node-1, wires: ["kernel://six/nsm-1"]}
  - {name: b, node: node-1, wires: ["kernel://six/nsm-1"]}
"""


def test_a_network_of_ipv6_alone(mesh):
    mesh.up("-f", "/dev/stdin", input=IPV6)
    assert until(lambda: not unreached(mesh), 20), unreached(mesh)
    assert all(":" in each for own in addresses(mesh).values() for each in own)


def test_a_network_over_two_domains_outlives_an_endpoint_of_either(mesh):
    mesh.up("-f", str(EXAMPLE.with_name("vl3-over-domains.yaml")))
    names = ["alice.office.my.sky", "dave.office.my.sky"]
    assert until(lambda: not unreached(mesh, names=names), 20), unreached(mesh, names=names)
    gone = endpoints(mesh)["alice"]
    mesh.nsm("kill", gone.removesuffix("@my.sky"), "--namespaces")
    assert until(lambda: gone not in endpoints(mesh).values() and not unreached(mesh, names=names), 20)


def test_endpoints_run_where_clients_are_and_wires_between_them_keep_none_alive(mesh):
    mesh.up("-f", str(EXAMPLE.with_name("vl3-on-demand.yaml")))
    names = ["alice.office", "dave.office"]
    assert until(lambda: not unreached(mesh, names=names), 20), unreached(mesh, names=names)
    assert endpoints(mesh) == {"alice": "office-1", "dave": "office-2"}
    assert {each["client"] for each in mesh.status()["wires"]} <= {"alice", "dave", "office-1", "office-2"}
    mesh.nsm("kill", "--signal", "TERM", "dave")
    states = lambda: {each["name"]: each["state"] for each in mesh.status()["components"]}  # noqa: E731
    assert until(lambda: states()["office-2"] == "ended with 0", 10), states()
    assert (states()["office-1"], states()["supplier"]) == ("ready", "ready")
    mesh.nsm("start", "dave")
    assert until(lambda: not unreached(mesh, names=names), 20), unreached(mesh, names=names)
