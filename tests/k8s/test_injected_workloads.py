"""Workloads that the webhook gives clients, with real wires: what starts when, what ends, who may be whom."""

import json

import pytest

from tests.k8s.system import eventually
from tests.k8s.wires import endpoint_of
from tests.k8s.workloads import ASKS, PING, job, pod_template, with_endpoint

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def provided(system):
    """The namespace of an endpoint, which enforces `restricted`."""
    with with_endpoint(system.kubectl) as mine:
        yield mine
    assert eventually(lambda: not system.left()), system.left()


@pytest.fixture
def mine(provided):
    """As `provided`; afterwards it is empty but for the endpoint."""
    yield provided
    provided("delete", "jobs,statefulsets", "--all", "--cascade=foreground", "--timeout=60s")


def test_a_job_of_one_ping_ends(mine):
    """Its client is no obstacle, and the wire is there before the ping begins."""
    mine("apply", "-f", "-", stdin=json.dumps(job(PING)))
    mine("wait", "--for=condition=Complete", "job/work", "--timeout=120s")
    assert "3 received" in mine("logs", "job/work", "-c", "app")


def test_pods_of_a_statefulset_come_again_under_their_names(mine):
    """The second of a name has a wire of its own: the first one's is no obstacle."""
    mine("apply", "-f", "-", stdin=json.dumps(stateful_set()))
    for _ in range(2):
        mine.rolled_out("statefulset/store")
        mine("exec", "store-0", "-c", "app", "--", *PING.replace("172.20.0.0", endpoint_of(mine, "store-0")).split())
        mine("delete", "pod/store-0", "--timeout=60s")
    mine.rolled_out("statefulset/store")


def test_the_annotation_of_a_running_pod_changes_its_wires(mine):
    """What is added comes, what is removed goes, what stays is not touched; kubelet brings it to the client."""
    mine("apply", "-f", "-", stdin=json.dumps(stateful_set()))
    mine.rolled_out("statefulset/store")
    (first,), second = ASKS.values(), "kernel://icmp-responder/nsm-2"

    def index(name):
        return mine.run("exec", "store-0", "-c", "app", "--", "cat", f"/sys/class/net/{name}/ifindex").stdout.strip()

    before = index("nsm-1")
    assert before
    mine("annotate", "pod/store-0", "--overwrite", f"networkservicemesh.io={first},{second}")
    assert eventually(lambda: index("nsm-2"), 120), mine("logs", "store-0", "-c", "nsc")
    assert index("nsm-1") == before
    added = index("nsm-2")
    mine("annotate", "pod/store-0", "--overwrite", f"networkservicemesh.io={second}")
    assert eventually(lambda: not index("nsm-1"), 120), mine("logs", "store-0", "-c", "nsc")
    assert index("nsm-2") == added


def test_nobody_in_a_restricted_namespace_is_root_or_has_a_folder_of_the_node(mine):
    mine("apply", "-f", "-", stdin=json.dumps(job("sleep 60")))
    assert eventually(lambda: mine.get("pods", "-l", "batch.kubernetes.io/job-name=work")["items"])
    (pod,) = mine.get("pods", "-l", "batch.kubernetes.io/job-name=work")["items"]
    assert [volume for volume in pod["spec"]["volumes"] if "hostPath" in volume] == []
    mine.ready(pod["metadata"]["name"])
    for container in ("nsc", "app"):
        assert "uid=65532" in mine("exec", pod["metadata"]["name"], "-c", container, "--", "id")


def test_a_client_whose_manager_is_away_waits_and_says_so(system, mine):
    """When the manager is back the client gets its wire, with nobody's help."""
    managers = system.kubectl.within("nsm-system")
    managers("patch", "daemonset/nsmgr", "-p", '{"spec":{"template":{"spec":{"nodeSelector":{"no":"node"}}}}}')
    try:
        assert eventually(lambda: not managers.get("pods", "-l", "app=nsmgr")["items"])
        mine("apply", "-f", "-", stdin=json.dumps(job(PING)))
        assert eventually(lambda: "no wire yet" in mine.run("logs", "job/work", "-c", "nsc").stdout)
    finally:
        managers("patch", "daemonset/nsmgr", "-p", '{"spec":{"template":{"spec":{"nodeSelector":{"no":null}}}}}')
    mine("wait", "--for=condition=Complete", "job/work", "--timeout=150s", seconds=160)


def stateful_set():
    spec = {
        "serviceName": "store",
        "replicas": 2,
        "selector": {"matchLabels": {"app": "work"}},
        "template": pod_template("sleep infinity"),
    }
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "store"}, "spec": spec}
