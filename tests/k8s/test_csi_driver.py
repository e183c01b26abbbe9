"""The CSI driver and a real kubelet: restricted pods have the manager's socket, and leave nothing on the node."""

import json
from contextlib import contextmanager

import pytest

from tests.cluster.images import BUSYBOX
from tests.cluster.layout import NODES
from tests.k8s.system import NAMESPACE, eventually

DRIVER = "csi.networkservicemesh.io"
NODE = NODES[0]
RESTRICTED = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "csi", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}


def pod(name, **volume):
    """A pod that a restricted namespace accepts, with a volume of the driver at /sockets."""
    least = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "app",
        "image": BUSYBOX,
        "command": ["sleep", "1000"],
        "securityContext": least,
        "volumeMounts": [{"name": "manager", "mountPath": "/sockets"}],
    }
    spec = {
        "nodeName": NODE,
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,  # the group of the sockets
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "manager", "csi": {"driver": DRIVER, **volume}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "csi"}, "spec": spec}


@pytest.fixture
def kubectl(system):
    """In a restricted namespace, which is deleted with all that is in it afterwards."""
    system.kubectl("apply", "-f", "-", stdin=json.dumps(RESTRICTED))
    yield system.kubectl.within("csi")
    system.kubectl("delete", "namespace", "csi", "--timeout=100s")


@contextmanager
def running(kubectl, name):
    """A pod that runs, until the end of the block; gives its UID."""
    kubectl("apply", "-f", "-", stdin=json.dumps(pod(name, readOnly=True)))
    kubectl.ready(name)
    yield kubectl.get("pod", name)["metadata"]["uid"]
    kubectl("delete", "pod", name, "--wait=true")


def mounts(system, uid):
    """Options of the driver's mounts for a pod, as the kubelet sees them."""
    lines = system.cluster.on_node(NODE, ["cat", "/proc/self/mountinfo"]).splitlines()
    fields = [line.split() for line in lines if uid in line and "kubernetes.io~csi" in line]
    return [set(field[5].split(",")) for field in fields]


def test_a_restricted_pod_sees_the_manager_s_socket_and_cannot_write_beside_it(system, kubectl):
    """Though it mounts the volume without saying that it is read-only."""
    with running(kubectl, "app") as uid:
        assert eventually(lambda: "nsm.io.sock" in kubectl("exec", "app", "--", "ls", "/sockets"))
        done = kubectl.run("exec", "app", "--", "touch", "/sockets/mine")
        assert done.returncode != 0
        assert "Read-only file system" in done.stderr
        (options,) = mounts(system, uid)
        assert {"ro", "nosuid", "nodev", "noexec"} <= options
    assert eventually(lambda: mounts(system, uid) == [])


def test_a_driver_that_is_replaced_finds_the_volumes_of_the_one_before(system, kubectl):
    """A running pod keeps its volume; one that ends meanwhile or afterwards leaves nothing."""
    with running(kubectl, "app") as uid:
        daemonset = system.kubectl.within(NAMESPACE)
        daemonset("rollout", "restart", "daemonset/csi-driver")
        daemonset.rolled_out("daemonset/csi-driver")
        kubectl("exec", "app", "--", "ls", "/sockets")
        assert len(mounts(system, uid)) == 1
        with running(kubectl, "later"):
            kubectl("exec", "later", "--", "ls", "/sockets")
    assert eventually(lambda: mounts(system, uid) == [])


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        ({}, "the volume is not read-only; write readOnly: true beside its driver"),
        ({"readOnly": True, "fsType": "ext4"}, "the volume has a file system type, mount options or a group"),
    ],
)
def test_a_volume_that_the_driver_refuses_is_an_event_that_says_what_to_write(kubectl, volume, told):
    kubectl("apply", "-f", "-", stdin=json.dumps(pod("refused", **volume)))
    try:
        events = ["events", "--field-selector", "involvedObject.name=refused,reason=FailedMount"]
        assert eventually(lambda: any(told in event["message"] for event in kubectl.get(*events)["items"]))
    finally:
        kubectl("delete", "pod", "refused", "--wait=true")
