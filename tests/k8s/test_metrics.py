"""`k8s/variants/metrics` over the running system: a Prometheus reads all of it, and its figures are right."""

import json
import re
import subprocess
import urllib.request

import pytest

from tests.k8s.prometheus import prometheus
from tests.k8s.system import EXAMPLES, MANIFESTS, NAMESPACE, eventually
from tests.k8s.wires import endpoint_of

pytestmark = pytest.mark.timeout(300)

PARTS = ["daemonset/forwarder-kernel", "deployment/webhook"]
EXPECTED = [("forwarder-kernel", "n1"), ("forwarder-kernel", "n2"), ("webhook", "n1"), ("webhook", "n2")]
CHANGED = 'nsm_webhook_admissions_total{kind="Deployment",result="changed"}'
PING = ["ping", "-q", "-c", "20", "-i", "0.05", "-s", "1000", "-I", "nsm-1"]


@pytest.fixture(scope="module")
def variant(system):
    """The variant, until these tests are through; then the system is as it was."""
    kubectl, parts = system.kubectl, system.kubectl.within(NAMESPACE)
    try:
        kubectl("apply", "-k", MANIFESTS / "variants/metrics")
        parts.rolled_out(*PARTS)
        yield parts
    finally:
        kubectl("apply", "-k", MANIFESTS)
        parts("delete", "networkpolicy/webhook-metrics", "--ignore-not-found")
        parts.rolled_out(*PARTS)


@pytest.fixture(scope="module")
def reading(variant, tmp_path_factory):
    with prometheus(there(variant), tmp_path_factory.mktemp("prometheus")) as running:
        assert eventually(lambda: where_it_reads(running) == EXPECTED), running.targets()
        yield running


def there(kubectl):
    """The pods of the system that are not about to go."""
    return [pod for pod in kubectl.get("pods")["items"] if "deletionTimestamp" not in pod["metadata"]]


def where_it_reads(running):
    """Component and node of all that is up; what is not, or has ended, is none of them."""
    return sorted((labels["component"], labels["node"]) for labels, health, _ in running.targets() if health == "up")


def test_every_forwarder_and_webhook_is_annotated_and_prometheus_reads_it(reading):
    assert eventually(lambda: reading.sum("up") == len(EXPECTED)), reading.values("up")
    assert reading.sum("nsm_webhook_registered") == 2
    left = reading.values("nsm_webhook_certificate_expiration_timestamp_seconds - time()")
    assert [round(seconds / 86400) for _, seconds in left] == [30, 30]


def test_a_wire_and_its_packets_are_counted_and_the_admission_that_made_it(system, kubectl, reading):
    mine, before = kubectl.within("nsm-deployment"), reading.sum(CHANGED)
    with kubectl.applied(EXAMPLES / "deployment"):
        mine.rolled_out("deployment/nse", "deployment/web")
        assert eventually(lambda: reading.sum(CHANGED) > before), reading.values("nsm_webhook_admissions_total")
        pod = mine.get("pods", "-l", "app=web")["items"][0]
        wire = f'client_rx_packets_total{{nsc=~"{pod["metadata"]["name"]}.*"}}'
        assert eventually(lambda: len(reading.values(wire)) == 1), reading.values("client_rx_packets_total")
        ((labels, packets),) = reading.values(wire)
        assert (labels["network_service"], labels["nsc_interface"]) == ("icmp-responder", "nsm-1")
        assert labels["node"] == pod["spec"]["nodeName"]
        bytes_of_wire = wire.replace("packets", "bytes")
        sent = reading.sum(bytes_of_wire)
        mine(
            "exec", pod["metadata"]["name"], "-c", "web", "--", *PING, endpoint_of(mine, pod["metadata"]["name"], "web")
        )
        # a tunnel's interface counts what it receives without the 14 bytes of a frame's header
        assert eventually(lambda: reading.sum(bytes_of_wire) >= sent + 20 * 1028), reading.values(bytes_of_wire)
        assert packets + 20 <= reading.sum(wire) < packets + 40  # besides the pings, neighbours are asked for
        assert reading.sum(bytes_of_wire) < sent + 20 * 1042 + 20 * 100
    assert eventually(lambda: not reading.values(wire)), "a wire that is gone is still counted"
    assert eventually(lambda: not system.left()), system.left()


def test_a_refused_pod_is_counted(kubectl, reading):
    refused = 'nsm_webhook_admissions_total{kind="Pod",result="refused"}'
    before = reading.sum(refused)
    words = ["run", "nonsense", "--image=none", "--annotations=networkservicemesh.io=kernl://nothing"]
    assert kubectl.run(*words).returncode != 0
    assert eventually(lambda: reading.sum(refused) == before + 1), reading.values("nsm_webhook_admissions_total")


def test_promtool_finds_nothing_to_say_about_what_the_webhook_serves(variant):
    for pod in there(variant):
        if pod["metadata"]["labels"]["app"] == "nsm-webhook":
            with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8081/metrics", timeout=5) as answer:
                told = answer.read()
            assert b"nsm_webhook_registered 1.0" in told
            words = ["promtool", "check", "metrics"]
            checked = subprocess.run(words, input=told, capture_output=True, timeout=30, check=False)
            assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.parametrize("board", sorted(path.name for path in (MANIFESTS / "metrics/grafana").iterdir()))
def test_prometheus_answers_every_expression_of_a_dashboard(reading, board):
    """Grafana itself is in no registry; its variables are filled in as it would."""
    read = json.loads((MANIFESTS / "metrics/grafana" / board).read_text())
    asked = [target["expr"] for panel in read["panels"] for target in panel.get("targets", ())]
    for expression in asked:
        filled = expression.replace("$__rate_interval", "10s").replace("$client", "web")
        reading.values(re.sub(r"\$(node|service|interface)", ".*", filled))  # an invalid one is an error of HTTP
    assert asked
