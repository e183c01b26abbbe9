"""Two clusters, each a domain of its own, and a third domain that has a registry only."""

import copy
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cluster import second
from tests.k8s.manifests import built
from tests.k8s.system import EXAMPLES, IMAGES, MANIFESTS, NAMESPACE, Kubectl, eventually, rolled_out
from tests.k8s.upstream.between import SKY
from tests.k8s.upstream.pods import named_values
from tests.k8s.upstream.running import apply

ONE, TWO = (Path(__file__).parent / name for name in ("one", "two"))
FEDERATE = EXAMPLES / "two-clusters/federate"


@dataclass(frozen=True)
class Domains:
    """kubectl in each of the two clusters."""

    one: Kubectl
    two: Kubectl

    @property
    def both(self):
        return self.one, self.two


@contextmanager
def two_domains(system):
    """The session's cluster is one of them meanwhile; the other one is started, unless it runs."""
    with second_cluster(system.cluster) as cluster:
        domains = Domains(system.kubectl, Kubectl(cluster))
        try:
            for kubectl, folder in zip(domains.both, (ONE, TWO), strict=True):
                kubectl("apply", "-k", folder)
            apply(domains.two, floating_registry())
            federate(system.cluster, cluster)
            for kubectl in domains.both:
                rolled_out(kubectl)
            yield domains
        finally:
            alone_again(system.kubectl)


@contextmanager
def second_cluster(first):
    """It is joined to the first, and has the images."""
    cluster, ours = second(), second().pid is None
    try:
        if ours:
            cluster.up()
            cluster.join(first)
        cluster.load(IMAGES)
        yield cluster
    finally:
        if ours:
            cluster.down()


def federate(*clusters):
    """As the example says."""
    configurations = [each.kubeconfig for each in clusters]
    words, environment = [FEDERATE, *configurations], clusters[0].environment()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def floating_registry():
    """A registry in memory, in the second cluster, whose address has the name of the third domain's."""
    name, items = "registry-sky", copy.deepcopy(built(MANIFESTS / "variants/memory"))
    found = {each["kind"]: each for each in items if each["metadata"]["name"] == "registry"}
    (settings,) = [each["data"] for each in built(TWO) if each["metadata"]["name"].startswith("domains-")]
    made = found["Deployment"], found["Service"]
    for each in made:
        each["metadata"]["name"] = name
    found["Deployment"]["spec"]["selector"]["matchLabels"] = {"app": name}
    template = found["Deployment"]["spec"]["template"]
    template["metadata"]["labels"]["app"] = name
    (container,) = template["spec"]["containers"]
    kept = [each for each in container["env"] if each["name"] != "NSM_INTERMEDIARIES"]
    given = {"NSM_INTERMEDIARIES": settings["intermediaries"], "NSM_ADMITTED_DOMAINS": settings["admitted"]}
    container["env"] = [*kept, *named_values(given)]
    found["Service"]["spec"] |= {"type": "LoadBalancer", "selector": {"app": name}}
    outside = f"registry.{NAMESPACE}.{SKY}"
    found["Service"]["metadata"]["annotations"] = {"external-dns.alpha.kubernetes.io/hostname": outside}
    return made


def alone_again(kubectl):
    """The first cluster's system is what it was."""
    kept = {names(each) for each in built(MANIFESTS)}
    for each in built(ONE):
        if names(each) not in kept:
            kind, namespace, name = names(each)
            where = [f"--namespace={namespace}"] if namespace else []
            kubectl("delete", kind, name, *where, "--ignore-not-found", "--timeout=60s")
    kubectl.within(NAMESPACE)("delete", "configmap", "federated-bundles", "--ignore-not-found")
    kubectl("apply", "-k", MANIFESTS)
    rolled_out(kubectl)


def names(item):
    return item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]


def replaced(*targets):
    """Delete the pods of applications, each by kubectl in its namespace, and wait until the next ones are ready."""
    before = [uids(kubectl, app) for kubectl, app in targets]
    for kubectl, app in targets:
        kubectl("delete", "pods", "-l", f"app={app}", "--wait=false")
    for (kubectl, app), former in zip(targets, before, strict=True):
        assert former, app
        assert eventually(lambda kubectl=kubectl, app=app, former=former: are_others(kubectl, app, former), 150), app


def are_others(kubectl, app, former):
    """Whether there are as many pods as before, all of them others, and ready."""
    ready = {
        each["metadata"]["uid"]
        for each in kubectl.get("pods", "-l", f"app={app}")["items"]
        if all(status["ready"] for status in each["status"].get("containerStatuses", [{"ready": False}]))
    }
    return len(ready) == len(former) and uids(kubectl, app) == ready and not ready & former


def uids(kubectl, app):
    return {each["metadata"]["uid"] for each in kubectl.get("pods", "-l", f"app={app}")["items"]}
