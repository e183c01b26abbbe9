"""Two domains as real processes with real packets: wires between them live on when components of either end."""

import signal

import pytest

from nsm.mesh.control import ask
from nsm.mesh.rundir import RunDir

from .conftest import until

pytestmark = pytest.mark.system

TWO_DOMAINS = """
domains:
  - {name: my.one, nodes: [node-1]}
  - {name: my.two, nodes: [node-2]}
nodes: [{name: node-1}, {name: node-2}]
links: [{nodes: [node-1, node-2], network: 172.16.1.0/24}]
endpoints:
  - {name: first, node: node-2, services: [shop], payload: ETHERNET, prefixes: [10.1.0.0/24]}
  - {name: second, node: node-2, services: [shop], payload: ETHERNET, prefixes: [10.2.0.0/24]}
clients:
  - {name: client, node: node-1, wires: ["kernel://shop@my.two/nsm-1"]}
"""
PARTS = ("nsmgr-proxy", "registry-proxy", "registry", "nsmgr", "forwarder")


def restart(mesh, name):
    run = RunDir.of(mesh.name)
    ask(run, {"command": "kill", "component": name, "signal": signal.SIGKILL})
    ask(run, {"command": "start", "components": [name]})


def pings(mesh):
    wire = mesh.wire("client")
    if wire["state"] != "UP" or not wire["dst_ips"]:
        return False
    address = wire["dst_ips"][0].partition("/")[0]
    return mesh.run("client", "ping", "-c", "1", "-W", "1", address, code=None).returncode == 0


def test_a_wire_between_domains_lives_on_when_each_component_of_either_and_its_endpoint_die(mesh):
    mesh.up("-f", "/dev/stdin", input=TWO_DOMAINS)
    assert pings(mesh)
    for node in ("node-1", "node-2"):
        for part in PARTS:
            restart(mesh, f"{part}-{node}")
            assert until(lambda: pings(mesh), 10), f"after {part}-{node}: {mesh.wire('client')}"
    before = mesh.wire("client")["endpoint"]
    mesh.nsm("kill", before.partition("@")[0], "--namespaces")
    assert until(lambda: mesh.wire("client")["endpoint"] not in ("", before) and pings(mesh), 15), mesh.wire("client")
