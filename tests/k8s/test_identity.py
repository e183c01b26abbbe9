"""Identities of pods: by real containers on two nodes, and what happens to the authorities that they share."""

import json
import sys

import pytest

from tests.cluster.layout import CHECKOUT, NODES
from tests.k8s.system import NAMESPACE, eventually

ASK = "unix:///run/spire/sockets/agent.sock"
MANAGER = "unix:///var/lib/networkservicemesh/nsm.io.sock"
EMPTY = '[{"op": "remove", "path": "/data"}]'


def pod(node):
    volumes = {"identity": "/run/spire/sockets", "manager": "/var/lib/networkservicemesh"}
    container = {
        "name": "app",
        "image": "localhost/nsm/nsc-tools:0.1.0",
        "command": ["sleep", "1000"],
        "volumeMounts": [{"name": name, "mountPath": path, "readOnly": True} for name, path in volumes.items()],
    }
    drivers = {"identity": "identity.csi.networkservicemesh.io", "manager": "csi.networkservicemesh.io"}
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsUser": 65532, "runAsGroup": 65532},
        "containers": [container],
        "volumes": [{"name": name, "csi": {"driver": driver, "readOnly": True}} for name, driver in drivers.items()],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"on-{node}", "namespace": "who"}, "spec": spec}


@pytest.fixture
def kubectl(system):
    """In a namespace with a pod on each node."""
    system.kubectl("create", "namespace", "who")
    kubectl = system.kubectl.within("who")
    kubectl("apply", "-f", "-", stdin="---\n".join(json.dumps(pod(node)) + "\n" for node in NODES))
    kubectl.ready(*[f"on-{node}" for node in NODES])
    yield kubectl
    system.kubectl("delete", "namespace", "who", "--timeout=100s")


def identity(kubectl, node):
    return kubectl("exec", f"on-{node}", "--", "nsm", "health", ASK).split()[-1]


def trusts_its_manager(kubectl, node):
    """Whether a pod and its node's manager accept each other's identity."""
    return kubectl.run("exec", f"on-{node}", "--", "nsm", "health", MANAGER).returncode == 0


@pytest.fixture
def secrets(system):
    return system.kubectl.within(NAMESPACE)


def authorities(secrets):
    """The certificates in the Secret that all nodes share."""
    data = secrets.get("secret", "nsm-identity").get("data", {})
    return [data[name] for name in sorted(data) if name.endswith(".crt")]


def test_a_pod_is_who_the_cluster_says_and_trusts_the_others(kubectl):
    for node in NODES:
        assert identity(kubectl, node) == f"spiffe://k8s.nsm/ns/who/pod/on-{node}"
        assert trusts_its_manager(kubectl, node)


def test_a_process_of_the_node_has_no_identity_and_is_told_why(system):
    command = f"cd {CHECKOUT} && {sys.executable} -m nsm.chains health {ASK} 2>&1 || true"
    assert "it is not in a pod, but a process of the node itself" in system.cluster.on_node(
        NODES[0], ["sh", "-c", command]
    )


def test_a_deleted_secret_that_is_applied_again_is_what_it_was(secrets, kubectl):
    before, manifest = authorities(secrets), secrets.get("secret", "nsm-identity")
    secrets("delete", "secret", "nsm-identity")
    empty = {key: manifest[key] for key in ("apiVersion", "kind", "type")} | {"metadata": {"name": "nsm-identity"}}
    secrets("apply", "-f", "-", stdin=json.dumps(empty))
    assert eventually(lambda: authorities(secrets) == before)
    assert trusts_its_manager(kubectl, NODES[0])


def test_an_emptied_secret_gets_a_new_authority_and_everybody_goes_over_to_it(secrets, kubectl):
    """As after the theft of a key: nothing has to be restarted."""
    before = authorities(secrets)
    secrets("patch", "secret", "nsm-identity", "--type=json", "-p", EMPTY)
    assert eventually(lambda: len(authorities(secrets)) == 1 and authorities(secrets) != before)
    for node in NODES:
        assert eventually(lambda node=node: trusts_its_manager(kubectl, node))
        assert identity(kubectl, node) == f"spiffe://k8s.nsm/ns/who/pod/on-{node}"
