"""Whole meshes with a real VPP: `make test-vpp`."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from nsm.mesh.rundir import RunDir
from tests.system.mesh.conftest import local_mesh

pytestmark = pytest.mark.system

TWO_FORWARDERS = """
nodes:
  - name: node-1
    forwarder: [{labels: {way: kernel}}, {kind: vpp, labels: {way: vpp}}]
services:
  - {name: plain, payload: IP, matches: [{metadata: {labels: {way: kernel}}}]}
  - {name: fast, payload: IP, matches: [{metadata: {labels: {way: vpp}}}]}
endpoints:
  - {name: endpoint, node: node-1, services: [plain, fast], payload: IP, prefixes: [10.0.0.0/24]}
clients:
  - {name: client, node: node-1, wires: ["kernel://plain/nsm-1", "kernel://fast/nsm-2"]}
"""


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def mesh():
    with local_mesh() as found:
        yield found


def logged(mesh, component):
    """What a component has logged."""
    return [json.loads(line) for line in RunDir.of(mesh.name).log_of(component).read_text().splitlines()]


def test_two_workloads_with_a_vpp_of_their_own_are_joined_by_shared_memory(mesh):
    """The example, as its comments say."""
    mesh.up("-f", str(EXAMPLES / "memif.yaml"))
    (socket,) = [entry["socket"] for entry in logged(mesh, "client") if entry["event"] == "memif ready"]
    words = [sys.executable, str(EXAMPLES / "memif_client.py"), socket, "10.60.0.1/32", "10.60.0.0/32"]
    assert "bytes from 10.60.0.0" in mesh.run("client", *words).stdout


def test_services_choose_one_of_two_forwarders_by_labels_and_no_client_heals_when_vpp_is_killed(mesh, tmp_path):
    file = tmp_path / "mesh.yaml"
    file.write_text(TWO_FORWARDERS)
    mesh.up("-f", str(file))
    paths = {wire["interface"]: wire["path"] for wire in mesh.status()["wires"]}
    assert paths == {
        "nsm-1": ["client", "nsmgr-node-1", "forwarder-node-1", "endpoint"],
        "nsm-2": ["client", "nsmgr-node-1", "forwarder-vpp-node-1", "endpoint"],
    }
    targets = {wire["interface"]: wire["dst_ips"][0].partition("/")[0] for wire in mesh.status()["wires"]}
    pinging = {
        name: mesh.start_in("client", "ping", "-i", "0.1", "-c", "100", "-W", "1", target)
        for name, target in targets.items()
    }
    assert pinging["nsm-2"].stdout.readline().startswith("PING")
    assert " bytes from " in pinging["nsm-2"].stdout.readline()
    os.kill(int(Path(RunDir.of(mesh.name).temporary, "forwarder-vpp-node-1", "pid").read_text()), signal.SIGKILL)
    received = {name: each.communicate(timeout=40)[0] for name, each in pinging.items()}
    assert " 0% packet loss" in received["nsm-1"]
    assert "icmp_seq=100 " in received["nsm-2"]
    said = [entry["event"] for entry in logged(mesh, "client")]
    assert "a wire is being repaired" in said
    assert not [event for event in said if "heal" in event]
