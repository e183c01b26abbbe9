"""The whole system on two nodes: it comes up, makes wires inside a node and between nodes, and leaves nothing."""

import json

import pytest

from tests.k8s.system import EXAMPLES, anew, check_example, eventually

pytestmark = pytest.mark.timeout(400)

SERVICES = {"matches": "service.yaml"}
"""What an example has besides its kustomization."""


def test_the_system_is_up_a_minute_after_it_was_applied(system):
    assert system.seconds < 60
    assert system.restarts == 0


@pytest.mark.parametrize(
    "name", ["two-pods", "deployment", "namespace", "matches", "several-services", "custom-endpoint"]
)
def test_an_example_does_what_it_says_and_leaves_nothing(system, kubectl, name):
    folder = EXAMPLES / name
    if name in SERVICES:
        kubectl("apply", "-f", folder / SERVICES[name])
    with kubectl.applied(folder):
        check_example(system.cluster, name)
    if name in SERVICES:
        kubectl("delete", "-f", folder / SERVICES[name])
    assert eventually(lambda: not system.left()), system.left()


def test_a_wire_between_nodes_is_a_vxlan_over_the_nodes_network(system, kubectl):
    mine = kubectl.within("nsm-two-pods")
    with kubectl.applied(EXAMPLES / "two-pods"):
        mine.rolled_out("deployment/nse")
        (endpoint,) = mine.get("pods", "-l", "app=nse")["items"]
        client = mine.get("pod/client")
        mine("delete", "pod/client", "--now")
        mine("apply", "-f", "-", stdin=json.dumps(on_another_node(client, endpoint["spec"]["nodeName"])))
        mine.ready("client")
        link = json.loads(mine("exec", "client", "-c", "app", "--", "ip", "-d", "-j", "link", "show", "nsm-1"))
        assert link[0]["linkinfo"]["info_kind"] == "vxlan"
        mine("exec", "client", "-c", "app", "--", "ping", "-c", "3", "-i", "0.2", "-I", "nsm-1", "172.20.0.0")
    assert eventually(lambda: not system.left()), system.left()


def test_a_deployment_that_is_scaled_up_and_to_nothing_leaves_no_wire_and_no_record(system, kubectl):
    mine = kubectl.within("nsm-deployment")
    with kubectl.applied(EXAMPLES / "deployment"):
        mine.rolled_out("deployment/nse", "deployment/web")
        mine("scale", "deployment/web", "--replicas=10")
        mine.rolled_out("deployment/web")
        pods = mine.get("pods", "-l", "app=web")["items"]
        assert len(pods) == 10
        assert {pod["spec"]["nodeName"] for pod in pods} == {"n1", "n2"}
        assert len(system.wires()) == 20  # both ends of each
        assert len(system.endpoints()) == 1
        mine("scale", "deployment/web", "--replicas=0")
        assert eventually(lambda: not system.wires()), system.wires()
        mine("scale", "deployment/nse", "--replicas=0")
        assert eventually(lambda: not system.endpoints()), system.endpoints()


def on_another_node(pod, node):
    """The pod made anew, anywhere but on `node`."""
    there = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [there]}]}
    pod = anew(pod)
    pod["spec"]["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    return pod
