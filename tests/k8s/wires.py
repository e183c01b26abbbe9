"""Pods that have wires, and what is seen of these from inside."""

import itertools
import json
import re
from contextlib import contextmanager

import yaml

from tests.cluster.layout import NODES
from tests.k8s.system import EXAMPLES, eventually

INTERVAL = 0.1
IN_BACKGROUND = "{} > /dev/shm/ping 2>&1 < /dev/null & echo $! > /dev/shm/pid"
END = "kill -INT $(cat /dev/shm/pid); until grep -q transmitted /dev/shm/ping; do sleep 0.1; done; cat /dev/shm/ping"


@contextmanager
def with_wires(system):
    """kubectl in a namespace with an endpoint, and pods with wires to it on its node, `near`, and on the other, `far`.

    At the end of the block all has gone, and the wires too.
    """
    with system.kubectl.applied(EXAMPLES / "namespace"):
        mine = system.kubectl.within("nsm-namespace")
        mine.rolled_out("deployment/nse")
        (endpoint,) = mine.get("pods", "-l", "app=nse")["items"]
        mine("delete", "pod/app", "--now")
        here = endpoint["spec"]["nodeName"]
        (there,) = set(NODES) - {here}
        for name, node in (("near", here), ("far", there)):
            mine("apply", "-f", "-", stdin=client(mine, name, node))
        mine.ready("near", "far")
        yield mine
    assert eventually(lambda: not system.left()), system.left()


def client(mine, name, node):
    """The pod of the example `namespace`, under another name, for a node: JSON."""
    made = yaml.safe_load_all(mine("kustomize", EXAMPLES / "namespace"))
    (pod,) = [each for each in made if each["kind"] == "Pod"]
    pod["metadata"]["name"] = name
    pod["spec"]["nodeName"] = node
    return json.dumps(pod)


def endpoint_of(mine, pod, container="app"):
    """The address at the far end of the pod's wire."""
    (route,) = json.loads(mine("exec", pod, "-c", container, "--", "ip", "-j", "-4", "route", "show", "dev", "nsm-1"))
    return route["dst"]


def pings(mine, pod):
    """Whether the endpoint answers over the pod's wire at this moment."""
    try:
        address = endpoint_of(mine, pod)
    except (AssertionError, ValueError):  # there is no wire, or not one
        return False
    return mine.run("exec", pod, "-c", "app", "--", *f"ping -c 1 -W 1 {address}".split()).returncode == 0


@contextmanager
def longest_gaps(mine, *pods):
    """Pings ten times a second; after the block the dictionary has each pod's longest time without an answer, in seconds.

    Not by the interface, which may be another one afterwards. The last ping has to be answered.
    """
    for pod in pods:
        ping = f"ping -n -i {INTERVAL} {endpoint_of(mine, pod)}"
        mine("exec", pod, "-c", "app", "--", "sh", "-c", IN_BACKGROUND.format(ping))
    gaps = {}
    yield gaps
    for pod in pods:
        said = mine("exec", pod, "-c", "app", "--", "sh", "-c", END)
        answered = [0, *map(int, re.findall(r"icmp_seq=(\d+) ttl", said))]
        gaps[pod] = INTERVAL * max(after - before for before, after in itertools.pairwise(answered))
        sent = int(re.search(r"(\d+) packets transmitted", said)[1])
        assert sent - answered[-1] < 5, said
    print(*(f"{pod}: {seconds:.1f} s without an answer" for pod, seconds in gaps.items()), sep="\n")


@contextmanager
def no_packet_lost(mine, *pods):
    """Pings over the wires of pods all the while; fails if one ping is not answered, and prints how many there were."""
    for pod in pods:
        ping = f"ping -q -i 0.2 -I nsm-1 {endpoint_of(mine, pod)}"
        mine("exec", pod, "-c", "app", "--", "sh", "-c", IN_BACKGROUND.format(ping))
    yield
    for pod in pods:
        said = mine("exec", pod, "-c", "app", "--", "sh", "-c", END)
        sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", said).groups())
        print(f"{pod}: {sent} packets, {sent - received} lost")  # for docs/kubernetes.md
        assert received == sent > 0, said
