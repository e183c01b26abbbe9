"""Writes the properties of a cluster into a ConfigMap, as labels for the domain's proxy."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import yaml

from nsm.chains.component import run_plain, unless_set
from nsm.chains.config import Common, pairs, text, variable
from nsm.chains.core import MeshError
from nsm.chains.logs import log
from nsm.chains.model.address_map import parse_labels
from nsm.chains.reading import read_yaml
from nsm.kube import CONFIG_MAPS, Api, Object, ObjectConflict, ObjectMissing, Reflector, Resource, connect

CLUSTER_PROPERTIES = Resource("about.k8s.io", "v1alpha1", "clusterproperties", "ClusterProperty", namespaced=False)
_PAUSE = 5.0
"""Seconds until a failed write is retried."""


@dataclass(frozen=True, kw_only=True)
class ClusterInfoConfig(Common):
    """Which properties become which labels, and where to write them."""

    name: str = variable("cluster-info-k8s", text, "the name in logs")
    configmap_name: str = variable("cluster-info", text, "the ConfigMap; it is created if it does not exist")
    namespace: str = variable("default", text, "its namespace")
    file_name: str = variable("config.yaml", text, "its entry, YAML; a proxy mounts it as NSM_CLUSTER_INFO_FILE")
    translation_map: dict[str, str] = variable(
        "id.k8s.io:clusterName", pairs, "labels by property; others have the name of their property"
    )


def main(arguments: list[str]) -> int:
    """Writes the properties of a Kubernetes cluster into a ConfigMap, as labels for the domain's proxy."""
    return run_plain("cluster-info", ClusterInfoConfig, _serve, arguments)


async def _serve(config: ClusterInfoConfig, stopping: asyncio.Event) -> None:
    async with connect() as api:
        await unless_set(stopping, write_labels(config, api))


async def write_labels(config: ClusterInfoConfig, api: Api) -> None:
    """Write the labels whenever they change, forever."""
    news = asyncio.Event()
    async with Reflector(api, CLUSTER_PROPERTIES) as properties:
        properties.on_change(lambda _change: news.set())
        await properties.synced()
        log.info("ready")
        while True:
            news.clear()
            pause = None if await _written(config, api, labels_of(properties.objects.values(), config)) else _PAUSE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await news.wait()


def labels_of(properties: object, config: ClusterInfoConfig) -> dict[str, str]:
    """The label of each property of the cluster."""
    labels = {}
    for found in properties:  # type: ignore[attr-defined]
        name, value = found["metadata"]["name"], (found.get("spec") or {}).get("value")
        if isinstance(value, str):
            labels[config.translation_map.get(name, name)] = value
    return labels


async def _written(config: ClusterInfoConfig, api: Api, labels: dict[str, str]) -> bool:
    try:
        await write(config, api, labels)
    except MeshError as error:
        log.warning("cannot write the labels of the cluster", error=str(error), again_in_s=_PAUSE)
        return False
    return True


async def write(config: ClusterInfoConfig, api: Api, labels: dict[str, str]) -> None:
    """Add the labels to the ConfigMap's entry; what else is there stays. Raises `MeshError`."""
    try:
        found: Object | None = await api.get(CONFIG_MAPS, config.configmap_name, config.namespace)
    except ObjectMissing:
        found = None
    before = _present(((found or {}).get("data") or {}).get(config.file_name, ""))
    after = {**before, **labels}
    if found is not None and after == before:
        return
    data = {config.file_name: yaml.safe_dump(after, sort_keys=True)}
    if found is None:
        with contextlib.suppress(ObjectConflict):
            body = {"metadata": {"name": config.configmap_name}, "data": data}
            await api.create(CONFIG_MAPS, body, config.namespace)
    else:
        await api.patch(CONFIG_MAPS, config.configmap_name, {"data": data}, config.namespace)
    log.info("written", config_map=f"{config.namespace}/{config.configmap_name}", key=config.file_name)


def _present(document: str) -> dict[str, str]:
    """The labels that are there; none if they cannot be read, since they are overwritten anyway."""
    try:
        return parse_labels(read_yaml(document))
    except ValueError:
        return {}
