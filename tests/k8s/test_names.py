"""Names that a wire brings, in pods whose client the webhook put there: as shipped, where nobody may be root."""

import json

import pytest

from tests.k8s.system import EXAMPLES, eventually
from tests.k8s.workloads import pod_template

pytestmark = pytest.mark.timeout(300)

NAMESPACE = "nsm-two-pods"
DNS = '[{"dns_server_ips": ["172.20.0.0"], "search_domains": ["mesh.test"]}]'
PORTS = "net.ipv4.ip_unprivileged_port_start"
SERVER = """
import socket, dns.message, dns.rrset
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("0.0.0.0", 53))
    while True:
        data, peer = sock.recvfrom(4096)
        asked = dns.message.from_wire(data)
        answer, name = dns.message.make_response(asked), asked.question[0].name
        if name.to_text().lower() != "shop.mesh.test.":
            answer.set_rcode(3)
        elif asked.question[0].rdtype == 1:
            answer.answer = [dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.7")]
        sock.sendto(answer.to_wire(), peer)
"""


@pytest.fixture(scope="module")
def mine(system):
    """The namespace of an endpoint that knows names, which enforces `restricted`."""
    with system.kubectl.applied(EXAMPLES / "two-pods"):
        mine = system.kubectl.within(NAMESPACE)
        mine("delete", "pod/client", "--now")
        mine("patch", "deployment/nse", "-p", json.dumps(knows_names()))
        mine.rolled_out("deployment/nse")
        yield mine
    assert eventually(lambda: not system.left()), system.left()


def knows_names():
    """What makes the endpoint's pods tell of a server for names, which runs beside them."""
    least = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    server = {
        "name": "names",
        "image": "localhost/nsm/nsc-tools:0.1.0",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", SERVER],
        "securityContext": least,
    }
    nse = {"name": "nse", "env": [{"name": "NSM_DNS_CONFIGS", "value": DNS}]}
    spec = {"securityContext": {"sysctls": [{"name": PORTS, "value": "53"}]}, "containers": [nse, server]}
    return {"spec": {"template": {"spec": spec}}}


def client(name, **sysctls):
    template = pod_template("sleep infinity")
    template["metadata"]["name"] = name
    context = template["spec"]["securityContext"]
    context["sysctls"] = [*context["sysctls"], *({"name": key, "value": value} for key, value in sysctls.items())]
    return json.dumps({"apiVersion": "v1", "kind": "Pod", **template})


def test_a_name_of_a_wire_is_found_and_those_of_the_cluster_as_before(mine):
    mine("apply", "-f", "-", stdin=client("app"))
    mine.ready("app")
    within = ("exec", "app", "-c", "app", "--")
    assert "192.0.2.7" in mine(*within, "getent", "ahostsv4", "shop")
    seen = mine(*within, "cat", "/etc/resolv.conf").splitlines()
    assert "nameserver 127.0.0.1" in seen
    assert [line for line in seen if line.startswith("options")] != []
    assert "uid=65532" in mine(*within, "id")
    mine("delete", "pod/app", "--timeout=60s")


def test_a_pod_is_not_ready_while_its_names_are_missing_and_one_event_says_why(mine):
    """Here the pod itself keeps its client from port 53."""
    mine("apply", "-f", "-", stdin=client("mute", **{PORTS: "1024"}))

    def told():
        events = mine.get("events", "--field-selector=involvedObject.name=mute,reason=Unhealthy")["items"]
        return [each for each in events if "cannot listen" in each["message"]]

    assert eventually(told)
    (event,) = told()
    assert "127.0.0.1:53: Permission denied" in event["message"].replace("permission", "Permission")
    (state,) = mine.get("pod", "mute")["status"]["initContainerStatuses"]
    assert not state["started"]
    mine("delete", "pod/mute", "--timeout=60s")
