"""What a new version of the manifests does to a running mesh: all pods of all nodes are made anew, node by node."""

import json

import pytest

from tests.k8s.system import EXAMPLES, NAMESPACE, anew, eventually, restarts
from tests.k8s.wires import no_packet_lost

pytestmark = pytest.mark.timeout(400)

PARTS = ["daemonset/identity", "daemonset/nsmgr", "daemonset/forwarder-kernel", "deployment/registry"]
PING = ["exec", "client", "-c", "app", "--", "ping", "-c", "3", "-i", "0.2", "-I", "nsm-1", "172.20.0.0"]


def test_a_wire_outlives_the_pods_that_made_it_and_new_ones_are_made(system, kubectl):
    parts, mine = kubectl.within(NAMESPACE), kubectl.within("nsm-two-pods")
    with kubectl.applied(EXAMPLES / "two-pods"):
        mine.rolled_out("deployment/nse")
        client = impatient(anew(mine.get("pod/client")))
        mine("delete", "pod/client", "--now")
        mine("apply", "-f", "-", stdin=json.dumps(client))
        mine.ready("client")
        with no_packet_lost(mine, "client"):
            parts("rollout", "restart", *PARTS)
            parts.rolled_out(*PARTS)
            assert restarts(kubectl) == system.restarts
            assert eventually(lambda: refreshed(mine)), mine("logs", "client", "-c", "nsc", "--tail=20")
        mine("delete", "pod/client", "--now")
        mine("apply", "-k", EXAMPLES / "two-pods")
        mine.ready("client")
        mine(*PING)
    assert eventually(lambda: not system.left()), system.left()


def impatient(pod):
    """The pod with a client that refreshes its wire every few seconds."""
    pod["spec"]["initContainers"][0]["env"].append({"name": "NSM_MAX_TOKEN_LIFETIME", "value": "40s"})
    return pod


def refreshed(kubectl):
    """Whether the client's last word is not about a refresh that failed, for longer than its longest pause."""
    recent = kubectl("logs", "client", "-c", "nsc", "--since=12s")
    return "refresh failed" not in recent
