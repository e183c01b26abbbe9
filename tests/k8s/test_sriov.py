"""Virtual functions in the cluster: the kubelet gives them to pods, which get them as wires by their annotation.

The node's card is a tree of files; its functions are interfaces on a bridge of the node.
"""

import copy
import json
import re
import signal
import tempfile
from pathlib import Path

import pytest

from tests.cluster.layout import NODES
from tests.forwarder_sriov.tree import VETH, Tree
from tests.k8s.manifests import CARDS, built
from tests.k8s.system import MANIFESTS, NAMESPACE, eventually

pytestmark = pytest.mark.timeout(400)

NODE, OTHER = NODES
NAME = "worker.domain/10G"
FUNCTIONS = 3
SERVICE = {
    "apiVersion": "networkservicemesh.io/v1",
    "kind": "NetworkService",
    "metadata": {"name": "pinger", "namespace": NAMESPACE},
    "spec": {"payload": "ETHERNET", "matches": [{"metadata": {"labels": {"sriov": "true"}}, "routes": [{}]}]},
}


def forwarder(tree):
    """The forwarder of the variant, which finds PCI functions in a tree."""
    items = [copy.deepcopy(each) for each in built(MANIFESTS / "variants/sriov")]
    made = [each for each in items if each["metadata"]["name"] == "forwarder-sriov"]
    (daemons,) = [each for each in made if each["kind"] == "DaemonSet"]
    pod = daemons["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (tree.devices.parent / "sitecustomize.py").write_text(VETH)
    container["env"] += [
        {"name": "NSM_PCI_DEVICES_PATH", "value": str(tree.devices)},
        {"name": "NSM_PCI_DRIVERS_PATH", "value": str(tree.drivers)},
        {"name": "PYTHONPATH", "value": str(tree.devices.parent)},
    ]
    container["volumeMounts"].append({"name": "pci", "mountPath": str(tree.devices.parent)})
    pod["volumes"].append({"name": "pci", "hostPath": {"path": str(tree.devices.parent)}})
    return made


def endpoint():
    """A pod on the node without cards, for clients that reach the first address of the prefix on the other's bridge."""
    (example,) = [each for each in built(MANIFESTS / "examples/endpoint") if each["kind"] == "Deployment"]
    made = copy.deepcopy(example)
    made["metadata"] = {"name": "nse-vfio", "namespace": NAMESPACE}
    made["spec"]["template"]["spec"]["nodeName"] = OTHER
    made["spec"]["selector"]["matchLabels"] = made["spec"]["template"]["metadata"]["labels"] = {"app": "nse-vfio"}
    (container,) = made["spec"]["template"]["spec"]["containers"]
    container["image"] = container["image"].replace("/nse:", "/nse-vfio:")
    kept = [each for each in container["env"] if each["name"] not in {"NSM_SERVICE_NAMES", "NSM_CIDR_PREFIX"}]
    container["env"] = [
        *kept,
        {"name": "NSM_SERVICE_NAMES", "value": "pinger: { addr: 0a:55:44:33:22:11 }"},
        {"name": "NSM_CIDR_PREFIX", "value": "172.29.0.0/24"},
        {"name": "NSM_REGISTER_SERVICE", "value": "false"},
        {"name": "NSM_LABELS", "value": "serviceDomain:worker.domain"},
    ]
    return made


@pytest.fixture
def card(system):
    """A card on the node, whose functions are on a bridge with the endpoint's address; all goes afterwards."""
    kubectl, on_node = system.kubectl, system.cluster.on_node
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="sriov-") as folder:
        tree = Tree(Path(folder) / "pci")
        tree.card(functions=FUNCTIONS, name="card0")
        commands = [
            "ip link add card0 type bridge mcast_snooping 0",
            "ip link set card0 up",
            "ip address add 172.29.0.0/32 dev card0",
            "ip route add 172.29.0.0/24 dev card0",
            *(
                f"ip link add card0v{n} type veth peer name port{n} && ip link set port{n} master card0 up"
                for n in range(FUNCTIONS)
            ),
            f"cat > /var/lib/networkservicemesh/sriov.config <<END\n{CARDS}END",
        ]
        on_node(NODE, ["sh", "-ec", "\n".join(commands)])
        on_node(OTHER, ["sh", "-c", "echo 'physicalFunctions: {}' > /var/lib/networkservicemesh/sriov.config"])
        kubectl("label", "node", NODE, OTHER, "networkservicemesh.io/sriov=true")
        applied = json.dumps({"apiVersion": "v1", "kind": "List", "items": [SERVICE, *forwarder(tree)]})
        try:
            kubectl("apply", "-f", "-", stdin=applied)
            kubectl.within(NAMESPACE).rolled_out("daemonset/forwarder-sriov", seconds=240)
            yield tree
        finally:
            kubectl("delete", "-f", "-", "--ignore-not-found", stdin=applied)
            kubectl("label", "node", NODE, OTHER, "networkservicemesh.io/sriov-")
            on_node(NODE, ["sh", "-c", "for n in card0v0 card0v1 card0v2 card0; do ip link delete $n; done; true"])


def functions(system):
    links = system.cluster.on_node(NODE, ["ip", "-o", "link", "show", "type", "veth"])
    return set(re.findall(r"card0v\d", links))


def allocatable(kubectl):
    return kubectl.get("node", NODE)["status"]["allocatable"].get(NAME)


def client():
    """The pod of an example, with an annotation that asks for a virtual function."""
    (pod,) = [each for each in built(MANIFESTS / "examples/namespace") if each["kind"] == "Pod"]
    made = copy.deepcopy(pod)
    made["metadata"] = {
        "name": "client",
        "annotations": {"networkservicemesh.io": f"kernel://pinger/nsm-1?sriovToken={NAME}"},
    }
    return json.dumps(made)


def test_a_pod_that_asks_by_its_annotation_gets_a_function_of_its_node_and_gives_it_back(system, card):
    kubectl = system.kubectl
    assert eventually(lambda: allocatable(kubectl) == str(FUNCTIONS)), allocatable(kubectl)
    kubectl("create", "namespace", "sriov")
    mine, base = kubectl.within("sriov"), kubectl.within(NAMESPACE)
    try:
        base("apply", "-f", "-", stdin=json.dumps(endpoint()))
        base.rolled_out("deployment/nse-vfio")
        mine("apply", "-f", "-", stdin=client())
        mine.ready("client")
        pod = mine.get("pod", "client")
        assert pod["spec"]["nodeName"] == NODE
        containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        (nsc,) = [each for each in containers if each["name"] == "nsc"]
        assert nsc["resources"]["limits"][NAME] == "1"
        ping = "ping -c 1 -W 2 -I nsm-1 172.29.0.0"
        mine("exec", "client", "-c", "app", "--", *ping.split())
        assert len(functions(system)) == FUNCTIONS - 1
        system.cluster.signal(signal.SIGKILL, "kubelet", NODE)  # it starts again, and gets the tokens again
        mine("delete", "pod", "client", "--timeout=60s")
        assert eventually(lambda: len(functions(system)) == FUNCTIONS), functions(system)
        assert eventually(lambda: allocatable(kubectl) == str(FUNCTIONS)), allocatable(kubectl)
    finally:
        base("delete", "deployment", "nse-vfio", "--ignore-not-found")
        kubectl("delete", "namespace", "sriov", "--timeout=100s")
