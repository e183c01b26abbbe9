"""Programs of the cluster that end or hang: wires that are there carry on, and new ones are made afterwards."""

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.cluster.layout import NODES
from tests.k8s.system import NAMESPACE, eventually, restarts, rolled_out
from tests.k8s.wires import client, endpoint_of, no_packet_lost, with_wires

pytestmark = pytest.mark.timeout(400)

SECONDS = 20
"""How long a program hangs: more than requests and leaders wait, less than a node may be silent."""
PING = ["ping", "-c", "3", "-i", "0.2", "-I", "nsm-1"]


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
