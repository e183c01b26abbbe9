"""`nsm cluster-info` beside an API server: the properties of a cluster as labels in a ConfigMap."""

import asyncio
from contextlib import asynccontextmanager

import yaml

from nsm.chains.config import load
from nsm.kube import connect
from nsm.services.cluster_info.main import ClusterInfoConfig, labels_of, write_labels
from tests.kube.stand_in import eventually, stand_in

PROPERTIES = "/apis/about.k8s.io/v1alpha1/clusterproperties"
OUTPUT = "/api/v1/namespaces/default/configmaps/cluster-info"


def config(**environment):
    return load(ClusterInfoConfig, environment).config


def test_a_property_becomes_a_label_of_its_name_or_of_another():
    properties = [
        {"metadata": {"name": "id.k8s.io"}, "spec": {"value": "my.cluster1"}},
        {"metadata": {"name": "zone"}, "spec": {"value": "a"}},
        {"metadata": {"name": "empty"}},
    ]
    assert labels_of(properties, config()) == {"clusterName": "my.cluster1", "zone": "a"}
    assert labels_of(properties, config(NSM_TRANSLATION_MAP="zone:place"))["place"] == "a"


@asynccontextmanager
async def writing(server):
    async with connect(server.url) as api:
        task = asyncio.ensure_future(write_labels(config(), api))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def written(server):
    return yaml.safe_load(server.at(OUTPUT)["data"]["config.yaml"]) if OUTPUT in server.paths() else None


async def test_the_labels_are_in_the_config_map_and_what_else_is_there_stays():
    async with stand_in() as server:
        server.put(f"{PROPERTIES}/id.k8s.io", spec={"value": "my.cluster1"})
        async with writing(server):
            await eventually(lambda: written(server) == {"clusterName": "my.cluster1"})
            server.put(OUTPUT, data={"config.yaml": "own: label\nclusterName: my.cluster1\n"})
            server.put(f"{PROPERTIES}/zone", spec={"value": "a"})
            expected = {"clusterName": "my.cluster1", "own": "label", "zone": "a"}
            await eventually(lambda: written(server) == expected)
