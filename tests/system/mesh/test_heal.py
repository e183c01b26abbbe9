"""Clients of a local mesh whose endpoint, link or components go away: real processes, real packets."""

import pytest

from .conftest import until

pytestmark = pytest.mark.system

TWO_ENDPOINTS = """
nodes: [{name: node-1}]
services:
  - name: answers
    payload: IP
    matches:
      - {fallthrough: true, routes: [{destination_selector: {rank: first}}]}
      - routes: [{destination_selector: {}}]
endpoints:
  - {name: one, node: node-1, services: [answers], payload: IP, labels: {rank: first}, prefixes: [10.1.0.0/24]}
  - {name: two, node: node-1, services: [answers], payload: IP, prefixes: [10.2.0.0/24]}
clients:
  - {name: client, node: node-1, wires: ["kernel://answers/nsm-1"]}
"""


def pings(mesh, address):
    return mesh.run("client", "ping", "-c", "1", "-W", "1", address, code=None).returncode == 0


def index(mesh):
    return mesh.run("client", "ip", "-o", "link", "show", "nsm-1").stdout.partition(":")[0]


def test_a_wire_heals_when_its_endpoint_its_manager_and_its_link_break_in_turn(mesh):
    """It moves to the other endpoint, stays as it is, and carries packets again.

    The other one is selected only if the first is not registered: its record ends with its process.
    """
    mesh.up("-f", "/dev/stdin", input=TWO_ENDPOINTS)
    first = mesh.wire("client")["endpoint"]
    mesh.nsm("kill", first, "--namespaces")
    assert until(lambda: mesh.wire("client")["state"] == "UP" and mesh.wire("client")["endpoint"] != first, 5)
    address = {"one": "10.1.0.0", "two": "10.2.0.0"}[mesh.wire("client")["endpoint"]]
    assert until(lambda: pings(mesh, address), 5)
    before = index(mesh)
    mesh.nsm("kill", "nsmgr-node-1")
    mesh.nsm("start", "nsmgr-node-1")
    assert until(lambda: mesh.wire("client")["state"] == "UP", 10)
    assert (index(mesh), pings(mesh, address)) == (before, True)
    mesh.run("client", "ip", "link", "set", "nsm-1", "down")
    assert until(lambda: pings(mesh, address), 10)
