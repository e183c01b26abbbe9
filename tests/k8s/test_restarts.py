"""Programs of the cluster that end or hang: wires that are there carry on, and new ones are made afterwards."""

import json
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import yaml

from tests.cluster.layout import NODES
from tests.k8s.system import EXAMPLES, NAMESPACE, eventually, restarts, rolled_out
from tests.k8s.wires import client, endpoint_of, longest_gaps, no_packet_lost, pings, with_wires

pytestmark = pytest.mark.timeout(400)

SECONDS = 20
"""How long a program hangs: more than requests and leaders wait, less than a node may be silent."""
PING = ["ping", "-c", "3", "-i", "0.2", "-I", "nsm-1"]
PARTS = ["nsmgr", "forwarder-kernel", "registry", "identity"]


@pytest.fixture(scope="module")
def wires(system):
    """As `with_wires`, once for all of these tests."""
    with with_wires(system) as mine:
        yield mine


@pytest.fixture(autouse=True)
def _undisturbed(kubectl):
    """No container of the system had to be started again."""
    before = restarts(kubectl)
    yield
    assert restarts(kubectl) == before


@contextmanager
def carried_on(mine):
    """Wires carry all the while; afterwards each node makes a new one, and takes it away with its pod."""
    with no_packet_lost(mine, "near", "far"):
        yield
        names = {f"new-{node}": node for node in NODES}
        for name, node in names.items():
            assert eventually(lambda name=name, node=node: is_made(mine, name, node))
        mine.ready(*names)
        for name in names:
            mine("exec", name, "-c", "app", "--", *PING, endpoint_of(mine, name))
        mine("delete", *[f"pod/{name}" for name in names], "--timeout=60s", "--now")


def is_made(mine, name, node):
    """Whether the pod could be applied: the webhook, or the API server itself, may not be reached for a moment."""
    return mine.run("apply", "-f", "-", stdin=client(mine, name, node)).returncode == 0


@pytest.mark.parametrize("program", ["containerd", "kubelet", "kube-proxy"])
def test_a_program_of_the_nodes_is_killed(system, wires, program):
    with carried_on(wires):
        for node in NODES:
            system.cluster.signal(signal.SIGKILL, program, node)


@pytest.mark.parametrize("program", ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"])
def test_a_program_of_the_control_plane_is_killed(system, wires, program):
    with carried_on(wires):
        system.cluster.signal(signal.SIGKILL, program)


def test_the_api_server_hangs(system, wires, kubectl, excluded):
    before = excluded()
    with carried_on(wires):
        system.cluster.signal(signal.SIGSTOP, "kube-apiserver")
        time.sleep(SECONDS)
        system.cluster.signal(signal.SIGCONT, "kube-apiserver")
    mine, name = kubectl.within(NAMESPACE), "excluded-prefixes-config"
    mine("create", "configmap", name, "--from-literal=excluded_prefixes_input.yaml=prefixes: [192.0.2.0/24]")
    try:
        assert eventually(lambda: "192.0.2.0/24" in excluded())
    finally:
        mine("delete", "configmap", name)
    assert eventually(lambda: excluded() == before)


def test_nobody_gives_identities_for_longer_than_probes_wait(system, wires, kubectl):
    """Everybody has one still, so nobody is taken out of a Service, or started again, because a probe has none."""
    mine = kubectl.within(NAMESPACE)
    assert eventually(lambda: all(is_ready for _, is_ready in readiness(mine)))  # whatever was tried before this
    with carried_on(wires):
        mine("patch", "daemonset/identity", "-p", selected("nowhere"))
        try:
            assert eventually(lambda: mine.get("pods", "-l", "app=identity")["items"] == [])
            with ThreadPoolExecutor() as pool:  # each waits 10 s for an identity
                asked = list(pool.map(lambda probe: mine.run("exec", *probe), probes(mine)))
            assert len(asked) > 10
            assert [done.stderr for done in asked if done.returncode] == []
            assert any("responds; no further check" in done.stdout for done in asked)
            assert [name for name, is_ready in readiness(mine) if not is_ready] == []
        finally:
            mine("patch", "daemonset/identity", "-p", selected(None))
        rolled_out(kubectl)


def test_pods_of_the_system_are_deleted_one_by_one_and_all_at_once(system, wires, kubectl):
    parts, before = kubectl.within(NAMESPACE), interfaces(system)
    with carried_on(wires):
        for deleted in (*([part] for part in PARTS), PARTS):
            parts("delete", "pods", "-l", f"app in ({','.join(deleted)})", "--now")
            rolled_out(kubectl)
    assert eventually(lambda: interfaces(system) == before), interfaces(system) ^ before


def interfaces(system):
    """The wires' interfaces: index, name, hardware address and alias."""
    return {
        (*re.match(r"(\d+): ([^:@]+)", line).groups(), re.search(r"link/ether (\S+)", line)[1], line.split("alias ")[1])
        for line in system.wires()
    }


def test_an_endpoint_is_deleted_and_another_one_takes_its_place(wires, kubectl):
    """At once if it is there already; else as soon as it is, whatever its name; so also if the system goes with it."""
    apply_endpoint(wires, "other")
    with longest_gaps(wires, "near", "far") as gaps:
        wires("delete", "deployment/nse", "--cascade=foreground")
        assert eventually(lambda: all(pings(wires, pod) for pod in ("near", "far")))
    assert max(gaps.values()) < 3
    wires("delete", "deployment/other", "--cascade=foreground")
    assert not pings(wires, "near")
    assert not pings(wires, "far")
    apply_endpoint(wires, "nse")
    are_back(wires, "near", "far")
    kubectl.within(NAMESPACE)("delete", "pods", "-l", f"app in ({','.join(PARTS)})", "--now", "--wait=false")
    wires("delete", "pods", "-l", "app=nse", "--now")
    rolled_out(kubectl)
    wires.rolled_out("deployment/nse")
    are_back(wires, "near", "far")


def apply_endpoint(mine, name):
    """The endpoint of the example, in a Deployment and pods of this name; it is ready."""
    (made,) = [
        each for each in yaml.safe_load_all(mine("kustomize", EXAMPLES / "namespace")) if each["kind"] == "Deployment"
    ]
    mine("apply", "-f", "-", stdin=json.dumps(made).replace('"nse"', f'"{name}"'))
    mine.rolled_out(f"deployment/{name}")


def are_back(mine, *pods):
    """Each wire carries again within a pause between two requests of its client."""
    begin = time.monotonic()
    assert eventually(lambda: all(pings(mine, pod) for pod in pods), SECONDS)
    print(f"{', '.join(pods)}: back {time.monotonic() - begin:.1f} s after the endpoint was ready")


def test_nodes_are_drained(wires, kubectl):
    """Wires within the other node lose no packet; those of an endpoint that had to go find it where it is next."""
    (endpoint,) = wires.get("pods", "-l", "app=nse")["items"]
    node = endpoint["spec"]["nodeName"]
    places = {pod: wires.get("pod", pod)["spec"]["nodeName"] for pod in ("near", "far")}
    local, remote = sorted(places, key=lambda pod: places[pod] != node)
    with no_packet_lost(wires, local), drained(kubectl, places[remote]):
        pass
    return_to(wires, remote, places[remote])
    with drained(kubectl, node):
        wires.rolled_out("deployment/nse")
        are_back(wires, remote)
    return_to(wires, local, node)


@contextmanager
def drained(kubectl, node):
    """As somebody does it who wants to work at a node; then pods may be there again."""
    try:
        kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--grace-period=5")
        yield
    finally:
        kubectl("uncordon", node)


def return_to(mine, name, node):
    """A pod that was evicted is made anew, and has a wire."""
    assert eventually(lambda: is_made(mine, name, node))
    mine.ready(name)


def selected(node):
    """A patch that has the pods of a DaemonSet on nodes that are called so; `None`: on all again."""
    return json.dumps({"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}}})


def probes(mine):
    """For each container's probes of readiness and liveness, what runs them in it."""
    for pod in mine.get("pods")["items"]:
        for container in pod["spec"]["containers"]:
            for kind in ("readinessProbe", "livenessProbe"):
                if command := container.get(kind, {}).get("exec", {}).get("command"):
                    yield [pod["metadata"]["name"], "-c", container["name"], "--", *command]


def readiness(mine):
    """The names of pods, and whether each is ready."""
    for pod in mine.get("pods")["items"]:
        yield pod["metadata"]["name"], all(status["ready"] for status in pod["status"]["containerStatuses"])
