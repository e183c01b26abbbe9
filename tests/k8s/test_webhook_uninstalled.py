"""What is left when the webhook could not clean up behind itself."""

from tests.k8s.webhook_cluster import ROOT, cluster, until


def test_the_configuration_goes_with_the_namespace_when_the_webhook_may_not_remove_it(tmp_path):
    """`kubectl delete -k` takes the role along with the rest, in no order that would help."""
    with cluster(tmp_path, controllers=True) as kube:
        with kube.webhook() as (process, log):
            kube("delete", "-f", str(ROOT / "k8s/webhook/rbac.yaml"))
            process.terminate()
            process.wait(20)
            assert "the registration could not be removed" in log.read_text()
        assert "nsm-webhook" in kube("get", "mutatingwebhookconfigurations", "-o", "name")
        kube("delete", "namespace", "nsm-system", "--wait=false")
        until(lambda: kube("get", "mutatingwebhookconfigurations", "-o", "name") == "", seconds=60)
