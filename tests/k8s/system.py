"""The whole system in the cluster of two nodes, as a user would apply it."""

import json
import subprocess
import time
from contextlib import contextmanager

from tests.cluster.cluster import Cluster
from tests.cluster.layout import CHECKOUT, NODES

MANIFESTS = CHECKOUT / "k8s"
EXAMPLES = MANIFESTS / "examples"
IMAGES = CHECKOUT / ".images/images.tar"
NAMESPACE = "nsm-system"
REGISTRATIONS = "networkserviceendpoints.networkservicemesh.io"


class Kubectl:
    """kubectl as the administrator; `within` a namespace, or where what is applied says."""

    def __init__(self, cluster, namespace=None):
        self._cluster = cluster
        self._where = [f"--namespace={namespace}"] if namespace else []

    def within(self, namespace):
        return Kubectl(self._cluster, namespace)

    def run(self, *words, stdin=None, seconds=120):
        """How it went, as `subprocess` says it."""
        command = [self._cluster.kubectl, *self._where, *map(str, words)]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)

    def __call__(self, *words, stdin=None, seconds=120):
        """What it wrote. Fails the test with what it complains about."""
        done = self.run(*words, stdin=stdin, seconds=seconds)
        assert done.returncode == 0, f"kubectl {' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
        return done.stdout

    def get(self, *words):
        return json.loads(self("get", *words, "-o", "json"))

    def rolled_out(self, *names, seconds=120):
        """Wait until all pods of the named workloads are ready."""
        for name in names:
            self("rollout", "status", name, f"--timeout={seconds}s", seconds=seconds + 10)

    def ready(self, *pods, seconds=120):
        names = [f"pod/{pod}" for pod in pods]
        self("wait", "--for=condition=Ready", f"--timeout={seconds}s", *names, seconds=seconds + 10)

    @contextmanager
    def applied(self, folder):
        """What a folder's kustomization makes, until the end of the block; then it is deleted, and has ended."""
        try:
            self("apply", "-k", folder)
            yield
        finally:
            self("delete", "-k", folder, "--ignore-not-found", "--timeout=100s")


class System:
    """The system that runs; how long it took to come up, and how often containers had to be started again meanwhile."""

    def __init__(self, cluster, kubectl, seconds):
        self.cluster, self.kubectl, self.seconds = cluster, kubectl, seconds
        self.restarts = restarts(kubectl)

    def endpoints(self):
        """The names of the endpoints that are registered for workloads."""
        items = self.kubectl.within(NAMESPACE).get(REGISTRATIONS)["items"]
        return {item["spec"]["name"] for item in items if item["spec"]["network_service_names"] != ["forwarder"]}

    def wires(self):
        """The mesh's interfaces in the network namespaces that a node's own processes see: its own, and its pods'."""
        return [line for node in NODES for line in self._links(node) if "alias nsm " in line]

    def _links(self, node):
        script = "ip -o -d link show; for each in /run/netns/*; do nsenter --net=$each ip -o -d link show || true; done"  # one may go meanwhile
        return self.cluster.on_node(node, ["sh", "-c", script]).splitlines()

    def left(self):
        """All that wires leave while they are there."""
        return [*self.wires(), *self.endpoints()]


def cluster_with_images():
    """The cluster that runs, with the images on its nodes."""
    cluster = Cluster()
    assert cluster.pid is not None, "no cluster runs: make test-k8s starts one, make cluster-up too"
    assert IMAGES.exists(), "no images: make test-k8s builds them"
    cluster.load(IMAGES)
    return cluster


def bring_up(cluster, folder=MANIFESTS):
    """Apply the manifests, wait until everything is ready."""
    kubectl = Kubectl(cluster)
    begin = time.monotonic()
    kubectl("apply", "-k", folder)
    rolled_out(kubectl)
    return System(cluster, kubectl, time.monotonic() - begin)


def rolled_out(kubectl):
    """Wait until all pods of the system are those of the manifests that were applied last, and ready."""
    workloads = kubectl.within(NAMESPACE).get("deployments,daemonsets")["items"]
    kubectl.within(NAMESPACE).rolled_out(*[f"{item['kind'].lower()}/{item['metadata']['name']}" for item in workloads])


def check_example(cluster, name):
    """Run the check of an example that is applied; fails the test with what it wrote."""
    command, environment = EXAMPLES / name / "check", cluster.environment()
    done = subprocess.run([command], env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def restarts(kubectl):
    """How often containers of the system's pods had to be started again."""
    pods = kubectl.within(NAMESPACE).get("pods")["items"]
    return sum(status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"])


def eventually(condition, seconds=60):
    """What `condition` says last: true as soon as it says so, or false after `seconds`."""
    end = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.5)
    return result


def anew(pod):
    """A pod as it was written, to be made again, on any node."""
    about = {key: pod["metadata"][key] for key in ("name", "namespace", "labels")}
    spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}
