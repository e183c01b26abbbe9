"""The variant by SPIRE: identities, wires, the webhook's certificate, and what happens when SPIRE's parts change."""

import base64
import json
import socket
import ssl

import pytest
from cryptography import x509

from tests.k8s.system import NAMESPACE, REGISTRATIONS, eventually
from tests.k8s.wires import endpoint_of, no_packet_lost
from tests.spire.spire import DOMAIN, MANIFESTS

pytestmark = pytest.mark.timeout(400)

ANNOTATION = "kernel://icmp-responder/nsm-1"
PING = ["ping", "-c", "3", "-i", "0.2", "-I", "nsm-1"]
WEBHOOK = "webhook.nsm-system.svc"
PARTS = ["nsmgr", "forwarder-kernel", "registry", "webhook"]
"""Containers that have an identity, each the only one of its pods."""


@pytest.fixture(scope="module")
def wires(system):
    """kubectl in a namespace with an endpoint and, on its node and on another, a pod with a wire to it."""
    system.kubectl("create", "namespace", "wires")
    mine = system.kubectl.within("wires")
    mine("apply", "-k", MANIFESTS / "endpoint")
    mine.rolled_out("deployment/nse")
    (endpoint,) = mine.get("pods", "-l", "app=nse")["items"]
    for name, operator in (("near", "In"), ("far", "NotIn")):
        apply(mine, client(name, node=(operator, endpoint["spec"]["nodeName"])))
    mine.ready("near", "far")
    yield mine
    system.kubectl("delete", "namespace", "wires", "--timeout=100s")
    assert eventually(lambda: not system.left()), system.left()


def client(name, node=None, labels=None):
    """A pod that is annotated; its client asks for its wire anew every few seconds."""
    spec = {
        "terminationGracePeriodSeconds": 2,
        "securityContext": {"sysctls": [{"name": "net.ipv4.ping_group_range", "value": "0 2147483647"}]},
        "containers": [{"name": "app", "image": "localhost/nsm/nsc-tools:0.1.0", "command": ["sleep", "infinity"]}],
    }
    if node:
        operator, name_of_node = node
        there = {"key": "kubernetes.io/hostname", "operator": operator, "values": [name_of_node]}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [there]}]}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    about = {"name": name, "labels": labels or {}, "annotations": {"networkservicemesh.io": ANNOTATION}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}


def apply(kubectl, *objects):
    kubectl("apply", "-f", "-", stdin="---\n".join(json.dumps(each) + "\n" for each in objects))


def told(kubectl, pod, container, event, *more):
    """The entries of a log with that event."""
    lines = kubectl("logs", pod, "-c", container, *more).splitlines()
    return [entry for line in lines if line.startswith("{") and (entry := json.loads(line))["event"] == event]


def ping(kubectl, pod):
    kubectl("exec", pod, "-c", "app", "--", *PING, endpoint_of(kubectl, pod))


def test_everything_comes_up_and_is_who_spire_says(system, kubectl):
    assert system.restarts == 0
    mine = kubectl.within(NAMESPACE)
    pods = mine.get("pods")["items"]
    seen = set()
    for pod in pods:
        for container in (each["name"] for each in pod["spec"]["containers"] if each["name"] in PARTS):
            name = pod["metadata"]["name"]
            (first, *_) = told(mine, name, container, "identity")
            assert first["spiffe_id"] == f"spiffe://{DOMAIN}/ns/{NAMESPACE}/pod/{name}"
            seen.add(container)
    assert seen == set(PARTS)


def test_pods_have_wires_on_the_endpoints_node_and_between_nodes(wires, kubectl):
    ping(wires, "near")
    ping(wires, "far")
    for pod in ("near", "far"):
        (first, *_) = told(wires, pod, "nsc", "identity")
        assert first["spiffe_id"] == f"spiffe://{DOMAIN}/ns/wires/pod/{pod}"


def test_a_record_says_by_which_identities_it_came(wires, kubectl):
    (endpoint,) = wires.get("pods", "-l", "app=nse")["items"]
    name, node = endpoint["metadata"]["name"], endpoint["spec"]["nodeName"]
    records = kubectl.within(NAMESPACE).get(REGISTRATIONS)["items"]
    (record,) = [each for each in records if each["spec"]["network_service_names"] == ["icmp-responder"]]
    managers = kubectl.within(NAMESPACE).get("pods", "-l", "app=nsmgr")["items"]
    (manager,) = [each["metadata"]["name"] for each in managers if each["spec"]["nodeName"] == node]
    assert record["spec"]["path_ids"][:2] == [
        f"spiffe://{DOMAIN}/ns/wires/pod/{name}",
        f"spiffe://{DOMAIN}/ns/{NAMESPACE}/pod/{manager}",
    ]


def authorities(kubectl):
    """What the API server believes of the webhook's certificate: PEM, the same in all entries."""
    entries = kubectl.get("mutatingwebhookconfiguration/nsm-webhook")["webhooks"]
    (bundle,) = {each["clientConfig"].get("caBundle", "") for each in entries}
    return base64.b64decode(bundle).decode()


def certificates(kubectl):
    """Of each of the webhook's pods, the certificate that it shows whoever trusts what the API server does."""
    trusting, found = ssl.create_default_context(cadata=authorities(kubectl)), {}
    for pod in kubectl.within(NAMESPACE).get("pods", "-l", "app=nsm-webhook")["items"]:
        with (
            socket.create_connection((pod["status"]["podIP"], 8443), timeout=5) as line,
            trusting.wrap_socket(line, server_hostname=WEBHOOK) as secure,
        ):
            found[pod["metadata"]["name"]] = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True))
    return found


def test_the_webhook_shows_its_svid_and_the_api_server_was_told_who_issued_it(system, kubectl):
    shown = certificates(kubectl)
    assert len(shown) == 2
    for pod, certificate in shown.items():
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
            f"spiffe://{DOMAIN}/ns/{NAMESPACE}/pod/{pod}"
        ]


def test_a_pod_without_an_entry_waits_and_says_why_and_gets_its_wire_with_the_label(wires, system):
    before = system.wires()
    apply(wires, client("nobody", labels={"spiffe.io/spiffe-id": "false"}))
    assert eventually(lambda: running_log(wires, "nobody", "no identity from the Workload API"))
    (entry,) = running_log(wires, "nobody", "no identity from the Workload API")
    assert entry["reason"] == "denied: no identity issued; is there an entry for this process?"
    assert sorted(system.wires()) == sorted(before)
    statuses = wires.get("pod/nobody")["status"]["containerStatuses"]
    assert [status["state"]["waiting"]["reason"] for status in statuses] == ["PodInitializing"]
    wires("label", "pod/nobody", "spiffe.io/spiffe-id=true", "--overwrite")
    wires.ready("nobody")
    ping(wires, "nobody")
    wires("delete", "pod/nobody")


def running_log(kubectl, pod, event):
    """As `told` of a client, or nothing where the container has not started yet."""
    return told(kubectl, pod, "nsc", event) if kubectl.run("logs", pod, "-c", "nsc").returncode == 0 else []


def identities(kubectl, pod):
    """How many identities a client has had."""
    return len(told(kubectl, pod, "nsc", "identity"))


def renewed(kubectl, *pods):
    """Says when each of the clients has had another identity than now."""
    before = {pod: identities(kubectl, pod) for pod in pods}
    return lambda: all(identities(kubectl, pod) > before[pod] for pod in pods)


def refreshed(kubectl):
    """No client could not refresh its wire."""
    return not [entry for pod in ("near", "far") for entry in told(kubectl, pod, "nsc", "refresh failed")]


def one_more_wire(kubectl):
    """A wire can be made now, by all parts anew."""
    apply(kubectl, client("more"))
    kubectl.ready("more")
    ping(kubectl, "more")
    kubectl("delete", "pod/more")


def test_wires_outlive_the_svids_that_made_them(wires, kubectl):
    """An SVID ends after a minute, and no token of a wire outlives its SVID."""
    before = certificates(kubectl)
    with no_packet_lost(wires, "near", "far"):
        for _ in range(3):
            assert eventually(renewed(wires, "near", "far")), "no new SVID"
        assert eventually(lambda: not same(before, certificates(kubectl))), "the webhook shows its old SVID"
    assert refreshed(wires)
    one_more_wire(wires)


def same(before, now):
    """Whether one of the pods still shows the certificate that it showed before."""
    return any(now[pod].serial_number == certificate.serial_number for pod, certificate in before.items())


def test_wires_outlive_agents_that_are_replaced(wires, spire):
    with no_packet_lost(wires, "near", "far"):
        is_renewed = renewed(wires, "near", "far")
        spire.restart_agents()
        assert eventually(is_renewed), "no SVID of the new agents"
    assert told(wires, "near", "nsc", "the Workload API is gone")
    assert refreshed(wires)
    one_more_wire(wires)


def test_wires_outlive_a_server_that_is_started_again(wires, spire):
    with no_packet_lost(wires, "near", "far"):
        spire.restart_server()
        assert eventually(renewed(wires, "near", "far")), "no SVID of the new server"
    assert refreshed(wires)
    one_more_wire(wires)


def test_wires_outlive_an_authority_that_is_revoked(wires, kubectl, spire):
    """As after the theft of its key: another one signs, then all that it signed is replaced, then nobody trusts it.

    That it is revoked SPIRE's notifier tells the API server when the server starts, not before.
    """
    with no_packet_lost(wires, "near", "far"):
        prepared = spire.prepare_authority()
        assert eventually(lambda: len(trusted(kubectl)) == 2), "the API server was not told of the new authority"
        old = spire.activate_authority(prepared)
        assert eventually(renewed(wires, "near", "far")), "no SVID by the new authority"
        spire.taint_authority(old)
        assert eventually(renewed(wires, "near", "far")), "no SVID by the new authority"
        spire.revoke_authority(old)
        assert eventually(renewed(wires, "near", "far")), "no SVID afterwards"
        one_more_wire(wires)
        spire.restart_server()
        assert eventually(lambda: len(trusted(kubectl)) == 1), "the API server was not told of the end of the old one"
        assert len(certificates(kubectl)) == 2
    assert refreshed(wires)
    one_more_wire(wires)


def trusted(kubectl):
    """The authorities by which the API server trusts the webhook."""
    return x509.load_pem_x509_certificates(authorities(kubectl).encode())
