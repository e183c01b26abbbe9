"""Workloads that ask for wires, and an endpoint beside them."""

from contextlib import contextmanager

from tests.k8s.system import EXAMPLES

NAMESPACE = "nsm-two-pods"
IMAGE = "localhost/nsm/nsc-tools:0.1.0"
ASKS = {"networkservicemesh.io": "kernel://icmp-responder/nsm-1"}
LEAST = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
PING = "ping -c 3 -i 0.2 -W 2 -I nsm-1 172.20.0.0"


@contextmanager
def with_endpoint(kubectl):
    """kubectl in the namespace of the example `two-pods`, without its client."""
    with kubectl.applied(EXAMPLES / "two-pods"):
        mine = kubectl.within(NAMESPACE)
        mine("delete", "pod/client", "--now")
        mine.rolled_out("deployment/nse")
        yield mine


def pod_template(command):
    security = {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
        "sysctls": [{"name": "net.ipv4.ping_group_range", "value": "0 2147483647"}],
    }
    app = {
        "name": "app",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command],
        "securityContext": LEAST,
    }
    spec = {"securityContext": security, "terminationGracePeriodSeconds": 2, "containers": [app]}
    return {"metadata": {"annotations": ASKS, "labels": {"app": "work"}}, "spec": spec}


def job(command):
    template = pod_template(command)
    template["spec"]["restartPolicy"] = "Never"
    about = {"name": "work"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": {"template": template}}
