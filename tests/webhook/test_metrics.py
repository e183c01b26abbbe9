"""What Prometheus reads at the webhook's /metrics."""

import asyncio
import datetime
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from nsm.chains.core import Unavailable
from nsm.chains.metrics import also, metrics
from nsm.webhook.certificate import ServerCertificate
from nsm.webhook.counters import BOUNDS, Admissions
from nsm.webhook.figures import figures
from nsm.webhook.main import WebhookConfig
from tests.kube.stand_in import eventually, forbidden, stand_in
from tests.webhook.process import CONFIGURATION, bundle, webhook
from tests.webhook.reviews import Cluster, pod, review
from tests.webhook.serving import HOST, Caller

METRICS = {"PROMETHEUS": "true", "NSM_PROMETHEUS_LISTEN_ON": "127.0.0.1:0"}


async def samples(port):
    """Values by name and labels."""

    def ask():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return answer.read().decode()

    families = list(text_string_to_metric_families(await asyncio.to_thread(ask)))
    found = [sample for family in families for sample in family.samples]
    return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value for sample in found}


async def metrics_of(running):
    """Where a process serves them."""
    await eventually(lambda: running.told("metrics are served"), 15)
    return int(running.told("metrics are served")[0]["port"])


async def test_admissions_are_counted_by_kind_and_by_what_was_answered(tmp_path):
    async with stand_in() as api:
        api.put("/api/v1/namespaces/default")
        async with webhook(api, tmp_path, **METRICS) as running:
            port, figures = await running.port(), await metrics_of(running)
            await eventually(lambda: running.told("ready: the API server knows the certificate"))
            async with Caller(port, bundle(api)) as caller:
                for item in (pod("kernel://a/nsm-1"), pod("kernel://a/nsm-1"), pod("kernl://a"), pod(None)):
                    status, _ = await caller.post("/mutate", json=review(item))
                    assert status == 200
                await caller.post("/mutate", json=review({"kind": "Namespace", "metadata": {"name": "default"}}))
            found = await samples(figures)
        name = "nsm_webhook_admissions_total"
        assert {key[1:]: value for key, value in found.items() if key[0] == name} == {
            ("Pod", "changed"): 2,
            ("Pod", "refused"): 1,
            ("Pod", "untouched"): 1,
            ("Namespace", "untouched"): 1,
        }
        assert found["nsm_webhook_admission_duration_seconds_count",] == 5
        assert found["nsm_webhook_admission_duration_seconds_bucket", "+Inf"] == 5
        assert 0 < found["nsm_webhook_admission_duration_seconds_sum",] < 5


async def test_the_expiry_of_the_certificate_is_what_its_certificate_says(tmp_path):
    async with stand_in() as api, webhook(api, tmp_path, NSM_CERTIFICATE_LIFETIME="2h", **METRICS) as running:
        figures = await metrics_of(running)
        await eventually(lambda: running.told("certificate"))
        expires = datetime.datetime.fromisoformat(running.told("certificate")[0]["expires"]).timestamp()
        found = await samples(figures)
        assert found["nsm_webhook_certificate_expiration_timestamp_seconds",] == expires


async def test_whether_it_is_registered_is_a_figure_that_changes(tmp_path):
    async with stand_in() as api:
        api.refuse = lambda request: forbidden(request) if "mutatingwebhook" in request.path else None
        async with webhook(api, tmp_path, **METRICS) as running:
            figures = await metrics_of(running)
            await eventually(lambda: running.told("cannot register"))
            assert (await samples(figures))["nsm_webhook_registered",] == 0
            api.refuse = None
            await eventually(lambda: CONFIGURATION in api.paths())
            await eventually(lambda: running.told("ready: the API server knows the certificate"))
            assert (await samples(figures))["nsm_webhook_registered",] == 1


async def test_without_being_asked_for_there_are_no_metrics(tmp_path):
    async with stand_in() as api, webhook(api, tmp_path) as running:
        await running.port()
        await eventually(lambda: running.told("ready: the API server knows the certificate"))
        assert not running.told("metrics are served")


async def test_a_namespace_that_cannot_be_asked_about_is_counted_as_undecided():
    cluster = Cluster(namespaces={})
    with pytest.raises(Unavailable):
        await cluster.answer(pod("kernel://a"))
    assert cluster.admission.counts.results == {("Pod", "undecided"): 1}


def test_kinds_that_nobody_registers_are_one_figure():
    """Whoever reaches the port may ask about anything; that makes no series without end."""
    admissions = Admissions()
    for number in range(1000):
        admissions.count("", f"Kind{number}", "untouched", 0.001)
    admissions.count("apps", "Pod", "untouched", 0.001)
    assert admissions.results == {("other", "untouched"): 1001}


async def test_where_somebody_else_registers_there_is_no_figure_of_that():
    admissions, certificate = Admissions(), ServerCertificate(HOST)
    for seconds in (BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1] * 2):
        admissions.count("", "Pod", "changed", seconds)
    config = WebhookConfig(prometheus=True, prometheus_listen_on=("127.0.0.1", 0), prometheus_metrics_prefix="mesh")
    with capture_logs() as logs:
        with also(figures(admissions, lambda: certificate.expires, lambda: None)):
            async with metrics(config):
                await eventually(lambda: any(line["event"] == "metrics are served" for line in logs))
                found = await samples(logs[-1]["port"])
    names = {key[0] for key in found}
    assert "mesh_nsm_webhook_admissions_total" in names
    assert not [name for name in names if "registered" in name or "expiration" in name]
    buckets = [value for key, value in found.items() if key[0].endswith("admission_duration_seconds_bucket")]
    assert buckets == [1, *[2] * (len(BOUNDS) - 1), 3]
