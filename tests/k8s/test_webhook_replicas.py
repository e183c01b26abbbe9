"""Webhooks that come and go beside a real API server."""

import json

import pytest

from tests.k8s.webhook_cluster import ROOT, URLS, Refused, clients, cluster, pod, until


@pytest.fixture(scope="module")
def kube(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("webhook")) as found:
        yield found


def test_a_webhook_that_ends_as_the_last_one_leaves_nothing(kube):
    """And the next one can begin."""
    with kube.webhook() as (process, _):
        assert "nsm-webhook" in kube("get", "mutatingwebhookconfigurations", "-o", "name")
    assert process.returncode == 0
    assert kube("get", "mutatingwebhookconfigurations", "-o", "name") == ""
    with kube.webhook(NSM_SIDECARS="classic"):
        (stored,) = kube.apply(pod("classic", URLS))
        assert clients(stored) == [["nsc-init"], ["app", "nsc"]]


def test_a_certificate_is_renewed_while_pods_are_made(kube):
    """Its lifetime is a minute, so it changes after 40 s; every pod gets its client."""
    with kube.webhook(NSM_CERTIFICATE_LIFETIME="60s") as (_, log):
        number = 0
        while log.read_text().count('"event": "certificate"') < 2:
            (stored,) = kube.apply(pod(f"renewal-{number}", URLS))
            assert clients(stored) == [["nsc"], ["app"]]
            number += 1
        (stored,) = kube.apply(pod(f"renewal-{number}", URLS))
        assert clients(stored) == [["nsc"], ["app"]]


def test_a_role_that_lacks_a_permission_is_one_line_and_granting_it_is_enough(kube):
    kube("delete", "clusterrolebinding", "nsm-webhook")
    restore = ["apply", "-f", str(ROOT / "k8s/webhook/rbac.yaml")]
    try:
        with kube.webhook(told="cannot register") as (_, log):
            until(lambda: "cannot follow objects" in log.read_text())
            account = "system:serviceaccount:nsm-system:webhook"
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            (error,) = [line["error"] for line in lines if line["event"] == "cannot register"]
            assert error == (
                f"{account} may not get mutatingwebhookconfigurations.admissionregistration.k8s.io 'nsm-webhook' in the "
                "cluster: grant it the verb 'get' on mutatingwebhookconfigurations.admissionregistration.k8s.io by a "
                "ClusterRole"
            )
            (error,) = [line["error"] for line in lines if line["event"] == "cannot follow objects"]
            assert (
                error
                == f"{account} may not list namespaces in the cluster: grant it the verb 'list' on namespaces by a ClusterRole"
            )
            kube(*restore)
            until(lambda: "ready: the API server knows" in log.read_text())
            until(lambda: "following objects again" in log.read_text())
    finally:
        kube(*restore)


def test_while_no_webhook_is_there_annotated_pods_are_refused_at_once_and_others_are_made(kube):
    with kube.webhook() as (process, _):
        process.kill()
        process.wait(20)
    try:
        with pytest.raises(Refused, match=r"failed calling webhook \"workloads\..*: connection refused"):
            kube.apply(pod("nobody-there", URLS))
        (plain,) = kube.apply(pod("plain-while-away"))
        assert clients(plain) == [[], ["app"]]
        with kube.webhook():
            (stored,) = kube.apply(pod("nobody-there", URLS))
            assert clients(stored) == [["nsc"], ["app"]]
    finally:  # who is killed leaves its authority
        kube("delete", "mutatingwebhookconfiguration", "nsm-webhook", "--ignore-not-found")
