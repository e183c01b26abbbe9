"""Workloads of every kind with the annotation, on real nodes: their wire is there before they start, and carries."""

import json

import pytest

from tests.cluster.layout import NODES
from tests.k8s.system import EXAMPLES, eventually

pytestmark = pytest.mark.timeout(300)
NAMESPACE = "nsm-deployment"
ANNOTATION = {"networkservicemesh.io": "kernel://icmp-responder/nsm-1"}
PING = "ping -c 1 -W 5 -I nsm-1 $(ip -4 route show dev nsm-1 | grep -o '^172[.]20[.]0[.][0-9]*' | head -n 1)"
"""It fails if there is no wire yet: it runs once, at once."""


def template(command, **spec):
    container = {
        "name": "app",
        "image": "localhost/nsm/nsc-tools:0.1.0",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command],
        "securityContext": {"runAsUser": 0},  # for ping
    }
    return {
        "metadata": {"labels": {"app": "annotated"}},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": [container], **spec},
    }


def workload(kind):
    serving = {"selector": {"matchLabels": {"app": "annotated"}}, "template": template(f"{PING} && sleep infinity")}
    once = {"backoffLimit": 0, "template": template(PING, restartPolicy="Never")}
    specs = {
        "Job": once,
        "CronJob": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": once}},
        "StatefulSet": {"serviceName": "annotated", **serving},
        "DaemonSet": serving,
    }
    return {
        "apiVersion": "batch/v1" if "Job" in kind else "apps/v1",
        "kind": kind,
        "metadata": {"name": "annotated", "annotations": ANNOTATION},
        "spec": specs[kind],
    }


@pytest.fixture(scope="module")
def mine(system):
    """kubectl in a namespace that has an endpoint."""
    with system.kubectl.applied(EXAMPLES / "deployment"):
        found = system.kubectl.within(NAMESPACE)
        found.rolled_out("deployment/nse")
        yield found
    assert eventually(lambda: not system.left()), system.left()


@pytest.mark.parametrize("kind", ["Job", "CronJob", "StatefulSet", "DaemonSet"])
def test_an_annotated_workload_starts_when_its_wire_carries_and_a_job_ends(mine, kind):
    mine("apply", "-f", "-", stdin=json.dumps(workload(kind)))
    try:
        if kind in {"StatefulSet", "DaemonSet"}:
            mine.rolled_out(f"{kind.lower()}/annotated")
            pods = mine.get("pods", "-l", "app=annotated")["items"]
            assert len(pods) == (2 if kind == "DaemonSet" else 1)
            assert all(status["restartCount"] == 0 for pod in pods for status in pod["status"]["containerStatuses"])
        else:
            if kind == "CronJob":  # now, and not when its minute comes
                mine("create", "job", "annotated", "--from=cronjob/annotated")
            assert eventually(lambda: succeeded(mine), 150), mine("describe", "pods", "-l", "app=annotated")
    finally:
        mine("delete", kind.lower(), "annotated", "--cascade=foreground", "--timeout=60s")


def succeeded(mine):
    return any(job["status"].get("succeeded") for job in mine.get("jobs")["items"])


def test_while_every_replica_of_the_webhook_is_replaced_all_annotated_pods_get_their_client(kubectl, mine):
    """Each replica has an authority of its own, and the configuration knows whoever may be asked."""
    webhook = kubectl.within("nsm-system")
    before = {pod["metadata"]["name"] for pod in webhook.get("pods", "-l", "app=nsm-webhook")["items"]}
    webhook("rollout", "restart", "deployment/webhook")
    number = 0
    try:
        while before & {pod["metadata"]["name"] for pod in webhook.get("pods", "-l", "app=nsm-webhook")["items"]}:
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"roll-{number}", "labels": {"app": "roll"}, "annotations": ANNOTATION},
                "spec": {**template("true")["spec"], "schedulerName": "nobody"},  # it stays pending
            }
            stored = json.loads(mine("create", "-o", "json", "-f", "-", stdin=json.dumps(pod)))
            assert [each["name"] for each in stored["spec"]["initContainers"]] == ["nsc"]
            number += 1
        assert number > 5
    finally:
        mine("delete", "pods", "-l", "app=roll", "--now", "--ignore-not-found")
    webhook.rolled_out("deployment/webhook")
    there = [
        pod
        for pod in webhook.get("pods", "-l", "app=nsm-webhook")["items"]
        if "deletionTimestamp" not in pod["metadata"]
    ]
    assert {pod["spec"]["nodeName"] for pod in there} == set(NODES), "a rollout put both on one node"
