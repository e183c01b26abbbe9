"""A mesh of real processes that somebody else broke: each fault is found by one command."""

import json
import subprocess

import pytest

from .conftest import NSM, local_mesh, until

pytestmark = pytest.mark.system

TOPOLOGY = """
nodes: [{name: node-1}, {name: node-2}]
links: [{nodes: [node-1, node-2], network: 172.16.61.0/24}]
endpoints:
  - {name: store, node: node-2, services: [store]}
  - {name: tiny, node: node-1, services: [tiny], prefixes: [10.20.0.0/31]}
clients:
  - {name: shop, node: node-1, wires: [kernel://store/nsm-1]}
  - {name: first, node: node-1, wires: [kernel://tiny/nsm-1]}
"""


class Operator:
    """Somebody who did not start the mesh, and has its commands."""

    def __init__(self, mesh):
        self._mesh = mesh

    def nsm(self, *words):
        """Exit code and output."""
        command = [*NSM, *words, "--name", self._mesh.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, done.stdout + done.stderr

    def why(self, wire, *said):
        """The output of `nsm why`, once it says all that."""
        told = ["", ""]

        def says():
            told[:] = self.nsm("why", wire)
            return all(each in told[1] for each in said)

        assert until(says, 20.0), (said, told[1])
        return told[1]

    def is_up(self, wire):
        return until(lambda: self.nsm("why", wire)[0] == 0, 20.0)


@pytest.fixture(scope="module")
def operator(tmp_path_factory):
    file = tmp_path_factory.mktemp("mesh") / "mesh.yaml"
    file.write_text(TOPOLOGY)
    with local_mesh(has_view=True) as mesh:
        mesh.up("-f", str(file))
        yield Operator(mesh), mesh


def test_each_fault_is_found_by_one_command(operator, tmp_path):
    """Two endpoints' faults, a forwarder that hangs, a link, and a pool that is too small."""
    operator, mesh = operator
    code, listed = operator.nsm("wires")
    assert code == 0, listed
    assert [line.split()[:3] for line in listed.splitlines()[1:]] == [
        ["first/nsm-1", "tiny", "tiny"],
        ["shop/nsm-1", "store", "store"],
    ]
    code, path = operator.nsm("why", "shop/nsm-1")
    assert code == 0, path
    hops = [line.split()[1] for line in path.splitlines() if line.startswith("√")]
    assert hops == ["shop", "nsmgr-node-1", "forwarder-node-1", "nsmgr-node-2", "forwarder-node-2", "store"]

    mesh.nsm("kill", "store")
    told = operator.why("shop", "store does not respond", "process:    store was killed by SIGKILL")
    assert f"what to do: `nsm mesh start store --name {mesh.name}` starts store again" in told
    assert operator.nsm("wires", "--down")[0] == 1
    mesh.nsm("start", "store")
    assert operator.is_up("shop")

    mesh.nsm("kill", "forwarder-node-1", "--signal", "STOP")
    operator.why("shop", "process:    forwarder-node-1 is stopped by a signal", "--signal CONT")
    mesh.nsm("kill", "forwarder-node-1", "--signal", "CONT")

    mesh.nsm("cut", "node-1", "node-2")
    operator.why("shop", "the underlay eth0 (172.16.61.1) is down", "tried:", "store")
    mesh.nsm("mend", "node-1", "node-2")
    assert operator.is_up("shop")

    (tmp_path / "late.yaml").write_text(f"{TOPOLOGY}  - {{name: late, node: node-1, wires: [kernel://tiny/nsm-1]}}\n")
    mesh.up("-f", str(tmp_path / "late.yaml"), "--timeout", "3", code=1)
    said = ("PENDING", "tried:", "no two addresses are left in 10.20.0.0/31", "CANDIDATE", "a larger prefix")
    assert "process:" not in operator.why("late/nsm-1", *said)
    code, everything = operator.nsm("wires", "--down", "--json")
    assert code == 1
    assert [(each["client"], each["state"]) for each in json.loads(everything)["wires"]] == [("late", "PENDING")]


def test_which_endpoint_a_client_would_get(operator):
    operator, _ = operator
    code, told = operator.nsm("can", "shop", "store")
    assert code == 0, told
    assert "shop asks for store with nodeName=node-1: yes" in told
    assert "√  store     node-2  always" in told
