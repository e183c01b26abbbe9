"""What is absent ends nothing that lives: real processes, with tokens of two seconds."""

import os
import signal
import time

import pytest

pytestmark = pytest.mark.system

LIFETIME = 2
SHORT = f"environment: {{NSM_MAX_TOKEN_LIFETIME: {LIFETIME}s}}"
TOPOLOGY = f"""
nodes:
  - name: node-1
    manager: {{{SHORT}}}
    forwarder: {{{SHORT}}}
endpoints:
  - {{name: endpoint, node: node-1, services: [icmp], payload: IP, prefixes: [10.1.0.0/24], {SHORT}}}
clients:
  - {{name: client, node: node-1, wires: ["kernel://icmp/nsm-1"], {SHORT}}}
"""


def link(mesh):
    """The client's interface: its index and addresses."""
    return mesh.run("client", "ip", "-o", "addr", "show", "dev", "nsm-1").stdout.splitlines()


def ping(mesh):
    return "1 received" in mesh.run("client", "ping", "-n", "-c", "1", "-W", "1", "10.1.0.0", code=None).stdout


def test_a_wire_stands_while_its_manager_and_the_registry_are_away_for_longer_than_tokens_live(mesh, tmp_path):
    """The forwarder lives and could take it away: it has nobody to ask, and keeps it."""
    topology = tmp_path / "mesh.yaml"
    topology.write_text(TOPOLOGY)
    mesh.up("-f", str(topology))
    before, pids = link(mesh), mesh.pids()
    for name in ("nsmgr-node-1", "registry-node-1"):
        os.kill(pids[name], signal.SIGKILL)
    time.sleep(2 * LIFETIME)  # that nothing happens in it is what is to be seen
    assert link(mesh) == before
    assert ping(mesh)
    assert mesh.nsm("logs", "forwarder-node-1").stdout.count("cannot be reached: packets go on") == 1
