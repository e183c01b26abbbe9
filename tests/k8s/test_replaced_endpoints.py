"""A pod with a wire whose endpoint's pod is replaced by another one, which has another name."""

import json

import pytest
import yaml

from tests.k8s.system import EXAMPLES, eventually

pytestmark = pytest.mark.timeout(300)

PING = ("exec", "client", "-c", "app", "--", "ping", "-c", "1", "-W", "1", "-I", "nsm-1", "172.20.0.0")


@pytest.fixture
def mine(system):
    """The namespace of an endpoint, and of a client that refreshes its wire every three seconds."""
    with system.kubectl.applied(EXAMPLES / "two-pods"):
        mine = system.kubectl.within("nsm-two-pods")
        mine("delete", "pod/client", "--now")
        mine.rolled_out("deployment/nse")
        (pod,) = [
            each for each in yaml.safe_load_all(mine("kustomize", EXAMPLES / "two-pods")) if each["kind"] == "Pod"
        ]
        pod["spec"]["initContainers"][0]["env"].append({"name": "NSM_MAX_TOKEN_LIFETIME", "value": "15s"})
        mine("apply", "-f", "-", stdin=json.dumps(pod))
        mine.ready("client")
        yield mine
    assert eventually(lambda: not system.left()), system.left()


def test_a_client_gets_the_next_pod_of_its_endpoint_s_deployment(mine):
    """And the former one does not answer in its place: its namespace has gone."""
    assert "1 received" in mine(*PING)
    mine("scale", "deployment/nse", "--replicas=0")
    mine("wait", "--for=delete", "pod", "-l", "app=nse", "--timeout=60s")
    assert eventually(lambda: mine.run(*PING).returncode != 0)
    mine("scale", "deployment/nse", "--replicas=1")
    mine.rolled_out("deployment/nse")
    assert eventually(lambda: mine.run(*PING).returncode == 0)
    (state,) = mine.get("pod", "client")["status"]["initContainerStatuses"]
    assert state["restartCount"] == 0
