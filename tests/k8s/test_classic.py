"""The webhook for clusters without native sidecars, on real nodes: an init container makes wires, a sidecar keeps them."""

import json

import pytest

from tests.k8s.system import EXAMPLES, NAMESPACE, check_example, eventually
from tests.k8s.wires import endpoint_of
from tests.k8s.workloads import PING, job, pod_template, with_endpoint

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def classic(system):
    """The webhook is told to be classic, until these tests are through."""
    parts = system.kubectl.within(NAMESPACE)
    try:
        change(parts, "NSM_SIDECARS=classic")
        yield system
    finally:
        change(parts, "NSM_SIDECARS-")


def change(parts, variable):
    """Have webhooks with or without a variable, and wait until those of before are gone."""
    before = names(parts)
    parts("set", "env", "deployment/webhook", variable)
    parts.rolled_out("deployment/webhook")
    assert eventually(lambda: not names(parts) & before), names(parts)


def names(parts):
    return {pod["metadata"]["name"] for pod in parts.get("pods", "-l", "app=nsm-webhook")["items"]}


def clients(pod):
    """The containers of a pod: those that start it, and those that go on."""
    first, others = pod["spec"].get("initContainers", []), pod["spec"]["containers"]
    assert not [each for each in first if "restartPolicy" in each]
    return [each["name"] for each in first], [each["name"] for each in others]


@pytest.mark.parametrize(
    ("example", "label", "kind"), [("deployment", "app=web", "hostPath"), ("namespace", "", "csi")]
)
def test_a_deployment_and_a_pod_of_a_restricted_namespace_get_their_wires(classic, kubectl, example, label, kind):
    """The examples' own checks ping."""
    mine, before = kubectl.within(f"nsm-{example}"), set(classic.left())
    with kubectl.applied(EXAMPLES / example):
        check_example(classic.cluster, example)
        pods = [pod for pod in mine.get("pods", "-l", label)["items"] if "nsc" in clients(pod)[1]]
        assert pods
        for pod in pods:
            assert clients(pod)[0] == ["nsc-init"]
            volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
            assert kind in volumes["nsm-socket"]
    assert eventually(lambda: before.issuperset(classic.left())), classic.left()


@pytest.fixture(scope="module")
def mine(classic):
    """The namespace of an endpoint, which enforces `restricted`."""
    with with_endpoint(classic.kubectl) as mine:
        yield mine
    assert eventually(lambda: not classic.left()), classic.left()


def test_an_annotated_pod_starts_when_its_wire_carries(mine):
    """It pings once, at once: without a wire it would end with an error."""
    item = {"apiVersion": "v1", "kind": "Pod", **pod_template(f"{PING} && sleep infinity")}
    item["metadata"]["name"] = "alone"
    item["spec"]["restartPolicy"] = "Never"
    mine("apply", "-f", "-", stdin=json.dumps(item))
    mine.ready("alone")
    pod = mine.get("pod/alone")
    assert clients(pod) == (["nsc-init"], ["app", "nsc"])
    mine("exec", "alone", "-c", "app", "--", *PING.replace("172.20.0.0", endpoint_of(mine, "alone")).split())
    mine("delete", "pod/alone", "--timeout=60s")


def test_a_job_does_its_work_and_never_ends(mine):
    """As documented: its client is a container like others, and goes on."""
    mine("apply", "-f", "-", stdin=json.dumps(job(PING)))
    assert eventually(lambda: ended(mine, "app")), mine("describe", "pods", "-l", "batch.kubernetes.io/job-name=work")
    assert ended(mine, "app")["exitCode"] == 0
    assert "3 received" in mine("logs", "job/work", "-c", "app")
    assert mine.run("wait", "--for=condition=Complete", "job/work", "--timeout=10s").returncode != 0
    assert not ended(mine, "nsc")
    assert mine.get("job/work")["status"]["active"] == 1
    mine("delete", "job/work", "--timeout=60s")


def test_a_deadline_ends_such_a_job_as_failed(mine):
    item = job(PING)
    item["spec"]["activeDeadlineSeconds"] = 15
    mine("apply", "-f", "-", stdin=json.dumps(item))
    assert eventually(lambda: ended(mine, "app")), mine("describe", "pods", "-l", "batch.kubernetes.io/job-name=work")
    assert ended(mine, "app")["exitCode"] == 0
    mine("wait", "--for=condition=Failed", "job/work", "--timeout=60s")
    mine("delete", "job/work", "--timeout=60s")


def ended(mine, container):
    """How a container of the Job's pod ended; nothing if it has not."""
    for pod in mine.get("pods", "-l", "batch.kubernetes.io/job-name=work")["items"]:
        for status in pod["status"].get("containerStatuses", []):
            if status["name"] == container:
                return status["state"].get("terminated")
    return None
