"""Another version over a running system, and no system at all: what becomes of wires, and what is left on nodes."""

import re

import pytest

from tests.cluster.layout import NODES
from tests.cluster.node import SOCKET
from tests.k8s.system import MANIFESTS, NAMESPACE, bring_up, eventually, rolled_out
from tests.k8s.wires import no_packet_lost

pytestmark = pytest.mark.timeout(400)

NEWER = "0.1.0-newer"
NAMES = ["registry", "nsmgr", "forwarder-kernel", "identity", "prefixes", "csi-driver", "webhook", "nsc", "nsc-init"]


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
    with no_packet_lost(wires, "near", "far"):
        kubectl("apply", "-f", newer)
        rolled_out(kubectl)
        assert eventually(lambda: images(kubectl) == {NEWER}), images(kubectl)


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
    with no_packet_lost(wires, "near"):
        with no_packet_lost(wires, "far"):
            kubectl("delete", "-k", MANIFESTS, "--timeout=100s")
        wires("delete", "pod/far", "--now", "--wait=false")
        mounted = {node: left_on(system, node) for node in NODES}
        assert eventually(lambda: has_ended(wires, "far"))
        assert wires.get("pod/far")["metadata"]["deletionTimestamp"]
        bring_up(system.cluster)
        assert eventually(lambda: wires.run("get", "pod/far").returncode, 200), "it has not ended"
    assert all("/volumes/kubernetes.io~csi/" in line for lines in mounted.values() for line in lines), mounted


def has_ended(mine, pod):
    """Whether all containers of a pod have."""
    return all("terminated" in each["state"] for each in mine.get(f"pod/{pod}")["status"]["containerStatuses"])
