"""How long a pod with a wire takes from `kubectl apply` to its first answered ping, in parts: `-s` shows the table."""

import json
import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.k8s.system import EXAMPLES, eventually

pytestmark = pytest.mark.timeout(300)

NODES = ["the endpoint's node", "another node"]
SCRIPT = """
until ping -c 1 -W 1 -I nsm-1 172.20.0.0 >/dev/null 2>&1 || ping -c 1 -W 1 -I nsm-1 172.20.0.2 >/dev/null 2>&1
do sleep 0.02; done
date +%s.%N; sleep infinity
"""


@pytest.fixture(scope="module")
def mine(system):
    """kubectl in a namespace with an endpoint and nothing else."""
    with system.kubectl.applied(EXAMPLES / "deployment"):
        mine = system.kubectl.within("nsm-deployment")
        mine("delete", "deployment/web", "--cascade=foreground")
        mine.rolled_out("deployment/nse")
        yield mine
    assert eventually(lambda: not system.left()), system.left()


@pytest.mark.parametrize("where", NODES)
def test_a_new_pod_pings_within_ten_seconds(mine, where):
    (endpoint,) = mine.get("pods", "-l", "app=nse")["items"]
    operator = "In" if where == NODES[0] else "NotIn"
    begin = time.time()
    mine("apply", "-f", "-", stdin=json.dumps(pod(endpoint["spec"]["nodeName"], operator)))
    pinged = eventually(lambda: said(mine))
    parts = split(mine, begin, float(pinged))
    for part, seconds in parts.items():
        print(f"{where}: {part:40} {seconds:.2f} s")
    assert all(seconds >= -0.02 for seconds in parts.values()), parts  # processes' starts are known to 10 ms
    assert float(pinged) - begin < 10, parts
    mine("delete", "pod/first", "--timeout=60s")


def said(kubectl):
    """What the application has written."""
    return kubectl.run("logs", "first", "-c", "app").stdout.strip()


def pod(node, operator):
    """A pod on that node, or on none but that."""
    here = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": operator, "values": [node]}]}
    chosen = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}
    spec = {
        "affinity": {"nodeAffinity": chosen},
        "terminationGracePeriodSeconds": 2,
        "securityContext": {"sysctls": [{"name": "net.ipv4.ping_group_range", "value": "0 2147483647"}]},
        "containers": [{"name": "app", "image": "localhost/nsm/nsc-tools:0.1.0", "command": ["sh", "-c", SCRIPT]}],
    }
    about = {"name": "first", "annotations": {"networkservicemesh.io": "kernel://icmp-responder/nsm-1"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}


def split(kubectl, begin, end):
    """Seconds of each part, in the order in which they come."""
    uid = kubectl.get("pod/first")["metadata"]["uid"]
    events = kubectl.get("events", "--field-selector", f"involvedObject.uid={uid},reason=Scheduled")["items"]
    told = {}
    for line in kubectl("logs", "first", "-c", "nsc").splitlines():
        entry = json.loads(line)
        told.setdefault(entry["event"], datetime.fromisoformat(entry["timestamp"]).timestamp())
    sandbox, client, app = starts(uid)
    moments = {
        "kubectl, webhook, scheduler": datetime.fromisoformat(events[0]["eventTime"]).timestamp(),
        "sandbox, network, volumes": sandbox,
        "start of the client's container": client,
        "the client, until it has an identity": told["identity"],
        "request and wire": told["wire up"],
        "until the kubelet starts the application": app,
        "first ping": end,
    }
    before = [begin, *moments.values()]
    return {name: moment - before[index] for index, (name, moment) in enumerate(moments.items())}


def starts(uid):
    """When the first processes of a pod's sandbox, client and application started, by their control groups."""
    booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            groups = (folder / "cgroup").read_text()
            ticks = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[19])
        except OSError:
            continue
        if uid in groups:
            container = groups.splitlines()[0].rsplit("/", 1)[1]
            found.setdefault(container, []).append(booted + ticks / os.sysconf("SC_CLK_TCK"))
    return sorted(min(times) for times in found.values())
