"""What whoever asks a registry may count on, with its records in a real API server."""

import subprocess
from contextlib import asynccontextmanager

import pytest

from nsm.chains.composed import RegistrySettings
from nsm.kube import connect
from nsm.services.registry.custom_resources import custom_resource_registry
from nsm.services.registry.custom_resources.objects import ENDPOINT_FORM, SERVICE_FORM
from tests.cluster import api_server
from tests.docs.pages import ROOT
from tests.services.registry.calls import OWN
from tests.services.registry.test_what_a_registry_does import *  # noqa: F403 - each of its tests, with this store


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory):
    with api_server.serve(tmp_path_factory.mktemp("api")) as api:
        for words in (["apply", "-k", ROOT / "k8s" / "crds"], ["wait", "--for=condition=Established", "crd", "--all"]):
            subprocess.run([api.kubectl, "--kubeconfig", api.kubeconfig, *words], check=True, timeout=60)
        yield str(api.kubeconfig)


@pytest.fixture
def store(kubeconfig):
    @asynccontextmanager
    async def in_a_real_api_server(lifetime):
        where = {"namespace": "default", "kubeconfig": kubeconfig, "name": "registry"}
        async with custom_resource_registry(OWN, RegistrySettings(lifetime=lifetime), **where) as registry:
            yield registry
        async with connect(kubeconfig) as api:
            for form in (ENDPOINT_FORM, SERVICE_FORM):
                for found in (await api.list(form.resource)).objects:
                    await api.delete(form.resource, found["metadata"]["name"], "default")

    return in_a_real_api_server
