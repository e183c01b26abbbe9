"""`nsm webhook` as a process beside an API server's stand-in: what it registers, answers, says and leaves."""

import asyncio

import jsonpatch
import pytest

from tests.kube.stand_in import eventually, forbidden, stand_in
from tests.webhook.process import CONFIGURATION, NAMESPACES, bundle, webhook
from tests.webhook.reviews import KEY, containers, patch_of, pod, review
from tests.webhook.serving import Caller


async def test_it_registers_itself_answers_and_leaves_nothing(tmp_path):
    async with stand_in() as api:
        api.put(f"{NAMESPACES}/default")
        api.put(f"{NAMESPACES}/shop")
        annotated = api.at(f"{NAMESPACES}/shop")
        annotated["metadata"]["annotations"] = {KEY: "kernel://a/nsm-1"}
        async with webhook(api, tmp_path) as running:
            port = await running.port()
            await eventually(lambda: CONFIGURATION in api.paths())
            await eventually(lambda: running.told("namespace labelled"))
            assert running.told("namespace labelled")[0]["labels"] == {"networkservicemesh.io/annotated": "true"}
            assert f"PATCH {NAMESPACES}/shop" in api.requests
            assert f"PATCH {NAMESPACES}/default" not in api.requests
            async with Caller(port, bundle(api)) as caller:
                await eventually(lambda: running.told("ready: the API server knows the certificate"))
                assert await caller.get("/ready") == (200, "ready\n")
                status, answer = await caller.post("/mutate", json=review(pod("kernel://a/nsm-1")))
                assert status == 200
                (init,) = [each["value"] for each in patch_of(answer) if each["path"] == "/spec/initContainers"]
                assert containers({"containers": init}) == ["nsc"]  # native: the stand-in is a 1.34
            assert await running.end() == 0
        assert CONFIGURATION not in api.paths()
        assert not [line for line in running.lines if line["level"] in {"warning", "error"}]


@pytest.mark.parametrize(
    ("minor", "setting", "first", "others"),
    [
        ("28", {}, ["nsc-init"], ["app", "nsc"]),
        ("29", {}, ["nsc"], ["app"]),
        ("34", {"NSM_SIDECARS": "auto"}, ["nsc"], ["app"]),
        ("34", {"NSM_SIDECARS": "classic"}, ["nsc-init"], ["app", "nsc"]),
        ("28", {"NSM_SIDECARS": "native"}, ["nsc"], ["app"]),
    ],
)
async def test_what_is_injected_goes_by_the_clusters_version_unless_a_setting_says(
    tmp_path, minor, setting, first, others
):
    async with stand_in() as api:
        api.minor = minor
        api.put(f"{NAMESPACES}/default")
        async with webhook(api, tmp_path, **setting) as running:
            port = await running.port()
            await eventually(lambda: running.told("ready: the API server knows the certificate"))
            async with Caller(port, bundle(api)) as caller:
                status, answer = await caller.post("/mutate", json=review(pod("kernel://a/nsm-1")))
        assert status == 200
        stored = jsonpatch.apply_patch(pod("kernel://a/nsm-1"), patch_of(answer))["spec"]
        assert (containers(stored, "initContainers"), containers(stored)) == (first, others)


async def test_of_two_replicas_either_is_trusted_and_the_second_to_go_removes_the_configuration(tmp_path):
    async with stand_in() as api, webhook(api, tmp_path) as one, webhook(api, tmp_path) as other:
        ports = [await one.port(), await other.port()]
        await eventually(lambda: CONFIGURATION in api.paths() and bundle(api).count("BEGIN") == 2)
        for port in ports:
            async with Caller(port, bundle(api)) as caller:
                status, _ = await caller.post("/mutate", json=review({"kind": "Service"}))
                assert status == 200
        assert await one.end() == 0
        assert bundle(api).count("BEGIN") == 1
        assert await other.end() == 0
        assert CONFIGURATION not in api.paths()


async def test_a_missing_permission_is_one_line_and_the_webhook_is_not_ready(tmp_path):
    def refuse(request):
        return forbidden(request) if "mutatingwebhook" in request.path or request.path == NAMESPACES else None

    async with stand_in() as api:
        api.refuse = lambda request: refuse(request) if request.path.count("/") < 5 else None
        async with webhook(api, tmp_path) as running:
            await running.port()
            await eventually(lambda: running.told("cannot register") and running.told("cannot follow objects"))
            (line,) = running.told("cannot register")
            assert "mutatingwebhookconfigurations" in line["error"]
            assert "grant it the verb 'create'" in line["error"]
            (line,) = running.told("cannot follow objects")
            assert "grant it the verb 'list' on namespaces by a ClusterRole" in line["error"]
            api.refuse = None
            await eventually(lambda: CONFIGURATION in api.paths())


async def test_an_api_server_that_is_not_there_yet_is_waited_for(tmp_path):
    async with stand_in() as api:
        await api.stop()
        async with webhook(api, tmp_path) as running:
            await eventually(lambda: running.told("cannot get the version of the API server yet"), 15)
            await api.start()
            await running.port()


async def test_a_webhook_that_waits_for_an_api_server_can_be_stopped(tmp_path):
    async with stand_in() as api:
        await api.stop()
        async with webhook(api, tmp_path) as running:
            await eventually(lambda: running.told("cannot get the version of the API server yet"), 15)
            assert await running.end() == 0


@pytest.mark.parametrize("name", ["NSM_CERT_FILE_PATH", "NSM_KEY_FILE_PATH"])
async def test_files_that_are_not_there_are_one_line(tmp_path, name):
    files = {"NSM_CERT_FILE_PATH": str(tmp_path / "tls.crt"), "NSM_KEY_FILE_PATH": str(tmp_path / "tls.key")}
    async with stand_in() as api, webhook(api, tmp_path, NSM_WEBHOOK_MODE="spire", **files) as running:
        assert await asyncio.wait_for(running.process.wait(), 15) == 1
        await running.end()
        (line,) = running.told("stopped")
        assert "tls.crt" in line["error"]
        assert files[name].rpartition("/")[2] in line["error"]
