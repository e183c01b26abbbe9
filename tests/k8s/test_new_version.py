"""Another version over a running system, and no system at all: what becomes of wires, and what is left on nodes."""

import json
import re
from contextlib import contextmanager

import pytest
import yaml

from tests.cluster.layout import NODES
from tests.cluster.node import SOCKET
from tests.k8s.system import EXAMPLES, MANIFESTS, NAMESPACE, bring_up, eventually, rolled_out
from tests.k8s.test_injected_workloads import endpoint_of

pytestmark = pytest.mark.timeout(400)

NEWER = "0.1.0-newer"
NAMES = ["registry", "nsmgr", "forwarder-kernel", "identity", "prefixes", "csi-driver", "webhook", "nsc", "nsc-init"]


@pytest.fixture
def wires(system, kubectl):
    """kubectl in a namespace with an endpoint, and a pod with a wire to it on its node and on the other."""
    with kubectl.applied(EXAMPLES / "namespace"):
        mine = kubectl.within("nsm-namespace")
        mine.rolled_out("deployment/nse")
        (endpoint,) = mine.get("pods", "-l", "app=nse")["items"]
        mine("delete", "pod/app", "--now")
        here = endpoint["spec"]["nodeName"]
        (there,) = set(NODES) - {here}
        made = yaml.safe_load_all(mine("kustomize", EXAMPLES / "namespace"))
        (pod,) = [each for each in made if each["kind"] == "Pod"]
        for name, node in (("near", here), ("far", there)):
            pod["metadata"] = {"name": name, "namespace": "nsm-namespace"}
            pod["spec"]["nodeName"] = node
            mine("apply", "-f", "-", stdin=json.dumps(pod))
        mine.ready("near", "far")
        yield mine
    assert eventually(lambda: not system.left()), system.left()


@contextmanager
def pinging(mine, *pods):
    """Pings over the wires of pods all the while; gives for each what `ping` counted, afterwards."""
    counted = {}
    for pod in pods:
        script = f"ping -q -i 0.2 -I nsm-1 {endpoint_of(mine, pod)} > /dev/shm/ping 2>&1 < /dev/null & echo $! > /dev/shm/pid"
        mine("exec", pod, "-c", "app", "--", "sh", "-c", script)
    yield counted
    for pod in pods:
        script = "kill -INT $(cat /dev/shm/pid); until grep transmitted /dev/shm/ping; do sleep 0.1; done"
        said = mine("exec", pod, "-c", "app", "--", "sh", "-c", script)
        sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", said).groups())
        counted[pod] = sent, sent - received


@pytest.fixture
def newer(system, kubectl, tmp_path):
    """Manifests of a newer version, whose images are on the nodes; afterwards that of this checkout is applied again."""
    ctr = ["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images"]
    for node in NODES:
        for name in NAMES:
            image = f"localhost/nsm/{name}"
            system.cluster.on_node(node, [*ctr, "tag", "--force", f"{image}:0.1.0", f"{image}:{NEWER}"])
    text = kubectl("kustomize", MANIFESTS)
    (tmp_path / "newer.yaml").write_text(re.sub(r"(localhost/nsm/[\w-]+):0\.1\.0", rf"\1:{NEWER}", text))
    yield tmp_path / "newer.yaml"
    bring_up(system.cluster)


def images(kubectl):
    pods = kubectl.within(NAMESPACE).get("pods", "--field-selector=status.phase=Running")["items"]
    return {container["image"].rpartition(":")[2] for pod in pods for container in pod["spec"]["containers"]}


def test_wires_carry_every_packet_while_a_newer_version_is_applied(system, kubectl, wires, newer):
    with pinging(wires, "near", "far") as counted:
        kubectl("apply", "-f", newer)
        rolled_out(kubectl)
        assert eventually(lambda: images(kubectl) == {NEWER}), images(kubectl)
    print("sent and lost:", counted)  # for docs/kubernetes.md
    assert lost(counted) == {"near": 0, "far": 0}


def left_on(system, node):
    """What the system has left on a node: mounts, files and sockets, but for interfaces of wires."""
    script = (
        "grep -e networkservicemesh -e /run/spire /proc/mounts;"
        "cd / && find var/lib/networkservicemesh run/spire var/lib/kubelet/plugins var/lib/kubelet/plugins_registry"
        " ! -type d; true"
    )
    return system.cluster.on_node(node, ["sh", "-c", script]).splitlines()


def test_without_the_system_wires_carry_and_when_it_is_there_again_all_goes_on(system, kubectl, wires):
    """Only empty folders are left on nodes; but a pod with volumes of the CSI driver cannot end without it."""
    with pinging(wires, "near") as near:
        with pinging(wires, "far") as far:
            kubectl("delete", "-k", MANIFESTS, "--timeout=100s")
        wires("delete", "pod/far", "--now", "--wait=false")
        mounted = {node: left_on(system, node) for node in NODES}
        assert eventually(lambda: has_ended(wires, "far"))
        assert wires.get("pod/far")["metadata"]["deletionTimestamp"]
        bring_up(system.cluster)
        assert eventually(lambda: wires.run("get", "pod/far").returncode, 200), "it has not ended"
    assert (lost(near), lost(far)) == ({"near": 0}, {"far": 0})
    assert all("/volumes/kubernetes.io~csi/" in line for lines in mounted.values() for line in lines), mounted


def has_ended(mine, pod):
    """Whether all containers of a pod have."""
    return all("terminated" in each["state"] for each in mine.get(f"pod/{pod}")["status"]["containerStatuses"])


def lost(counted):
    return {pod: number for pod, (_, number) in counted.items()}
