"""What a real API server asks the webhook about, and what becomes of objects."""

import signal
import time

import pytest

from tests.k8s.webhook_cluster import KEY, LABEL, SPREAD, URLS, Refused, clients, cluster, pod, until, workload


@pytest.fixture(scope="module")
def kube(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("webhook")) as found:
        yield found


@pytest.fixture(scope="module")
def running(kube):
    """A webhook that runs while its tests do."""
    with kube.webhook() as found:
        yield found


@pytest.mark.usefixtures("running")
def test_an_annotated_pod_is_stored_with_a_native_sidecar(kube):
    (stored,) = kube.apply(pod("annotated", URLS))
    assert clients(stored) == [["nsc"], ["app"]]
    client = stored["spec"]["initContainers"][0]
    assert client["restartPolicy"] == "Always"
    assert client["startupProbe"]["exec"]["command"][:2] == ["sh", "-c"]
    assert {"name": "NSM_NETWORK_SERVICES", "value": URLS} in client["env"]
    assert stored["metadata"]["labels"] == {"spiffe.io/spiffe-id": "true"}


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job", "CronJob"])
def test_an_annotated_workload_is_stored_with_it_and_applying_it_again_changes_nothing(kube, kind):
    mine = workload(kind, f"kind-{kind.lower()}", URLS)
    (first,) = kube.apply(mine)
    assert clients(first) == [["nsc"], ["app"]]
    (second,) = kube.apply(mine)
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


@pytest.mark.usefixtures("running")
def test_a_change_of_a_deployments_annotation_reaches_its_template_and_its_end_too(kube):
    mine = workload("Deployment", "changing", URLS)
    kube.apply(mine)
    mine["metadata"]["annotations"][KEY] = "kernel://other"
    (changed,) = kube.apply(mine)
    assert clients(changed) == [["nsc"], ["app"]]
    client = changed["spec"]["template"]["spec"]["initContainers"][0]
    assert {"name": "NSM_NETWORK_SERVICES", "value": "kernel://other"} in client["env"]
    kube("annotate", "deployment", "changing", f"{KEY}-")
    assert clients(kube.get("deployment", "changing")) == [[], ["app"]]
    kube("annotate", "deployment", "changing", f"{KEY}=kernel://again")
    assert clients(kube.get("deployment", "changing")) == [["nsc"], ["app"]]


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("kernl://a", "'kernl://a': mechanism kernl is unknown; use kernel://"),
        ("memif://a", "'memif://a': nothing in this cluster serves memif://"),
        ("kernel://a@far", "'kernel://a@far': services of the domain 'far' cannot be reached from here"),
        ("kernel://", "'kernel://' names no service"),
        ("kernel://a/sixteen-letters-", "'sixteen-letters-' has 16 bytes; an interface name has at most 15"),
        ("kernel://a/x,kernel://b/x", "interface 'x' is requested twice"),
    ],
)
@pytest.mark.parametrize("kind", ["Pod", "Deployment"])
def test_a_malformed_annotation_is_refused_with_the_bad_part(kube, kind, value, said):
    item = pod("bad", value) if kind == "Pod" else workload(kind, "bad", value)
    with pytest.raises(Refused) as caught:
        kube.apply(item)
    assert f"denied the request: annotation {KEY} of {kind} default/bad: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("kind", ["Pod", "Deployment", "CronJob"])
def test_who_writes_an_annotation_that_is_like_the_right_one_is_warned(kube, kind):
    item = pod("near") if kind == "Pod" else workload(kind, "near", None)
    item["metadata"]["annotations"] = {"ns.networkservicemesh.io": "web", "other": URLS, "third": "x"}
    told = kube.warnings(item)
    for key in ("ns.networkservicemesh.io", "other"):
        assert f"annotation '{key}' of {kind} default/near is ignored; expected '{KEY}'" in told
    assert "third" not in told


@pytest.mark.usefixtures("running")
def test_pods_of_an_annotated_namespace_are_injected_from_the_first_one_on(kube):
    """Both in one request: the label is there as soon as the annotation is."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "annotations": {KEY: URLS}}}
    stored = kube.apply(namespace, pod("first", namespace="shop"), pod("none", "", namespace="shop"))
    assert stored[0]["metadata"]["labels"][LABEL] == "true"
    assert clients(stored[1]) == [["nsc"], ["app"]]
    assert clients(stored[2]) == [[], ["app"]]
    with pytest.raises(Refused, match="denied the request: annotation .* of Namespace shop: 'x' names no service"):
        kube("annotate", "--overwrite", "namespace", "shop", f"{KEY}=x")
    kube("annotate", "namespace", "shop", f"{KEY}-")
    assert LABEL not in kube.get("namespace", "shop")["metadata"]["labels"]


@pytest.mark.usefixtures("running")
def test_a_namespace_that_enforces_restricted_takes_an_injected_pod(kube):
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}})
    allowed = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    (stored,) = kube.apply(pod("app", URLS, "strict", container={"securityContext": allowed}))
    assert clients(stored) == [["nsc"], ["app"]]
    drivers = [volume["csi"]["driver"] for volume in stored["spec"]["volumes"] if "csi" in volume]
    assert drivers == ["csi.spiffe.io", "csi.networkservicemesh.io"]
    assert not [volume for volume in stored["spec"]["volumes"] if "hostPath" in volume]


def test_who_wants_no_wires_does_not_notice_a_webhook_that_hangs(kube, running):
    process, _ = running
    process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        kube.apply(pod("plain"))
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "plain"}})
        kube.apply(pod("plain", namespace="nsm-system"))
        assert time.monotonic() - began < 4.5  # one waits 5 s for the webhook
        with pytest.raises(Refused, match="failed calling webhook"):
            kube.apply(pod("waits", URLS))
        namespace = {"name": "late", "annotations": {KEY: URLS}}
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": namespace})
    finally:
        process.send_signal(signal.SIGCONT)
    until(lambda: kube.get("namespace", "late")["metadata"]["labels"].get(LABEL) == "true")


def test_a_configuration_that_somebody_removes_comes_back(kube, running):
    kube("delete", "mutatingwebhookconfiguration", "nsm-webhook")
    until(lambda: "nsm-webhook" in kube("get", "mutatingwebhookconfigurations", "-o", "name"), seconds=45)
    time.sleep(SPREAD)
    (stored,) = kube.apply(pod("after", URLS))
    assert clients(stored) == [["nsc"], ["app"]]
