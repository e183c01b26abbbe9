"""What is started for a mesh."""

from nsm.mesh.plan import entries, plan
from nsm.mesh.rundir import RunDir
from nsm.mesh.topology import parse

TWO_FORWARDERS = """
nodes:
  - name: node-1
    forwarder: [{labels: {via: kernel}}, {kind: vpp, labels: {via: vpp}, environment: {NSM_VPP_HEAP: 64M}}]
"""


def test_two_forwarders_of_a_node_differ_in_name_and_labels_and_have_one_identity(tmp_path):
    """The manager admits forwarders of its node by that identity, and services choose one by its labels."""
    topology, run = parse(TWO_FORWARDERS, "m"), RunDir("m", tmp_path)
    parts = {part.name: part for part in plan(run, topology, {})}
    kernel, vpp = parts["forwarder-node-1"], parts["forwarder-vpp-node-1"]
    assert (kernel.command, vpp.command) == ("forwarder-kernel", "forwarder-vpp")
    assert (kernel.environment["NSM_LABELS"], vpp.environment["NSM_LABELS"]) == (
        "p2p:true,via:kernel",
        "p2p:true,via:vpp",
    )
    assert (vpp.environment["NSM_VPP_HEAP"], vpp.environment["NSM_NAME"]) == ("64M", "forwarder-vpp-node-1")
    assert len({kernel.environment["NSM_LISTEN_ON"], vpp.environment["NSM_LISTEN_ON"]}) == 2
    lines = entries(run, topology, list(parts.values()), topology.all_domains[0]).splitlines()
    assert [line.rpartition("/")[2] for line in lines if "/forwarder" in line] == ["forwarder", "forwarder"]
